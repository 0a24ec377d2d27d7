// The file of settings, docs/configuration.md: TOML, with what the flags say, and subscriptions that are to be there.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ackring/options.hpp"
#include "tools/exchange/settings.hpp"

namespace ackring::tools {

/// One of the file's subscriptions.
struct DeclaredSubscription {
  SubscriptionOptions options;
  std::vector<std::string>
      given;            // of control::options_to_json(): what is not given, an existing one may have otherwise
  bool update = false;  // one that exists is changed to be like this
  std::string where;    // FILE:LINE
};

struct ConfigFile {
  /// Keys, such as `log.level`, and what sets them.
  std::vector<std::pair<std::string, std::function<void(Settings&)>>> settings;
  std::vector<DeclaredSubscription> subscriptions;  // those that others need first: @last, @ids
  /// `FILE:LINE: key 'x': why: what to do`, a line each. Where there is any, nothing of the file counts.
  std::vector<std::string> errors;
};

/// Of a text; `name` stands for the file in messages. Names of groups and users are looked up; an access file that it names is
/// not read.
[[nodiscard]] ConfigFile parse_config(std::string_view text, const std::string& name);
/// Throws Failure (status_refused) if the file can't be read, or others than root and this user could change it.
[[nodiscard]] ConfigFile read_config_file(const std::string& path);

/// What holds after all: what was not given as an argument is the file's.
[[nodiscard]] Settings settings_of(const Arguments& arguments, const ConfigFile& file);
/// The rules that the settings name or hold. Throws Failure, as read_access_file() does.
[[nodiscard]] control::AccessRules access_rules_of(const Settings& settings);

/// Reads the arguments' file, if there is one. Throws Failure as above, or status_usage with its first error.
[[nodiscard]] ConfigFile read_config(const Arguments& arguments);
/// --check-config: says `FILE: ok`, or all errors on stderr. Answers the exit status.
[[nodiscard]] int check_config(const Arguments& arguments);

}  // namespace ackring::tools
