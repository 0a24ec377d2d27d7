// JSON as text: how a payload, which may be any bytes, is written into a document byte for byte where that is possible.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <string>
#include <string_view>

namespace ackring::control {

/// Is all of `text` one JSON value (RFC 8259)?
[[nodiscard]] bool is_json(std::string_view text);

/// Is `text` well-formed UTF-8 (no surrogates, no overlong forms)?
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

/// `text` (UTF-8) as a JSON string, with quotes.
[[nodiscard]] std::string json_string(std::string_view text);

/// Any bytes as a JSON string, such as those of keys and headers: what is no UTF-8 can't stand in JSON, so its bytes are
/// shown as Latin-1.
[[nodiscard]] std::string json_string_of_bytes(std::string_view bytes);

/// `"data":…` of a payload: the payload itself where it is valid JSON that fits in a line, else a string, else
/// `"data_base64":"…"`.
[[nodiscard]] std::string data_member(std::string_view payload);

[[nodiscard]] std::string base64_encode(std::string_view bytes);

}  // namespace ackring::control
