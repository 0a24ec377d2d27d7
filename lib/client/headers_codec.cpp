#include "lib/client/headers_codec.hpp"

#include <array>
#include <utility>

#include "lib/control/json_text.hpp"
#include "lib/shm/memory.hpp"

namespace ackring::client {

std::uint64_t encoded_bytes(const Headers& headers) noexcept {
  std::uint64_t bytes = 0;
  for (const auto& [name, value] : headers) {
    if (name.size() > std::numeric_limits<std::uint16_t>::max() ||
        value.size() > std::numeric_limits<std::uint32_t>::max()) {
      return headers_too_large;
    }
    bytes += header_prefix_bytes + name.size() + value.size();
  }
  return bytes;
}

void encode_headers(const Headers& headers, std::byte* to) {
  for (const auto& [name, value] : headers) {
    std::array<std::byte, header_prefix_bytes> prefix;
    ring::write_header_prefix(prefix.data(), name, value);
    shm::shared_copy(to, prefix.data(), prefix.size());
    to += prefix.size();
    if (!name.empty()) shm::shared_copy(to, name.data(), name.size());
    to += name.size();
    if (!value.empty()) shm::shared_copy(to, value.data(), value.size());
    to += value.size();
  }
}

Headers decode_headers(std::span<const std::byte> bytes) {
  Headers headers;
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string_view name;
  std::string_view value;
  while (ring::next_header(rest, name, value)) headers.emplace_back(name, value);
  return headers;
}

std::string headers_json(const Headers& headers) {
  std::string text = "{";
  for (const auto& [name, value] : headers) {
    if (text.size() > 1) text += ",";
    text += control::json_string_of_bytes(name) + ":" + control::json_string_of_bytes(value);
  }
  return text + "}";
}

}  // namespace ackring::client
