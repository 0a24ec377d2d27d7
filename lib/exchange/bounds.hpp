// How much the exchange does at once, and how long it waits for others.
#pragma once

#include <cstdint>

namespace ackring::exchange {

/// How long a full ring of a live member makes its publishers wait before its events go to the backlog: long enough for a
/// member that shares X's core to run once, short enough for everybody else.
inline constexpr std::uint64_t full_ring_grace_ns = 10'000'000;

/// What is said of a file that its client has made shorter.
inline constexpr const char* cut_short = "its file was cut short";
/// Bounds of one batch, so that no publisher and no backlog holds up the others.
inline constexpr std::uint64_t batch_events = 256;
inline constexpr std::uint64_t batch_bytes = 128u << 10;
/// A tick that is later than this after the one before: X could not run, and nobody's time passed.
inline constexpr std::uint64_t longest_gap_ns = 20'000'000;

/// Between two ticks, and between two of one who has nothing to wait for.
inline constexpr std::uint64_t tick_ns = 5'000'000;
inline constexpr std::uint64_t idle_tick_ns = 1'000'000'000;

}  // namespace ackring::exchange
