// What two hops cost at least: a record that goes through two bare rings, and nothing else.
#pragma once

#include <cstddef>

namespace ackring::tools {

/// Median over many groups of round trips, in nanoseconds. A process on `cpu` writes a record of `payload` bytes into a ring,
/// one on `other_cpu` copies it into another one, from where the first reads it: the same rings, records and polling as on a
/// bus, without routing, acks, recovery, or a clock. Throws Failure if a core can't be used.
[[nodiscard]] double ring_relay_ns(int cpu, int other_cpu, std::size_t payload);

}  // namespace ackring::tools
