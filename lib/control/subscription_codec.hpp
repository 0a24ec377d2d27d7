// SubscriptionOptions as the control protocol and the definition files of subscriptions hold them, and their limits.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "ackring/options.hpp"

namespace ackring::control {

using Json = nlohmann::json;

/// Every option under its name: guarantee, ack_timeout_ns, max_deliveries, max_in_flight, ring_bytes, max_events,
/// max_bytes, overflow, …. Name, patterns and the way to wait (a member's own matter) are not among them.
[[nodiscard]] Json options_to_json(const SubscriptionOptions& options);

/// The other way round; options that `options` does not have keep their default. Throws Error (invalid_argument, which
/// names the option and its limit) as check_options() does, for values of a wrong type and for unknown options.
[[nodiscard]] SubscriptionOptions options_from_json(std::string name, std::vector<std::string> patterns,
                                                    const Json& options);

/// Throws Error (invalid_argument) if the name (may be empty), a pattern, their number or an option is out of limits.
void check_options(const SubscriptionOptions& options);

/// Does the exchange itself consume the subscription of this name (last_values_name, event_ids_name)?
[[nodiscard]] bool is_reserved(std::string_view name) noexcept;
/// Throws Error (invalid_argument) if no subscription may bear this name.
void check_subscription_name(std::string_view name);

/// Names of the options that differ between the two, but for `from`: an array of strings.
[[nodiscard]] Json differing_options(const SubscriptionOptions& left, const SubscriptionOptions& right);

/// Names of the options that differ from a default-constructed SubscriptionOptions: what the user has asked for.
[[nodiscard]] inline Json given_options(const SubscriptionOptions& options) {
  return differing_options(options, SubscriptionOptions{});
}

[[nodiscard]] const char* to_string(Guarantee guarantee) noexcept;
[[nodiscard]] const char* to_string(Overflow overflow) noexcept;
[[nodiscard]] const char* to_string(StartFrom from) noexcept;
const char* to_string(Pending pending) noexcept;

}  // namespace ackring::control
