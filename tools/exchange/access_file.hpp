// Reads access rules (lib/control/access.hpp) from a TOML file, as docs/access.md describes it.
#pragma once

#include <string>
#include <string_view>

#include "lib/control/access.hpp"

namespace ackring::tools {

/// Throws Failure: status_refused if the file can't be read, or others than root and this user could change it;
/// status_usage, with file, line and key, if something in it is not a rule.
[[nodiscard]] control::AccessRules read_access_file(const std::string& path);

/// The same of a text; `name` stands for the file in messages.
[[nodiscard]] control::AccessRules parse_access_rules(std::string_view text, const std::string& name);

}  // namespace ackring::tools
