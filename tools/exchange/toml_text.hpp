// What readers of TOML files share.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "lib/control/access.hpp"

namespace ackring::tools {

/// A text, number or truth value as it would stand on a command line; nothing of any other kind.
[[nodiscard]] inline std::optional<std::string> text_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  return std::nullopt;
}

/// All of a file whose owner is root or this user, and that nobody else may change. Throws Failure (status_refused); `advice`
/// says what to give instead of one that is not there, `larger` what to do about one of more than 1 MiB.
[[nodiscard]] std::string read_own_file(const std::string& path, const std::string& advice, const std::string& larger);

/// Access rules of a table; `name` stands for the file in messages. Throws Failure (status_usage).
[[nodiscard]] control::AccessRules access_rules_of_table(const toml::table& table, const std::string& name);

}  // namespace ackring::tools
