#include "lib/control/json_text.hpp"

#include <cstddef>
#include <cstdint>

#include <nlohmann/json.hpp>

#include "lib/shm/utf8.hpp"

namespace ackring::control {
namespace {

constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

bool is_json(std::string_view text) {
  // nlohmann's lexer takes a zero byte for the end of the input, and skips a byte order mark.
  if (text.find('\0') != std::string_view::npos || text.starts_with("\xef\xbb\xbf")) return false;
  return nlohmann::json::accept(text.begin(), text.end());
}

bool is_utf8(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = shm::utf8_bytes(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string json_string(std::string_view text) { return nlohmann::json(text).dump(); }

std::string json_string_of_bytes(std::string_view bytes) {
  if (is_utf8(bytes)) return json_string(bytes);
  std::string decoded;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      decoded += c;
    } else {
      decoded += static_cast<char>(0xc0 | byte >> 6);
      decoded += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return json_string(decoded);
}

std::string data_member(std::string_view payload) {
  // White space of a JSON text may be a line break, which would end the line too early.
  const bool one_line = payload.find_first_of("\r\n") == std::string_view::npos;
  if (one_line && is_json(payload)) return std::string("\"data\":").append(payload);
  if (is_utf8(payload)) return "\"data\":" + json_string(payload);
  return "\"data_base64\":\"" + base64_encode(payload) + "\"";
}

std::string base64_encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t count = bytes.size() - at < 3 ? bytes.size() - at : 3;
    std::uint32_t group = 0;
    for (std::size_t i = 0; i < 3; ++i)
      group = group << 8 | (i < count ? static_cast<std::uint8_t>(bytes[at + i]) : 0U);
    for (std::size_t i = 0; i < 4; ++i) text += i <= count ? base64_digits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

}  // namespace ackring::control
