#include "tools/exchange/config_reader.hpp"

#include <algorithm>
#include <map>

#include <CLI/CLI.hpp>

#include "lib/control/subscription_codec.hpp"
#include "lib/control/topic_pattern.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

// The flags of `shmtool subscription create`, so that each of them is a key, too, with the same values and the same errors.
class Flags {
 public:
  Flags() { arguments_.add_to(app_); }

  [[nodiscard]] CLI::Option* find(const std::string& key) {
    std::string flag = "--" + key;
    std::replace(flag.begin(), flag.end(), '_', '-');
    return app_.get_option_no_throw(flag);
  }
  /// Throws std::invalid_argument.
  static void give(CLI::Option& option, const std::string& text) {
    try {
      option.add_result(text);
      option.run_callback();
    } catch (const CLI::ParseError& error) {
      const std::string message = error.what();
      const std::string title = option.get_name() + ": ";
      throw std::invalid_argument(message.starts_with(title) ? message.substr(title.size()) : message);
    }
  }
  /// Sets what was given.
  void apply(SubscriptionOptions& options) const { arguments_.apply(options); }
  [[nodiscard]] std::string all() const {
    std::string keys;
    for (const CLI::Option* option : app_.get_options()) {
      std::string key = option->get_name().substr(2);
      if (key == "help") continue;
      std::replace(key.begin(), key.end(), '-', '_');
      keys += ", " + key;
    }
    return keys;
  }

 private:
  CLI::App app_;
  SubscriptionArguments arguments_;
};

// What a key sets, by the names that definitions of subscriptions have for it.
std::vector<std::string> options_named(const std::string& key) {
  static const std::map<std::string, std::vector<std::string>> others{
      {"ack_timeout", {"ack_timeout_ns"}},
      {"backoff", {"backoff_initial_ns", "backoff_max_ns", "backoff_multiplier"}},
      {"retry_delays", {"retry_delays_ns"}},
      {"ttl", {"ttl_ns"}},
      {"max_dead", {"max_dead_bytes"}},
      {"ring", {"ring_bytes"}},
      {"from", {}},  // means nothing once it is there
  };
  const auto at = others.find(key);
  return at != others.end() ? at->second : std::vector<std::string>{key};
}

}  // namespace

std::string ConfigReader::plain(std::string_view key) {
  std::string result(key);
  std::replace(result.begin(), result.end(), '-', '_');
  return result;
}

void ConfigReader::refuse(std::size_t line, std::string_view key, const std::string& why, const std::string& advice) {
  add_error(line, fmt::format("key '{}': {}: {}", key, why, advice));
}

void ConfigReader::note(const toml::node& at, std::string_view key, const std::string& message) {
  add_error(at.source().begin.line, fmt::format("key '{}': {}", key, message));
}

void ConfigReader::add_error(std::size_t line, const std::string& message) {
  errors_.emplace(line, fmt::format("{}:{}: {}", name_, line, message));
}

ConfigFile ConfigReader::take() {
  for (auto& [line, error] : errors_) result.errors.push_back(std::move(error));
  return std::move(result);
}

void ConfigReader::read_subscriptions(const toml::node& value) {
  const auto refuse_node = [this](const toml::node& node) {
    refuse(node, "subscription", "it is no list of tables", "begin each subscription with a line [[subscription]]");
  };
  const toml::array* tables = value.as_array();
  if (tables == nullptr) return refuse_node(value);
  for (const toml::node& table : *tables) {
    if (table.is_table()) {
      read_subscription(*table.as_table());
    } else {
      refuse_node(table);
    }
  }
  // What begins with last values needs what keeps them.
  std::stable_partition(result.subscriptions.begin(), result.subscriptions.end(),
                        [](const DeclaredSubscription& one) { return control::is_reserved(one.options.name); });
}

void ConfigReader::read_subscription(const toml::table& table) {
  const std::size_t errors = errors_.size();
  DeclaredSubscription declared;
  declared.where = fmt::format("{}:{}", name_, table.source().begin.line);
  for (const auto& [key, value] : table) {
    const std::string name = plain(key.str());
    if (name == "name") {
      if (!value.is_string()) {
        refuse(value, name, "it is no text", "write it in quotes");
        continue;
      }
      declared.options.name = value.as_string()->get();
      const bool good = attempt(value, name, [&] { control::check_subscription_name(declared.options.name); });
      if (good && !names_.insert(declared.options.name).second) {
        refuse(value, name, "'" + declared.options.name + "' is the name of an earlier one, too", "use another one");
      }
    } else if (name == "patterns") {
      read_patterns(value, declared);
    } else if (name == "update") {
      if (value.is_boolean()) {
        declared.update = value.as_boolean()->get();
      } else {
        refuse(value, name, "it is neither true nor false", "write one of them");
      }
    } else if (read_option(name, value, declared)) {
      for (std::string& option : options_named(name)) declared.given.push_back(std::move(option));
    }
  }
  if (!table.contains("name")) refuse(table, "name", "it is missing", "give each subscription one");
  if (!table.contains("patterns")) refuse(table, "patterns", "it is missing", "write such as [\"orders.#\"]");
  // What each key says is allowed; all of them together may not be.
  if (errors == errors_.size() && attempt(table, "subscription", [&] { control::check_options(declared.options); })) {
    result.subscriptions.push_back(std::move(declared));
  }
}

bool ConfigReader::read_option(const std::string& key, const toml::node& value, DeclaredSubscription& into) {
  Flags flags;
  CLI::Option* option = key == "help" ? nullptr : flags.find(key);
  if (option == nullptr) {
    refuse(value, key, "a subscription has no such key", "use name, patterns, update" + flags.all());
    return false;
  }
  const bool is_flag = option->get_expected_min() == 0;
  if (is_flag != value.is_boolean()) {
    refuse(value, key, is_flag ? "it is neither true nor false" : "it is neither text nor number",
           is_flag ? "write one of them"
                   : "write such as " + option->get_type_name() + ", in quotes where it is no number");
    return false;
  }
  if (is_flag && !value.as_boolean()->get()) return true;  // as it is by itself
  std::optional<std::string> text = text_of(value);
  if (const toml::array* list = value.as_array(); list != nullptr && key == "retry_delays") {
    std::string delays;
    for (const toml::node& delay : *list) delays += (delays.empty() ? "" : ",") + text_of(delay).value_or("?");
    text = delays;
  }
  if (!text) {
    refuse(value, key, "it is neither text nor number", "write one value");
    return false;
  }
  return attempt(value, key, [&] {
    Flags::give(*option, *text);
    SubscriptionOptions alone;
    flags.apply(alone);
    if (key == "group") alone.name = "any";  // a group without a name would be refused
    control::check_options(alone);
    flags.apply(into.options);
  });
}

void ConfigReader::read_patterns(const toml::node& value, DeclaredSubscription& into) {
  const auto add = [&](const toml::node& pattern) {
    if (!pattern.is_string()) return refuse(pattern, "patterns", "it is no text", "write such as [\"orders.#\"]");
    const std::string& text = pattern.as_string()->get();
    const std::string problem = control::pattern_problem(text);
    if (!problem.empty()) {
      return refuse(pattern, "patterns", "'" + text + "': " + problem, "write such as orders.*.created or orders.#");
    }
    into.options.patterns.push_back(text);
  };
  if (const toml::array* list = value.as_array(); list != nullptr) {
    for (const toml::node& pattern : *list) add(pattern);
    if (list->empty()) refuse(value, "patterns", "the list is empty", "write such as [\"orders.#\"]");
  } else {
    add(value);
  }
}

}  // namespace ackring::tools
