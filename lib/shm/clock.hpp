// CLOCK_MONOTONIC in nanoseconds, read from the time-stamp counter where the kernel itself trusts it.
//
// clock_gettime() orders its read of the counter and costs about 25 ns; a plain read costs about 10 ns, and one is needed
// per commit. Each thread measures the counter's rate against CLOCK_MONOTONIC before it relies on it, and again once a second
// (tick_clock.hpp), so that threads and processes agree to about 100 ns, and slewing and suspends are followed.
//
// Thread rules: any thread.
#pragma once

#include <cstdint>

namespace ackring::shm {

/// Nanoseconds of CLOCK_MONOTONIC. Never smaller than an earlier answer to the same thread.
std::uint64_t monotonic_ns() noexcept;

}  // namespace ackring::shm
