// shmtool sub: takes deliveries one by one, prints each, then gives its verdict.
#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tools/common/json_text.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/delivery_text.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;

enum class Verdict { ack, nack, reject, none };

struct SubOptions {
  std::vector<std::string> patterns;
  std::string name;
  Verdict verdict = Verdict::ack;
  DeliveryFormat format = DeliveryFormat::ndjson;
  std::uint64_t count = 0;  // 0: no limit
  Nanoseconds timeout{0};   // 0: none
  SubscriptionArguments arguments;
};

Subscriber join(Bus& bus, const SubOptions& options) {
  SubscriptionOptions wanted;
  wanted.name = options.name;
  wanted.patterns = options.patterns;
  if (!options.name.empty()) {
    if (const auto existing = find_subscription(bus, options.name)) {
      options.arguments.require_same(*existing, options.patterns);
      wanted = *existing;
      wanted.name = options.name;
      return bus.subscribe(wanted);
    }
    if (options.patterns.empty()) {
      throw Failure(status_not_so, "subscription '" + options.name +
                                       "': there is none of this name, and no pattern to make it with: "
                                       "write shmtool sub PATTERN… --name " +
                                       options.name);
    }
  }
  options.arguments.apply(wanted);
  return bus.subscribe(wanted);
}

class Sub {
 public:
  Sub(Bus bus, const SubOptions& options)
      : bus_(std::move(bus)), options_(options), started_(Clock::now()), subscriber_(join(bus_, options)) {}

  int run() {
    try {
      while (!finished()) take_one();
    } catch (const ClosedPipe&) {
      // What was taken and not printed is nacked by the destruction of its Delivery.
      held_.clear();
      settle(std::chrono::seconds(1));
      return status_done;
    }
    const bool complete = options_.count > 0 && printed_ == options_.count;
    held_.clear();  // verdict none: given back
    if (stop_requested()) {
      settle(std::chrono::seconds(1));
      return status_done;
    }
    if (!complete) {
      settle(std::chrono::seconds(1));
      if (options_.count == 0) return status_done;
      throw Failure(
          status_not_so,
          fmt::format("sub: {} of {} deliveries came in time: {}: allow more time with --timeout, or see "
                      "shmtool stat",
                      printed_, options_.count, subscriber_.closed() ? "the subscription is gone" : "no more arrived"));
    }
    if (settle(Nanoseconds::max())) return status_done;
    if (stop_requested()) return status_done;
    throw Failure(status_not_so,
                  "sub: all deliveries were printed, but the exchange has not settled their verdicts in time: see "
                  "shmtool ping");
  }

 private:
  [[nodiscard]] bool finished() const {
    return stop_requested() || subscriber_.closed() || (options_.count > 0 && printed_ == options_.count) ||
           time_left() <= Nanoseconds{0};
  }

  void take_one() {
    std::optional<Delivery> delivery =
        subscriber_.take(std::clamp<Nanoseconds>(time_left(), std::chrono::milliseconds(1), slice));
    if (!delivery) {
      if (stdout_closed()) throw ClosedPipe();
      return;
    }
    if (stop_requested()) return;  // taken, not printed: nacked
    print(delivery_text(*delivery, options_.format));
    ++printed_;
    // A verdict that comes too late (stale) is no error: the exchange has counted a timeout and delivers it again.
    switch (options_.verdict) {
      case Verdict::ack:
        static_cast<void>(delivery->ack());
        break;
      case Verdict::nack:
        static_cast<void>(delivery->nack());
        break;
      case Verdict::reject:
        static_cast<void>(delivery->reject());
        break;
      case Verdict::none:
        held_.push_back(std::move(*delivery));
        break;
    }
  }

  bool settle(Nanoseconds most) {
    const auto deadline = most == Nanoseconds::max() ? Clock::time_point::max() : Clock::now() + most;
    while (true) {
      const Nanoseconds left = std::min<Nanoseconds>(time_left(), deadline - Clock::now());
      const Outcome outcome = subscriber_.flush(std::clamp<Nanoseconds>(left, std::chrono::milliseconds(100), slice));
      if (outcome == Outcome::ok) return true;
      if (outcome == Outcome::closed || left <= slice || (stop_requested() && most == Nanoseconds::max())) return false;
    }
  }

  [[nodiscard]] Nanoseconds time_left() const {
    if (options_.timeout <= Nanoseconds{0}) return std::chrono::hours(24 * 365);
    return started_ + options_.timeout - Clock::now();
  }

  static constexpr Nanoseconds slice = std::chrono::milliseconds(100);  // how long a signal may go unseen
  Bus bus_;
  const SubOptions& options_;
  const Clock::time_point started_;
  Subscriber subscriber_;
  std::vector<Delivery> held_;
  std::uint64_t printed_ = 0;
};

Verdict parse_verdict(const std::string& text) {
  if (text == "ack") return Verdict::ack;
  if (text == "nack") return Verdict::nack;
  if (text == "none") return Verdict::none;
  if (text == "reject") return Verdict::reject;
  throw std::invalid_argument("'" + text + "' is not a verdict: choose ack, nack, reject or none");
}

DeliveryFormat parse_format(const std::string& text) {
  if (text == "ndjson") return DeliveryFormat::ndjson;
  if (text == "raw") return DeliveryFormat::raw;
  if (text == "topic") return DeliveryFormat::topic;
  throw std::invalid_argument("'" + text + "' is not a format: choose ndjson, raw or topic");
}

int run(const Globals& globals, const SubOptions& options) {
  if (options.patterns.empty() && options.name.empty()) {
    throw Failure(status_usage,
                  "sub: nothing to subscribe to: a pattern is missing: write shmtool sub PATTERN…, such as 'orders.#'");
  }
  catch_stop_signals();
  return Sub(open_bus(globals), options).run();
}

}  // namespace

void add_sub(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "sub", "Take, print and ack deliveries",
      "Patterns: words split by '.', * is one word, # zero or more. Without --name: an ephemeral subscription, gone at "
      "the end.\n"
      "With --name: attaches to that subscription as it is (options given must agree with it), or creates it.\n"
      "Verdict none holds what was printed and gives it back at the end. Ends at --count (exit status 0), at "
      "--timeout\n"
      "(0 without --count, else 1), by SIGINT or SIGTERM, and when nobody reads its output.\n\n"
      "Examples:\n  shmtool sub 'orders.#' --count 10 --timeout 5s\n  shmtool sub 'orders.*.created' --name billing "
      "--format raw");
  auto options = std::make_shared<SubOptions>();
  command.add_option("PATTERN", options->patterns, "Patterns of topics");
  command.add_option("--name", options->name, "Name of the subscription")->type_name("SUB");
  add_parsed(command, "--verdict", "ack|nack|reject|none", "What to do with a delivery that was printed (ack)",
             [options = options.get()](const std::string& text) { options->verdict = parse_verdict(text); });
  add_parsed(command, "--format", "ndjson|raw|topic",
             "An object per line; payloads as they are; topics, one per line (ndjson)",
             [options = options.get()](const std::string& text) { options->format = parse_format(text); });
  command.add_option("--count", options->count, "End after this many deliveries")
      ->check(CLI::PositiveNumber)
      ->default_str("no limit");
  add_duration(command, "--timeout", options->timeout, "End this long after the start");
  options->arguments.add_to(command);
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
