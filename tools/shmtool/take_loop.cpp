#include "tools/shmtool/take_loop.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

constexpr Nanoseconds slice = std::chrono::milliseconds(100);  // how long a signal may go unseen

DeliveryFormat parse_format(const std::string& text) {
  if (text == "ndjson") return DeliveryFormat::ndjson;
  if (text == "raw") return DeliveryFormat::raw;
  if (text == "topic") return DeliveryFormat::topic;
  throw std::invalid_argument("'" + text + "' is not a format: choose ndjson, raw or topic");
}

}  // namespace

void TakeOptions::add_to(CLI::App& app) {
  add_parsed(app, "--format", "ndjson|raw|topic",
             "An object per line; payloads as they are; topics, one per line (ndjson)",
             [this](const std::string& text) { format = parse_format(text); });
  app.add_option("--count", count, "End after this many deliveries")->check(above_zero())->default_str("no limit");
  add_duration(app, "--timeout", timeout, "End this long after the start");
}

TakeLoop::TakeLoop(Bus bus, Subscriber subscriber, const TakeOptions& options, Clock::time_point started)
    : bus_(std::move(bus)), subscriber_(std::move(subscriber)), options_(options), started_(started) {}

int TakeLoop::run() {
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
    throw Failure(status_not_so,
                  fmt::format("{}: {} of {} deliveries came in time: {}: allow more time with --timeout, or see "
                              "shmtool stat",
                              options_.command, printed_, options_.count,
                              subscriber_.closed() ? "the subscription is gone" : "no more arrived"));
  }
  if (settle(Nanoseconds::max())) return status_done;
  if (stop_requested()) return status_done;
  throw Failure(status_not_so,
                options_.command +
                    ": all deliveries were printed, but the exchange has not settled their verdicts in time: see "
                    "shmtool ping");
}

bool TakeLoop::finished() const {
  return stop_requested() || subscriber_.closed() || (options_.count > 0 && printed_ == options_.count) ||
         time_left() <= Nanoseconds{0};
}

void TakeLoop::take_one() {
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

bool TakeLoop::settle(Nanoseconds most) {
  const auto deadline = most == Nanoseconds::max() ? Clock::time_point::max() : Clock::now() + most;
  while (true) {
    const Nanoseconds left = std::min<Nanoseconds>(time_left(), deadline - Clock::now());
    const Outcome outcome = subscriber_.flush(std::clamp<Nanoseconds>(left, std::chrono::milliseconds(100), slice));
    if (outcome == Outcome::ok) return true;
    if (outcome == Outcome::closed || left <= slice || (stop_requested() && most == Nanoseconds::max())) return false;
  }
}

Nanoseconds TakeLoop::time_left() const {
  if (options_.timeout <= Nanoseconds{0}) return std::chrono::hours(24 * 365);
  return started_ + options_.timeout - Clock::now();
}

}  // namespace ackring::tools
