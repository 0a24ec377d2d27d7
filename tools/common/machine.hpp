// The machine that a program runs on: its cores, and what a benchmark should say about it.
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

namespace ackring::tools {

/// Cores this process may run on, ascending.
[[nodiscard]] std::vector<int> allowed_cpus();

/// From now on this thread runs on core `cpu` only. Throws Failure (status_usage) if the system has no such core for us.
void pin_to_cpu(int cpu);

/// {"cpu", "cores", "kernel", "governor"}; governor is null where the system does not tell.
[[nodiscard]] nlohmann::json machine_description();

}  // namespace ackring::tools
