// ConfigReader: reads subscriptions of a file of settings, and notes all that is wrong, with the line where it stands.
#pragma once

#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "ackring/error.hpp"
#include "tools/exchange/config_file.hpp"
#include "tools/exchange/toml_text.hpp"

namespace ackring::tools {

class ConfigReader {
 public:
  explicit ConfigReader(std::string name) : name_(std::move(name)) {}

  /// `value` is what stands behind the key [[subscription]].
  void read_subscriptions(const toml::node& value);

  void refuse(const toml::node& at, std::string_view key, const std::string& why, const std::string& advice) {
    refuse(at.source().begin.line, key, why, advice);
  }
  void refuse(std::size_t line, std::string_view key, const std::string& why, const std::string& advice);
  /// `FILE:LINE: message`.
  void add_error(std::size_t line, const std::string& message);
  /// The result, with all errors in the order of their lines.
  [[nodiscard]] ConfigFile take();
  /// Does it, and notes what it throws about a value: std::invalid_argument (`why: what to do`) or Error. False: it threw.
  template <class Act>
  bool attempt(const toml::node& at, std::string_view key, const Act& act) {
    try {
      act();
      return true;
    } catch (const std::invalid_argument& error) {
      note(at, key, error.what());
    } catch (const Error& error) {
      note(at, key, error.advice().empty() ? error.why() : error.why() + ": " + error.advice());
    }
    return false;
  }

  /// Keys may be spelled as flags are.
  [[nodiscard]] static std::string plain(std::string_view key);
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  ConfigFile result;  // without its errors

 private:
  void read_subscription(const toml::table& table);
  bool read_option(const std::string& key, const toml::node& value, DeclaredSubscription& into);
  void read_patterns(const toml::node& value, DeclaredSubscription& into);
  void note(const toml::node& at, std::string_view key, const std::string& message);

  const std::string name_;
  std::multimap<std::size_t, std::string> errors_;  // by line
  std::set<std::string> names_;                     // of the subscriptions so far
};

}  // namespace ackring::tools
