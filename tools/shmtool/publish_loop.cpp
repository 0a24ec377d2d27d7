#include "tools/shmtool/publish_loop.hpp"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <thread>

#include <fmt/format.h>

#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

constexpr Nanoseconds slice = std::chrono::milliseconds(200);  // how long a signal may go unseen

}  // namespace

PublishLoop::PublishLoop(const Globals& globals, const PublisherOptions& options, Nanoseconds timeout)
    : globals_(globals), timeout_(timeout), started_(Clock::now()), publisher_(open_bus(globals).publisher(options)) {}

int PublishLoop::run(const std::function<void()>& publish_all) {
  try {
    publish_all();
  } catch (const Failure&) {
    // What was published before is not lost, and said so, whatever comes next.
    settle(std::chrono::seconds(5));
    report();
    throw;
  }
  const bool settled = settle(Nanoseconds::max());
  report();
  if (!settled) throw late("not all of it is routed yet");
  return status_done;
}

bool PublishLoop::publish(const Event& event, EventAttributes attributes, const std::string& where) {
  attributes.key = event.key;
  if (!event.headers.empty()) attributes.headers = &event.headers;
  Outcome outcome = publisher_.publish(event.topic, as_bytes(event.payload), attributes);
  while (outcome == Outcome::back_pressured) {
    const Nanoseconds left = time_left();
    if (left <= Nanoseconds{0}) throw late("the publisher's ring is full");
    if (stop_requested()) return false;
    outcome =
        publisher_.publish_wait(event.topic, as_bytes(event.payload), std::min<Nanoseconds>(left, slice), attributes);
  }
  if (outcome != Outcome::ok) throw refused(outcome, event, where);
  ++published_;
  return !stop_requested();
}

bool PublishLoop::wait_until(Clock::time_point due, const std::string& why) {
  while (Clock::now() < due) {
    if (stop_requested()) return false;
    if (time_left() <= Nanoseconds{0}) throw late(why);
    std::this_thread::sleep_for(std::min<Nanoseconds>({due - Clock::now(), slice, time_left()}));
  }
  return true;
}

bool PublishLoop::settle(Nanoseconds most) {
  const auto deadline = most == Nanoseconds::max() ? Clock::time_point::max() : Clock::now() + most;
  while (true) {
    const Nanoseconds left = std::min<Nanoseconds>(time_left(), deadline - Clock::now());
    if (publisher_.flush(std::clamp<Nanoseconds>(left, std::chrono::milliseconds(1), slice)) == Outcome::ok)
      return true;
    if (left <= slice || stop_requested()) return false;
  }
}

void PublishLoop::report() const { print(fmt::format("published {} events\n", published_)); }

Nanoseconds PublishLoop::time_left() const {
  if (timeout_ <= Nanoseconds{0}) return std::chrono::hours(24 * 365);
  return started_ + timeout_ - Clock::now();
}

Failure PublishLoop::late(const std::string& what) const {
  std::string state = "unknown";
  try {
    state = stat_document(globals_).at("exchange").at("state").get<std::string>();
  } catch (const std::exception&) {
    // The message below does not depend on it.
  }
  const std::string when = timeout_ > Nanoseconds{0} && time_left() <= Nanoseconds{0}
                               ? format_duration(static_cast<double>(timeout_.count())) + " are over"
                               : "stopped by a signal";
  return {status_not_so,
          fmt::format("{} after {} published events: {} (the exchange is {}): see shmtool stat, or allow more "
                      "time with --timeout",
                      when, published_, what, state)};
}

Failure PublishLoop::refused(Outcome outcome, const Event& event, const std::string& where) const {
  switch (outcome) {
    case Outcome::too_large:
      return {status_usage,
              fmt::format("{}: the event is too large: {} bytes of payload, key and headers may be {} with this ring "
                          "(a quarter of it), and a key 65,535: use a larger --ring, here and on the subscriptions",
                          where, event.payload.size(), publisher_.max_event_bytes())};
    case Outcome::invalid_topic:
      return {status_usage,
              fmt::format("{}: '{}' is not a topic: use words of [A-Za-z0-9_-] split by '.', 255 bytes at most", where,
                          event.topic)};
    case Outcome::too_many_topics:
      return {status_refused,
              fmt::format("{}: the table of topics is full: 1,048,576 are the most: use fewer topics", where)};
    case Outcome::denied:
      return {status_refused,
              fmt::format("publish '{}': permission: the access rules of the bus do not let uid {} publish to it: use "
                          "another topic, or have a rule added",
                          event.topic, ::geteuid())};
    default:
      return {status_refused,
              fmt::format("{}: not published: the publisher is {}: see shmtool stat", where, to_string(outcome))};
  }
}

}  // namespace ackring::tools
