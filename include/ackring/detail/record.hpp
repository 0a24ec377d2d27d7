// Where the parts of an event lie that a view reads without a call. Not for users: it changes with the layout of shared
// memory, and with it the version of the library that a program is linked with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ackring::detail {

inline constexpr std::size_t record_flags = 6;
inline constexpr std::size_t record_sequence = 8;
inline constexpr std::size_t record_published_ns = 16;
inline constexpr std::size_t record_payload_bytes = 28;
inline constexpr std::size_t record_delivery = 40;
inline constexpr std::size_t record_header_bytes = 48;
inline constexpr std::size_t record_attempt_bytes = 32;  // behind the header, if the flag says so
inline constexpr std::size_t record_history = 14;        // in it: how many past attempts follow it
inline constexpr std::size_t record_past_bytes = 16;     // of each
inline constexpr std::uint16_t record_flag_attempt = 1;
inline constexpr std::uint16_t record_flag_timing = 4;
inline constexpr std::size_t record_timing_bytes = 16;  // before the attempt, if the flag says so

template <class T>
[[nodiscard]] inline T record_field(const std::byte* record, std::size_t at) noexcept {
  T value;
  std::memcpy(&value, record + at, sizeof value);
  return value;
}

}  // namespace ackring::detail
