// JSON as bytes: where the members of an object stand in a line, and how a payload is written into one.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ackring::tools {

/// Is all of `text` one JSON value (RFC 8259)?
[[nodiscard]] bool is_json(std::string_view text);

/// Is `text` well-formed UTF-8 (no surrogates, no overlong forms)?
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

/// `text` (UTF-8) as a JSON string, with quotes.
[[nodiscard]] std::string json_string(std::string_view text);

/// Calls `member(name, value)` for each member of the top-level object in `object`, which must be valid JSON and begin
/// with '{' after white space. `name` is decoded; `value` is exactly the bytes of the value as they stand there.
void for_each_member(std::string_view object, const std::function<void(const std::string&, std::string_view)>& member);

/// `"data":…` of a payload: the payload itself where it is valid JSON that fits in a line, else a string, else
/// `"data_base64":"…"`.
[[nodiscard]] std::string data_member(std::string_view payload);

[[nodiscard]] std::string base64_encode(std::string_view bytes);
/// Nothing if `text` is not base64 (RFC 4648, with padding).
[[nodiscard]] std::optional<std::string> base64_decode(std::string_view text);

}  // namespace ackring::tools
