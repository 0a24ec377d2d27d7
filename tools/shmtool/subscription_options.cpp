#include "tools/shmtool/subscription_options.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

template <class T>
T parse_number(const std::string& text) {
  T number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::invalid_argument("'" + text + "' is not a number: write digits only");
  }
  return number;
}

Guarantee parse_guarantee(const std::string& text) {
  if (text == "at-least-once") return at_least_once;
  if (text == "at-most-once") return at_most_once;
  throw std::invalid_argument("'" + text + "' is not a guarantee: choose at-least-once or at-most-once");
}

Overflow parse_overflow(const std::string& text) {
  if (text == "block") return Overflow::block;
  if (text == "drop-newest") return Overflow::drop_newest;
  if (text == "drop-oldest") return Overflow::drop_oldest;
  throw std::invalid_argument("'" + text + "' is not a policy: choose block, drop-newest or drop-oldest");
}

// What counts, whichever way it was said.
SubscriptionOptions normal_form(SubscriptionOptions options) {
  if (options.overflow == Overflow::automatic) {
    options.overflow = options.guarantee == at_least_once ? Overflow::block : Overflow::drop_oldest;
  }
  options.max_in_flight = std::bit_ceil(std::clamp(options.max_in_flight, 1u, limits::max_in_flight));
  std::sort(options.patterns.begin(), options.patterns.end());
  return options;
}

}  // namespace

template <class T>
void SubscriptionArguments::add(CLI::App& app, const std::string& name, const std::string& type,
                                const std::string& description, T SubscriptionOptions::*field,
                                std::function<T(const std::string&)> parse) {
  add_parsed(app, name, type, description, [this, name, field, parse = std::move(parse)](const std::string& text) {
    const T value = parse(text);
    given_.push_back(
        {name, text, [field, value](SubscriptionOptions& options) { options.*field = value; },
         [field](const SubscriptionOptions& a, const SubscriptionOptions& b) { return a.*field == b.*field; }});
  });
}

void SubscriptionArguments::add_to(CLI::App& app) {
  using Options = SubscriptionOptions;
  const std::function<std::uint64_t(const std::string&)> size = [](const std::string& text) {
    return parse_size(text);
  };
  const std::function<Nanoseconds(const std::string&)> duration = [](const std::string& text) {
    return parse_duration(text);
  };
  const std::function<std::uint32_t(const std::string&)> number = parse_number<std::uint32_t>;
  add<Guarantee>(app, "--guarantee", "at-least-once|at-most-once", "What a delivery promises (at-least-once)",
                 &Options::guarantee, parse_guarantee);
  add<Nanoseconds>(app, "--ack-timeout", "DURATION",
                   "A delivery without verdict for this long is delivered again (30s)", &Options::ack_timeout,
                   duration);
  add<std::uint32_t>(app, "--max-deliveries", "N", "Attempts before an event is given up (10)",
                     &Options::max_deliveries, number);
  add<std::uint64_t>(app, "--max-events", "N", "Events that may wait in the backlog (10,000,000)", &Options::max_events,
                     parse_number<std::uint64_t>);
  add<std::uint64_t>(app, "--max-bytes", "SIZE", "Bytes that may wait in the backlog (1GiB)", &Options::max_bytes,
                     size);
  add<Overflow>(app, "--overflow", "block|drop-newest|drop-oldest",
                "When the backlog is full (block; drop-oldest for at-most-once)", &Options::overflow, parse_overflow);
  add<std::uint32_t>(app, "--max-in-flight", "N", "Unsettled deliveries of the member (65,536)",
                     &Options::max_in_flight, number);
  add<std::size_t>(app, "--ring", "SIZE", "Size of the member's ring, a power of two (4MiB)", &Options::ring_bytes,
                   size);
}

void SubscriptionArguments::apply(SubscriptionOptions& options) const {
  for (const Given& given : given_) given.set(options);
}

void SubscriptionArguments::require_same(const SubscriptionOptions& existing,
                                         const std::vector<std::string>& patterns) const {
  const SubscriptionOptions old = normal_form(existing);
  SubscriptionOptions wanted = existing;
  apply(wanted);
  if (!patterns.empty()) wanted.patterns = patterns;
  wanted = normal_form(wanted);
  for (const Given& given : given_) {
    if (given.same(old, wanted)) continue;
    throw Failure(status_usage,
                  fmt::format("subscription '{}': it exists, and {} {} is not its value: leave the option out, or "
                              "change it with shmtool subscription update",
                              existing.name, given.name, given.text));
  }
  if (old.patterns != wanted.patterns) {
    throw Failure(status_usage,
                  fmt::format("subscription '{}': it exists with other patterns ({}): leave them out, or change them "
                              "with shmtool subscription update",
                              existing.name, fmt::join(old.patterns, " ")));
  }
}

std::optional<SubscriptionOptions> find_subscription(Bus& bus, const std::string& name) {
  try {
    return bus.subscription(name);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found) throw;
    return std::nullopt;
  }
}

}  // namespace ackring::tools
