// shmtool bench latency on one thread: a closed loop, or an open one at a rate (--rate … --one-thread).
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_flow.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t default_warm_up_events = 10'000;

class OneThread {
 public:
  explicit OneThread(const BenchOptions& options)
      : options_(options),
        bus_(open_bench_bus(options, "bench-latency")),
        subscriber_(bus_.subscribe(bench_subscription(options, topic_))),
        publisher_(bus_.publisher({.name = {}, .ring_bytes = options.ring_bytes(), .wait = options.wait})),
        payload_(options.size, 'x') {}

  void run_closed_loop(Channel& channel) {
    const std::uint64_t warm_up_events = options_.warm_up.value_or(default_warm_up_events);
    const std::uint64_t warm_up_start = monotonic_ns();
    Histogram warm_up;
    rounds(warm_up_events, warm_up);
    const double round_ns = std::max(1.0, static_cast<double>(monotonic_ns() - warm_up_start) /
                                              static_cast<double>(std::max<std::uint64_t>(1, warm_up_events)));
    std::uint64_t count = options_.count;
    if (count == 0 && warm_up_events == 0) count = default_warm_up_events;
    if (count == 0) count = std::max<std::uint64_t>(1000, std::llround(default_seconds * 1e9 / round_ns));
    Histogram histogram;
    const std::uint64_t start = monotonic_ns();
    rounds(count, histogram);
    report(channel, count, start, monotonic_ns(), histogram);
  }

  /// Polls clock and ring by turns: no scheduler is between the time at which an event is due and its publication.
  void run_open_loop(Channel& channel) {
    const std::uint64_t count =
        options_.count > 0 ? options_.count : std::max<std::uint64_t>(1, std::llround(default_seconds * options_.rate));
    const std::uint64_t warm_up =
        options_.warm_up.value_or(static_cast<std::uint64_t>(std::llround(open_loop_warm_up_seconds * options_.rate)));
    const Schedule schedule{monotonic_ns() + 1'000'000, options_.rate, 1};
    std::vector<DeliveryView> views(256);
    Histogram histogram;
    std::uint64_t last_progress = schedule.start_ns;
    for (std::uint64_t sent = 0, taken = 0; taken < count + warm_up;) {
      std::uint64_t now = monotonic_ns();
      if (sent < count + warm_up && now >= schedule.due_ns(sent)) {
        const Outcome outcome = publisher_.publish(topic_, as_bytes(payload_));
        if (outcome != Outcome::ok && outcome != Outcome::back_pressured) refuse(outcome, "try a smaller --size");
        if (outcome == Outcome::ok) {
          if (sent >= warm_up) lateness_.record(now - schedule.due_ns(sent));
          ++sent;
          last_progress = now;
        }
      }
      const std::size_t arrived = subscriber_.take_batch(views);
      if (arrived == 0) {
        if (taken < sent && now > last_progress + patience_ns) break;  // what is missing counts as lost
        continue;
      }
      now = last_progress = monotonic_ns_behind();
      for (std::size_t i = 0; i < arrived; ++i) {
        const std::uint64_t index = schedule.index(0, views[i].sequence());
        if (index >= warm_up) histogram.record(now - schedule.due_ns(index));
        check_.see(views[i].sequence());
      }
      taken += arrived;
      if (options_.guarantee == at_least_once) static_cast<void>(subscriber_.ack_through(views[arrived - 1]));
    }
    report(channel, count, schedule.due_ns(warm_up), last_progress, histogram);
  }

 private:
  [[noreturn]] static void refuse(Outcome outcome, const char* advice) {
    throw Failure(status_refused, fmt::format("bench latency: can't publish: {}: {}", to_string(outcome), advice));
  }

  void report(Channel& channel, std::uint64_t count, std::uint64_t start, std::uint64_t end,
              const Histogram& histogram) const {
    channel.send({{"events", count},
                  {"deliveries", histogram.count()},
                  {"seconds", static_cast<double>(std::max(end, start + 1) - start) / 1e9},
                  {"lost", check_.lost(publisher_.sequence())},
                  {"duplicates", check_.duplicates()},
                  {"histogram", histogram.to_json()},
                  {"lateness", lateness_.to_json()}});
  }

  void rounds(std::uint64_t count, Histogram& histogram) {
    const Bytes payload = as_bytes(payload_);
    const bool acks = options_.guarantee == at_least_once;
    DeliveryView view;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t start = monotonic_ns();
      if (const Outcome outcome = publisher_.publish(topic_, payload); outcome != Outcome::ok) {
        refuse(outcome, "try a smaller --size");
      }
      take(view, start);
      histogram.record(monotonic_ns_behind() - start);
      check_.see(view.sequence());
      if (acks && subscriber_.ack(view) != Outcome::ok) {
        throw Failure(status_refused, "bench latency: an ack was refused: see shmtool stat");
      }
    }
  }

  void take(DeliveryView& view, std::uint64_t start) {
    for (std::uint64_t spins = 1; subscriber_.take_batch({&view, 1}) == 0; ++spins) {
      if (spins % 16'384 != 0) continue;
      ::sched_yield();  // the exchange may have to share the core
      if (monotonic_ns() - start > patience_ns) {
        throw Failure(status_refused, "bench latency: an event did not arrive in 10 s: see shmtool stat");
      }
    }
  }

  const BenchOptions& options_;
  const std::string topic_ = fmt::format("bench.latency.{}", ::getpid());
  Bus bus_;
  Subscriber subscriber_;
  Publisher publisher_;
  std::string payload_;
  SequenceCheck check_;
  Histogram lateness_;
};

}  // namespace

BenchResult bench_latency(const BenchOptions& options) {
  Child client = Child::start("bench-client", [&options](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    OneThread loop(options);
    options.rate > 0 ? loop.run_open_loop(channel) : loop.run_closed_loop(channel);
  });
  const nlohmann::json report = client.channel().expect(std::chrono::hours(24), "bench latency");
  BenchResult result;
  result.events = report.at("events");
  result.deliveries = report.at("deliveries");
  result.seconds = report.at("seconds");
  result.lost = report.at("lost");
  result.duplicates = report.at("duplicates");
  result.latency = Histogram::from_json(report.at("histogram"));
  result.lateness = Histogram::from_json(report.at("lateness"));
  return result;
}

}  // namespace ackring::tools
