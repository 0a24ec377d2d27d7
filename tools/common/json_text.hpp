// JSON as bytes: where the members of an object stand in a line, and what the library knows of writing them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "lib/control/json_text.hpp"

namespace ackring::tools {

using control::base64_encode;
using control::data_member;
using control::is_json;
using control::is_utf8;
using control::json_string;
using control::json_string_of_bytes;

/// Calls `member(name, value)` for each member of the top-level object in `object`, which must be valid JSON and begin
/// with '{' after white space. `name` is decoded; `value` is exactly the bytes of the value as they stand there.
void for_each_member(std::string_view object, const std::function<void(const std::string&, std::string_view)>& member);

/// Nothing if `text` is not base64 (RFC 4648, with padding).
[[nodiscard]] std::optional<std::string> base64_decode(std::string_view text);

}  // namespace ackring::tools
