// Durations, sizes and counts, as people write and read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ackring/options.hpp"

namespace ackring::tools {

/// `250us`, `10ms`, `5s`, `2m`, `1h`, `7ns`; a bare number is seconds; fractions are allowed (`0.5s`). At most 292 years.
/// Throws std::invalid_argument that says what is wrong and shows the form.
[[nodiscard]] Nanoseconds parse_duration(std::string_view text);

/// `64` (bytes), `4KiB`, `1MiB`, `2GiB`. Throws std::invalid_argument.
[[nodiscard]] std::uint64_t parse_size(std::string_view text);

/// `780 ns`, `12.5 us`, `3.21 ms`, `2.5 s`.
[[nodiscard]] std::string format_duration(double nanoseconds);

/// `1,234,567`.
[[nodiscard]] std::string format_count(std::uint64_t count);

/// `123 B`, `4.0 KiB`, `17.6 MiB`, `2.1 GiB`.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

/// `21.4 million`, `350 thousand`, `12`.
[[nodiscard]] std::string format_rate(double per_second);

/// `2026-11-24T18:30:05.123Z`.
[[nodiscard]] std::string format_time(std::uint64_t unix_ns);

/// CLOCK_MONOTONIC in nanoseconds: the clock that stamps events. It may be read a little ahead of what stands before it.
[[nodiscard]] std::uint64_t monotonic_ns() noexcept;
/// The same, read only when everything before it has happened.
[[nodiscard]] std::uint64_t monotonic_ns_behind() noexcept;

/// CLOCK_REALTIME, in nanoseconds since the epoch.
[[nodiscard]] std::uint64_t realtime_ns() noexcept;

}  // namespace ackring::tools
