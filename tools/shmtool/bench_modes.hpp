// The modes of shmtool bench that compare two things in rounds that take turns, each with a command line of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/shmtool/commands.hpp"

namespace ackring::tools {

void add_bench_scale(CLI::App& group, Globals& globals);
void add_bench_large(CLI::App& group, Globals& globals);
void add_bench_waiting(CLI::App& group, Globals& globals);

/// `0,64,4KiB`. Throws std::invalid_argument; for sizes below `least`, too.
[[nodiscard]] std::vector<std::uint64_t> parse_sizes(const std::string& text, std::uint64_t least);

/// Of one value at least.
[[nodiscard]] double median(std::vector<double> values);

}  // namespace ackring::tools
