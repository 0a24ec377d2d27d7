// Headers of an event as they lie in a record: for each u16 bytes of the name, u32 bytes of the value, name, value;
// little-endian, not aligned.
//
// Thread rules: plain functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "ackring/delivery.hpp"

namespace ackring::client {

inline constexpr std::size_t header_prefix_bytes = sizeof(std::uint16_t) + sizeof(std::uint32_t);
inline constexpr std::uint64_t headers_too_large = std::numeric_limits<std::uint64_t>::max();

/// Bytes of the encoded headers; headers_too_large if a name or a value does not fit its length field.
[[nodiscard]] std::uint64_t encoded_bytes(const Headers& headers) noexcept;

/// Writes encoded_bytes(headers) bytes to `to`, shared memory.
void encode_headers(const Headers& headers, std::byte* to);

/// Decodes what is whole; stops where a length goes beyond the end.
[[nodiscard]] Headers decode_headers(std::span<const std::byte> bytes);

/// The headers as a JSON object of strings.
[[nodiscard]] std::string headers_json(const Headers& headers);

}  // namespace ackring::client
