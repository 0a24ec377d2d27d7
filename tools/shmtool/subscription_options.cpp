#include "tools/shmtool/subscription_options.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

Guarantee parse_guarantee(const std::string& text) {
  if (text == "at-least-once") return at_least_once;
  if (text == "at-most-once") return at_most_once;
  throw std::invalid_argument("'" + text + "' is not a guarantee: choose at-least-once or at-most-once");
}

Overflow parse_overflow(const std::string& text) {
  if (text == "block") return Overflow::block;
  if (text == "drop-newest") return Overflow::drop_newest;
  if (text == "drop-oldest") return Overflow::drop_oldest;
  if (text == "dead-letter") return Overflow::dead_letter;
  throw std::invalid_argument("'" + text + "' is not a policy: choose block, drop-newest, drop-oldest or dead-letter");
}

StartFrom parse_start(const std::string& text) {
  if (text == "now") return StartFrom::now;
  if (text == "last") return StartFrom::last_values;
  throw std::invalid_argument("'" + text + "' is no place to begin: choose now or last");
}

struct BackOff {
  Nanoseconds initial;
  Nanoseconds longest;
  double multiplier;
};

double parse_jitter(const std::string& text) {
  const double jitter = parse_real(text, "a fraction: write 0 to 1, such as 0.1");
  if (jitter < 0 || jitter > 1) throw std::invalid_argument("'" + text + "' is out of limits: write 0 to 1");
  return jitter;
}

std::vector<Nanoseconds> parse_delays(const std::string& text) {
  std::vector<Nanoseconds> delays;
  if (text.empty()) return delays;  // none: the back-off counts again
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    delays.push_back(parse_duration(text.substr(from, comma - from)));
    from = comma + 1;
  }
  return delays;
}

BackOff parse_back_off(const std::string& text) {
  const std::size_t first = text.find(':');
  const std::size_t second = first == std::string::npos ? first : text.find(':', first + 1);
  if (second == std::string::npos) {
    throw std::invalid_argument("'" + text + "' is not a back-off: write INITIAL:MAX:MULTIPLIER, such as 100ms:30s:2");
  }
  const BackOff result{parse_duration(text.substr(0, first)),
                       parse_duration(text.substr(first + 1, second - first - 1)),
                       parse_real(text.substr(second + 1), "a multiplier: write 1 to 1000, such as 2")};
  if (result.multiplier < 1 || result.multiplier > 1000) {
    throw std::invalid_argument("'" + text + "' has a multiplier out of limits: write 1 to 1000");
  }
  if (result.longest < result.initial) {
    throw std::invalid_argument("'" + text + "' has a maximum below its initial delay: write the smaller one first");
  }
  return result;
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

double parse_real(const std::string& text, const std::string& what) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) {
    throw std::invalid_argument("'" + text + "' is not " + what);
  }
  return number;
}

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

void SubscriptionArguments::add_flag(CLI::App& app, const std::string& name, const std::string& description,
                                     bool SubscriptionOptions::*field) {
  app.add_flag_callback(
      name,
      [this, name, field] {
        given_.push_back(
            {name, "", [field](SubscriptionOptions& options) { options.*field = true; },
             [field](const SubscriptionOptions& a, const SubscriptionOptions& b) { return a.*field == b.*field; }});
      },
      description);
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
  add_parsed(app, "--from", "now|last",
             "Of a new subscription: begin with what comes, or with the last event of each topic (now)",
             [this](const std::string& text) {
               const StartFrom from = parse_start(text);
               given_.push_back({"--from", text, [from](Options& options) { options.from = from; },
                                 [](const Options&, const Options&) { return true; }});
             });
  add<Nanoseconds>(app, "--ack-timeout", "DURATION",
                   "A delivery without verdict for this long is delivered again (30s)", &Options::ack_timeout,
                   duration);
  add<std::uint32_t>(app, "--max-deliveries", "N", "Attempts before an event is given up (10)",
                     &Options::max_deliveries, number);
  add_parsed(app, "--backoff", "INITIAL:MAX:MULTIPLIER",
             "Delay before the second attempt, the longest one, and how they grow (100ms:30s:2)",
             [this](const std::string& text) {
               const BackOff value = parse_back_off(text);
               given_.push_back({"--backoff", text,
                                 [value](Options& options) {
                                   options.backoff_initial = value.initial;
                                   options.backoff_max = value.longest;
                                   options.backoff_multiplier = value.multiplier;
                                 },
                                 [](const Options& a, const Options& b) {
                                   return a.backoff_initial == b.backoff_initial && a.backoff_max == b.backoff_max &&
                                          a.backoff_multiplier == b.backoff_multiplier;
                                 }});
             });
  add<double>(app, "--jitter", "FRACTION", "Each delay is spread by up to this much of itself, both ways (0.1)",
              &Options::jitter, parse_jitter);
  add<std::vector<Nanoseconds>>(app, "--retry-delays", "D,D,…",
                                "Delays before the second, third, … attempt, exactly, instead of the back-off",
                                &Options::retry_delays, parse_delays);
  add<Nanoseconds>(app, "--ttl", "DURATION", "Events that reach no member in this time expire (never)", &Options::ttl,
                   duration);
  add_flag(app, "--dead-letter-expired", "Expired events become dead letters", &Options::dead_letter_expired);
  add<std::string>(app, "--dead-letter-topic", "TOPIC", "Publish dead letters to this topic, too",
                   &Options::dead_letter_topic, [](const std::string& text) { return text; });
  add<std::uint64_t>(app, "--max-dead", "SIZE",
                     "Bytes of the dead-letter log; when it is full, failed deliveries wait (1GiB)",
                     &Options::max_dead_bytes, size);
  add<std::uint64_t>(app, "--max-events", "N", "Events that may wait in the backlog (10,000,000)", &Options::max_events,
                     parse_number<std::uint64_t>);
  add<std::uint64_t>(app, "--max-bytes", "SIZE", "Bytes that may wait in the backlog (1GiB)", &Options::max_bytes,
                     size);
  add<Overflow>(app, "--overflow", "block|drop-newest|drop-oldest|dead-letter",
                "When the backlog is full (block; drop-oldest for at-most-once)", &Options::overflow, parse_overflow);
  add_flag(app, "--group", "Any number of members, each event to one of them, by credit", &Options::group);
  add_flag(app, "--ordered", "One delivery at a time, retries included: nothing overtakes", &Options::ordered);
  add_flag(app, "--ordered-by-key", "Events of a key go to one member, in order; with --ordered, one at a time",
           &Options::ordered_by_key);
  add<std::uint32_t>(app, "--max-in-flight", "N", "Unsettled deliveries of a member: its credit (65,536)",
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
                  fmt::format("subscription '{}': it exists, and {}{}{} is not its value: leave the option out, or "
                              "change it with shmtool subscription update",
                              existing.name, given.name, given.text.empty() ? "" : " ", given.text));
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
