// The options of a subscription on a command line: `sub`, `subscription create` and `subscription update` share them.
#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ackring/bus.hpp"

namespace ackring::tools {

/// Options as they were given; what was not given leaves an existing subscription as it is.
class SubscriptionArguments {
 public:
  /// Adds them to a command. This object must live as long as `app`.
  void add_to(CLI::App& app);
  /// Sets what was given in `options`.
  void apply(SubscriptionOptions& options) const;
  /// Throws Failure (status_usage) where something given, or `patterns` if there are any, differs from `existing`.
  void require_same(const SubscriptionOptions& existing, const std::vector<std::string>& patterns) const;

 private:
  struct Given {
    std::string name;
    std::string text;
    std::function<void(SubscriptionOptions&)> set;
    std::function<bool(const SubscriptionOptions&, const SubscriptionOptions&)> same;
  };
  template <class T>
  void add(CLI::App& app, const std::string& name, const std::string& type, const std::string& description,
           T SubscriptionOptions::*field, std::function<T(const std::string&)> parse);

  void add_flag(CLI::App& app, const std::string& name, const std::string& description,
                bool SubscriptionOptions::*field);

  std::vector<Given> given_;
};

/// Digits only. Throws std::invalid_argument.
template <class T>
T parse_number(const std::string& text) {
  T number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::invalid_argument("'" + text + "' is not a number: write digits only");
  }
  return number;
}

/// A finite number; `what` says what is expected where it is none. Throws std::invalid_argument.
[[nodiscard]] double parse_real(const std::string& text, const std::string& what);

/// The options of subscription `name`, or nothing if there is none.
[[nodiscard]] std::optional<SubscriptionOptions> find_subscription(Bus& bus, const std::string& name);

}  // namespace ackring::tools
