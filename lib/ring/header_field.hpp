// One header of an event as it lies in a record: u16 bytes of the name, u32 bytes of the value, name, value; little-endian,
// not aligned.
//
// Thread rules: plain functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace ackring::ring {

inline constexpr std::size_t header_prefix_bytes = sizeof(std::uint16_t) + sizeof(std::uint32_t);

/// Writes the two lengths. Both fit their fields.
inline void write_header_prefix(std::byte* to, std::string_view name, std::string_view value) noexcept {
  const auto name_bytes = static_cast<std::uint16_t>(name.size());
  const auto value_bytes = static_cast<std::uint32_t>(value.size());
  std::memcpy(to, &name_bytes, sizeof name_bytes);
  std::memcpy(to + sizeof name_bytes, &value_bytes, sizeof value_bytes);
}

/// Splits the first header off. False: there is none, or what is there is none.
inline bool next_header(std::string_view& headers, std::string_view& name, std::string_view& value) noexcept {
  std::uint16_t name_bytes = 0;
  std::uint32_t value_bytes = 0;
  if (headers.size() < header_prefix_bytes) return false;
  std::memcpy(&name_bytes, headers.data(), sizeof name_bytes);
  std::memcpy(&value_bytes, headers.data() + sizeof name_bytes, sizeof value_bytes);
  headers.remove_prefix(header_prefix_bytes);
  if (std::uint64_t{name_bytes} + value_bytes > headers.size()) return false;
  name = headers.substr(0, name_bytes);
  value = headers.substr(name_bytes, value_bytes);
  headers.remove_prefix(std::size_t{name_bytes} + value_bytes);
  return true;
}

}  // namespace ackring::ring
