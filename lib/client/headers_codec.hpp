// Headers of an event as they lie in a record: one behind the other (lib/ring/header_field.hpp).
//
// Thread rules: plain functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "ackring/delivery.hpp"
#include "lib/ring/header_field.hpp"

namespace ackring::client {

using ring::header_prefix_bytes;
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
