// The yardstick of the benchmarks: how long one cache line takes from one core to another and back.
#pragma once

namespace ackring::tools {

/// Median over many groups of round trips, in nanoseconds. Two child processes, each on one of the cores, hand one line
/// back and forth. Throws Failure if a core can't be used.
[[nodiscard]] double cacheline_round_trip_ns(int cpu, int other_cpu);

}  // namespace ackring::tools
