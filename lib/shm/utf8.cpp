#include "lib/shm/utf8.hpp"

#include <cstdint>

namespace ackring::shm {

std::size_t utf8_bytes(std::string_view text, std::size_t at) noexcept {
  if (at >= text.size()) return 0;
  const auto lead = static_cast<std::uint8_t>(text[at]);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : 4;
  if (lead < 0xc2 || lead > 0xf4 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    const auto next = static_cast<std::uint8_t>(text[at + i]);
    std::uint8_t low = 0x80;
    std::uint8_t high = 0xbf;
    if (i == 1) {  // the second byte rules out overlong forms, surrogates and what lies beyond U+10FFFF
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    }
    if (next < low || next > high) return 0;
  }
  return length;
}

std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_bytes(text, at);
    const auto lead = static_cast<std::uint8_t>(text[at]);
    // U+0080 to U+009F are control characters too, such as CSI.
    const bool control = length == 1 ? lead < 0x20 || lead == 0x7f
                                     : length == 2 && lead == 0xc2 && static_cast<std::uint8_t>(text[at + 1]) < 0xa0;
    if (length == 0 || control) {
      result += '?';
      at += length == 0 ? 1 : length;
    } else {
      result += text.substr(at, length);
      at += length;
    }
  }
  return result;
}

}  // namespace ackring::shm
