#include "lib/control/subscription_codec.hpp"

#include <bit>
#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>

#include "ackring/error.hpp"
#include "ackring/limits.hpp"
#include "lib/control/topic_pattern.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::control {
namespace {

constexpr std::uint64_t min_ack_timeout_ns = 1'000'000;
// Delays end on a clock that counts nanoseconds in 64 bits.
constexpr auto longest_delay_ns = static_cast<std::int64_t>(limits::longest_delay_s * 1'000'000'000);
constexpr auto longest_ns = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

[[noreturn]] void refuse(std::string_view option, std::string why, std::string advice) {
  throw Error(ErrorCode::invalid_argument, "subscription option " + std::string(option), std::move(why),
              std::move(advice));
}

std::uint64_t number(const Json& value, std::string_view option, std::uint64_t largest) {
  // A number that the parser kept as signed is either negative or was built by a program; both are looked at.
  if (value.is_number_unsigned()) {
    const auto result = value.get<std::uint64_t>();
    if (result <= largest) return result;
  } else if (value.is_number_integer()) {
    const auto result = value.get<std::int64_t>();
    if (result >= 0 && static_cast<std::uint64_t>(result) <= largest) return static_cast<std::uint64_t>(result);
  }
  refuse(option, value.dump() + " is not a whole number from 0 to " + std::to_string(largest), "give such a number");
}

double real(const Json& value, std::string_view option) {
  if (!value.is_number()) refuse(option, value.dump() + " is not a number", "give a number");
  return value.get<double>();
}

bool truth(const Json& value, std::string_view option) {
  if (!value.is_boolean()) refuse(option, value.dump() + " is neither true nor false", "give one of them");
  return value.get<bool>();
}

std::string text(const Json& value, std::string_view option) {
  if (!value.is_string()) refuse(option, value.dump() + " is not a string", "give a string");
  return value.get<std::string>();
}

void check_between(std::string_view option, std::uint64_t value, std::uint64_t least, std::uint64_t largest) {
  if (value >= least && value <= largest) return;
  refuse(option, std::to_string(value) + " is out of limits",
         "give " + std::to_string(least) + " to " + std::to_string(largest));
}

Nanoseconds duration(const Json& value, std::string_view option) {
  return Nanoseconds(static_cast<std::int64_t>(number(value, option, longest_ns)));
}

std::vector<Nanoseconds> durations(const Json& value, std::string_view option) {
  if (!value.is_array()) refuse(option, value.dump() + " is not a list", "give a list of nanoseconds");
  std::vector<Nanoseconds> result;
  for (const Json& one : value) result.push_back(duration(one, option));
  return result;
}

Guarantee guarantee_of(const std::string& name) {
  for (const Guarantee value : {Guarantee::at_least_once, Guarantee::at_most_once}) {
    if (name == to_string(value)) return value;
  }
  refuse("guarantee", "no guarantee is called '" + name + "'", "give at-least-once or at-most-once");
}

StartFrom start_of(const std::string& name) {
  for (const StartFrom value : {StartFrom::now, StartFrom::last_values}) {
    if (name == to_string(value)) return value;
  }
  refuse("from", "'" + name + "' is no place to begin", "give now or last");
}

// What only makes sense for members has no meaning for a subscription that has none.
void check_reserved(const SubscriptionOptions& options) {
  const SubscriptionOptions defaults;
  if (options.group || options.ordered || options.ordered_by_key || !options.dead_letter_topic.empty() ||
      options.dead_letter_expired || options.overflow != defaults.overflow || options.from != defaults.from) {
    throw Error(ErrorCode::invalid_argument, "subscription '" + options.name + "'",
                "the exchange itself consumes it, so that it has no members to deliver to",
                "give patterns, ttl, max_events and max_bytes only");
  }
  if (options.name != event_ids_name) return;
  check_between("max_events", options.max_events, limits::least_event_ids, std::numeric_limits<std::uint64_t>::max());
  check_between("max_bytes", options.max_bytes, limits::least_event_id_bytes,
                std::numeric_limits<std::uint64_t>::max());
}

Overflow overflow_of(const std::string& name) {
  for (const Overflow value :
       {Overflow::automatic, Overflow::block, Overflow::drop_newest, Overflow::drop_oldest, Overflow::dead_letter}) {
    if (name == to_string(value)) return value;
  }
  refuse("overflow", "no policy is called '" + name + "'",
         "give block, drop-newest, drop-oldest, dead-letter or automatic");
}

}  // namespace

const char* to_string(Guarantee guarantee) noexcept {
  return guarantee == Guarantee::at_most_once ? "at-most-once" : "at-least-once";
}

const char* to_string(StartFrom from) noexcept { return from == StartFrom::last_values ? "last" : "now"; }

const char* to_string(Pending pending) noexcept {
  switch (pending) {
    case Pending::keep:
      return "keep";
    case Pending::dead_letter:
      return "dead-letter";
    case Pending::drop:
      return "drop";
    case Pending::refuse:
      break;
  }
  return "refuse";
}

const char* to_string(Overflow overflow) noexcept {
  switch (overflow) {
    case Overflow::automatic:
      return "automatic";
    case Overflow::block:
      return "block";
    case Overflow::drop_newest:
      return "drop-newest";
    case Overflow::drop_oldest:
      return "drop-oldest";
    case Overflow::dead_letter:
      return "dead-letter";
  }
  return "unknown";
}

Json options_to_json(const SubscriptionOptions& options) {
  Json delays = Json::array();
  for (const Nanoseconds delay : options.retry_delays) delays.push_back(delay.count());
  return Json{{"guarantee", to_string(options.guarantee)},
              {"from", to_string(options.from)},
              {"ack_timeout_ns", options.ack_timeout.count()},
              {"max_deliveries", options.max_deliveries},
              {"backoff_initial_ns", options.backoff_initial.count()},
              {"backoff_max_ns", options.backoff_max.count()},
              {"backoff_multiplier", options.backoff_multiplier},
              {"jitter", options.jitter},
              {"retry_delays_ns", delays},
              {"ttl_ns", options.ttl.count()},
              {"dead_letter_expired", options.dead_letter_expired},
              {"dead_letter_topic", options.dead_letter_topic},
              {"max_dead_bytes", options.max_dead_bytes},
              {"group", options.group},
              {"ordered", options.ordered},
              {"ordered_by_key", options.ordered_by_key},
              {"max_in_flight", options.max_in_flight},
              {"ring_bytes", options.ring_bytes},
              {"max_events", options.max_events},
              {"max_bytes", options.max_bytes},
              {"overflow", to_string(options.overflow)}};
}

SubscriptionOptions options_from_json(std::string name, std::vector<std::string> patterns, const Json& options) {
  constexpr std::uint64_t any32 = std::numeric_limits<std::uint32_t>::max();
  constexpr std::uint64_t any64 = std::numeric_limits<std::uint64_t>::max();
  SubscriptionOptions result;
  result.name = std::move(name);
  result.patterns = std::move(patterns);
  if (!options.is_object()) refuse("list", "the options are not a JSON object", "give an object");
  for (const auto& [option, value] : options.items()) {
    if (option == "guarantee") {
      result.guarantee = guarantee_of(text(value, option));
    } else if (option == "from") {
      result.from = start_of(text(value, option));
    } else if (option == "ack_timeout_ns") {
      result.ack_timeout = duration(value, option);
    } else if (option == "max_deliveries") {
      result.max_deliveries = static_cast<std::uint32_t>(number(value, option, any32));
    } else if (option == "backoff_initial_ns") {
      result.backoff_initial = duration(value, option);
    } else if (option == "backoff_max_ns") {
      result.backoff_max = duration(value, option);
    } else if (option == "backoff_multiplier") {
      result.backoff_multiplier = real(value, option);
    } else if (option == "jitter") {
      result.jitter = real(value, option);
    } else if (option == "retry_delays_ns") {
      result.retry_delays = durations(value, option);
    } else if (option == "ttl_ns") {
      result.ttl = duration(value, option);
    } else if (option == "dead_letter_expired") {
      result.dead_letter_expired = truth(value, option);
    } else if (option == "dead_letter_topic") {
      result.dead_letter_topic = text(value, option);
    } else if (option == "max_dead_bytes") {
      result.max_dead_bytes = number(value, option, any64);
    } else if (option == "group") {
      result.group = truth(value, option);
    } else if (option == "ordered") {
      result.ordered = truth(value, option);
    } else if (option == "ordered_by_key") {
      result.ordered_by_key = truth(value, option);
    } else if (option == "max_in_flight") {
      result.max_in_flight = static_cast<std::uint32_t>(number(value, option, any32));
    } else if (option == "ring_bytes") {
      result.ring_bytes = number(value, option, any64);
    } else if (option == "max_events") {
      result.max_events = number(value, option, any64);
    } else if (option == "max_bytes") {
      result.max_bytes = number(value, option, any64);
    } else if (option == "overflow") {
      result.overflow = overflow_of(text(value, option));
    } else {
      refuse("'" + option + "'", "there is no such option", "see SubscriptionOptions");
    }
  }
  check_options(result);
  return result;
}

bool is_reserved(std::string_view name) noexcept { return name == last_values_name || name == event_ids_name; }

void check_subscription_name(std::string_view name) {
  if (!is_reserved(name)) shm::check_name("subscription", name);
}

void check_options(const SubscriptionOptions& options) {
  if (!options.name.empty()) check_subscription_name(options.name);
  if (is_reserved(options.name)) check_reserved(options);
  if (options.patterns.size() > limits::patterns) {
    throw Error(ErrorCode::invalid_argument, "subscription '" + options.name + "'",
                std::to_string(options.patterns.size()) + " patterns",
                "give at most " + std::to_string(limits::patterns));
  }
  for (const std::string& pattern : options.patterns) {
    std::string problem = pattern_problem(pattern);
    if (!problem.empty()) {
      throw Error(ErrorCode::invalid_argument, "pattern '" + pattern + "'", std::move(problem),
                  "give words of [A-Za-z0-9_-], * or # split by '.', at most " + std::to_string(limits::topic_bytes) +
                      " bytes");
    }
  }
  if (!options.dead_letter_topic.empty() && !valid_topic(options.dead_letter_topic)) {
    refuse("dead_letter_topic", "'" + options.dead_letter_topic + "' is not a topic",
           "give words of [A-Za-z0-9_-] split by '.', at most " + std::to_string(limits::topic_bytes) + " bytes");
  }
  if (options.group && options.name.empty()) {
    refuse("group", "a group whose subscription has no name can't be joined", "give it a name");
  }
  if (options.ordered && options.guarantee == Guarantee::at_most_once) {
    refuse("ordered", "what is settled when it is taken has nothing to wait for",
           "leave it out, or take at-least-once");
  }
  if (options.ack_timeout.count() < static_cast<std::int64_t>(min_ack_timeout_ns)) {
    refuse("ack_timeout", std::to_string(options.ack_timeout.count()) + " ns is too short", "give at least 1 ms");
  }
  if (options.backoff_initial.count() < 0 || options.backoff_max < options.backoff_initial) {
    refuse("backoff", "its delays are negative, or its longest is below its first", "give 0 <= initial <= maximum");
  }
  const auto too_long = [](Nanoseconds delay) { return delay.count() < 0 || delay.count() > longest_delay_ns; };
  if (too_long(options.backoff_max)) refuse("backoff", "its longest delay is over 365 days", "give less");
  if (options.retry_delays.size() > limits::retry_delays) {
    refuse("retry_delays", std::to_string(options.retry_delays.size()) + " delays",
           "give at most " + std::to_string(limits::retry_delays) + "; the last one counts for all later attempts");
  }
  for (const Nanoseconds delay : options.retry_delays) {
    if (too_long(delay)) {
      refuse("retry_delays", std::to_string(delay.count()) + " ns is out of limits", "give 0 to 365 days");
    }
  }
  if (too_long(options.ttl)) {
    refuse("ttl", std::to_string(options.ttl.count()) + " ns is out of limits", "give 0 (none) to 365 days");
  }
  if (!(options.backoff_multiplier >= 1 && options.backoff_multiplier <= 1000)) {
    refuse("backoff_multiplier", std::to_string(options.backoff_multiplier) + " is out of limits", "give 1 to 1000");
  }
  if (!(options.jitter >= 0 && options.jitter <= 1)) {
    refuse("jitter", std::to_string(options.jitter) + " is out of limits", "give 0 to 1");
  }
  check_between("max_deliveries", options.max_deliveries, 1, limits::max_deliveries);
  check_between("max_in_flight", options.max_in_flight, 1, limits::max_in_flight);
  check_between("ring_bytes", options.ring_bytes, limits::min_ring_bytes, limits::max_ring_bytes);
  if (!std::has_single_bit(options.ring_bytes)) {
    refuse("ring_bytes", std::to_string(options.ring_bytes) + " is not a power of two",
           "give " + std::to_string(std::bit_ceil(options.ring_bytes)));
  }
}

Json differing_options(const SubscriptionOptions& left, const SubscriptionOptions& right) {
  const Json these = options_to_json(left);
  const Json other = options_to_json(right);
  Json names = Json::array();
  for (const auto& [option, value] : these.items()) {
    if (option != "from" && value != other.at(option)) names.push_back(option);
  }
  return names;
}

}  // namespace ackring::control
