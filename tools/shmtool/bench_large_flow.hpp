// A flow of large events whose client is one thread: it publishes, and takes for every subscriber, in turn.
//
// Thread rules: for a process without threads.
#pragma once

#include <cstdint>
#include <string>

#include "tools/shmtool/bench.hpp"

namespace ackring::tools {

/// `count` events from one publisher to options.subscribers, as fast as possible. Publisher and subscribers are one thread
/// on the core of the first client, the exchange is on the other: what copies do is in the figure, and what a scheduler
/// does with processes that share a core is not. `run` is a name of its own, a word of topics. Throws Failure.
[[nodiscard]] BenchResult large_flow(const BenchOptions& options, const std::string& run, std::uint64_t count);

}  // namespace ackring::tools
