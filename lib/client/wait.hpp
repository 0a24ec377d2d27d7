// How an endpoint waits, and for how long.
//
// Thread rules: plain functions.
#pragma once

#include <cstdint>
#include <limits>

#include "ackring/options.hpp"
#include "lib/shm/environment.hpp"

namespace ackring::client {

/// A park is bounded by this, whatever bell is missed (F10).
inline constexpr std::uint64_t longest_park_ns = 100'000'000;
/// Spinning looks at the clock once in so many rounds.
inline constexpr std::uint32_t rounds_per_clock = 64;

/// CLOCK_MONOTONIC nanoseconds; a timeout below 0 is one of 0, a very long one never ends.
[[nodiscard]] inline std::uint64_t deadline_after(Nanoseconds timeout) {
  const std::uint64_t now = shm::Environment::now_ns();
  if (timeout.count() <= 0) return now;
  const auto ns = static_cast<std::uint64_t>(timeout.count());
  constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
  return ns > never - now ? never : now + ns;
}

}  // namespace ackring::client
