// shmtool bench latency: closed loop on one thread, or, with --rate, open loop between two processes.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t warm_up_events = 10'000;
constexpr double default_seconds = 3;
constexpr std::uint64_t patience_ns = 10'000'000'000;  // an event that takes longer is lost

class ClosedLoop {
 public:
  explicit ClosedLoop(const BenchOptions& options)
      : options_(options),
        bus_(open_bench_bus(options, "bench-latency")),
        subscriber_(bus_.subscribe(bench_subscription(options, topic_))),
        publisher_(bus_.publisher({.name = {}, .wait = options.wait})),
        payload_(options.size, 'x') {}

  void run(Channel& channel) {
    const std::uint64_t warm_up_start = monotonic_ns();
    Histogram warm_up;
    rounds(warm_up_events, warm_up);
    const double round_ns = static_cast<double>(monotonic_ns() - warm_up_start) / static_cast<double>(warm_up_events);
    const std::uint64_t count = options_.count > 0
                                    ? options_.count
                                    : std::max<std::uint64_t>(1000, std::llround(default_seconds * 1e9 / round_ns));
    Histogram histogram;
    const std::uint64_t start = monotonic_ns();
    rounds(count, histogram);
    const std::uint64_t end = monotonic_ns();
    channel.send({{"events", count},
                  {"seconds", static_cast<double>(end - start) / 1e9},
                  {"lost", check_.lost(publisher_.sequence())},
                  {"duplicates", check_.duplicates()},
                  {"histogram", histogram.to_json()}});
  }

 private:
  void rounds(std::uint64_t count, Histogram& histogram) {
    const Bytes payload = as_bytes(payload_);
    const bool acks = options_.guarantee == at_least_once;
    DeliveryView view;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t start = monotonic_ns();
      if (const Outcome outcome = publisher_.publish(topic_, payload); outcome != Outcome::ok) {
        throw Failure(status_refused,
                      std::string("bench latency: can't publish: ") + to_string(outcome) + ": try a smaller --size");
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
};

void publish_at_rate(const BenchOptions& options, const std::string& topic, std::uint64_t count, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-publisher");
  Publisher publisher = bus.publisher({.name = {}, .wait = options.wait});
  std::string payload(std::max<std::uint64_t>(options.size, sizeof(std::uint64_t)), 'x');
  channel.send("ready");
  channel.expect(std::chrono::minutes(1), "start of the benchmark");
  const std::uint64_t start = monotonic_ns() + 10'000'000;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t due = start + static_cast<std::uint64_t>(static_cast<double>(i) * 1e9 / options.rate);
    for (std::uint64_t now = monotonic_ns(); now < due; now = monotonic_ns()) {
      // Near the time it only yields: a sleep ends too late by tens of microseconds.
      if (due - now > 200'000) {
        std::this_thread::sleep_for(Nanoseconds(due - now - 150'000));
      } else {
        ::sched_yield();
      }
    }
    std::memcpy(payload.data(), &due, sizeof due);
    const Outcome outcome = publisher.publish_wait(topic, as_bytes(payload), Nanoseconds(patience_ns));
    if (outcome != Outcome::ok) {
      throw Failure(status_refused,
                    std::string("bench latency: can't publish: ") + to_string(outcome) + ": try a smaller --rate");
    }
  }
  channel.send({{"sequence", publisher.sequence()}});
}

void take_at_rate(const BenchOptions& options, const std::string& topic, std::uint64_t count, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-subscriber");
  Subscriber subscriber = bus.subscribe(bench_subscription(options, topic));
  channel.send("ready");
  Histogram histogram;
  SequenceCheck check;
  std::vector<DeliveryView> views(256);
  std::uint64_t last_arrival = 0;
  const std::uint64_t longest_gap = patience_ns + static_cast<std::uint64_t>(1e9 / options.rate);
  const std::uint64_t begin = monotonic_ns();
  while (check.last() < count) {
    const std::size_t taken = subscriber.take_batch(views, std::chrono::milliseconds(100));
    const std::uint64_t now = monotonic_ns();
    if (taken == 0) {
      if (now - std::max(begin, last_arrival) > longest_gap) break;  // what is missing counts as lost
      continue;
    }
    last_arrival = now;
    for (std::size_t i = 0; i < taken; ++i) {
      std::uint64_t due = 0;
      std::memcpy(&due, views[i].payload().data(), sizeof due);
      histogram.record(now - due);
      check.see(views[i].sequence());
    }
    if (options.guarantee == at_least_once) static_cast<void>(subscriber.ack_through(views[taken - 1]));
  }
  channel.send({{"last_arrival", last_arrival},
                {"begin", begin},
                {"lost", check.lost(count)},
                {"duplicates", check.duplicates()},
                {"histogram", histogram.to_json()}});
}

}  // namespace

BenchResult bench_latency(const BenchOptions& options) {
  Child client = Child::start("bench-client", [&options](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    ClosedLoop(options).run(channel);
  });
  const nlohmann::json report = client.channel().expect(std::chrono::hours(24), "bench latency");
  BenchResult result;
  result.events = result.deliveries = report.at("events");
  result.seconds = report.at("seconds");
  result.lost = report.at("lost");
  result.duplicates = report.at("duplicates");
  result.latency = Histogram::from_json(report.at("histogram"));
  return result;
}

BenchResult bench_open_loop(const BenchOptions& options) {
  const std::uint64_t count =
      options.count > 0 ? options.count : std::max<std::uint64_t>(1, std::llround(default_seconds * options.rate));
  const std::string topic = fmt::format("bench.rate.{}", ::getpid());
  Child subscriber = Child::start("bench-sub", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(1));
    take_at_rate(options, topic, count, channel);
  });
  subscriber.channel().expect(std::chrono::seconds(10), "subscriber");
  Child publisher = Child::start("bench-pub", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    publish_at_rate(options, topic, count, channel);
  });
  publisher.channel().expect(std::chrono::seconds(10), "publisher");
  const std::uint64_t start = monotonic_ns();
  publisher.channel().send("go");
  publisher.channel().expect(std::chrono::hours(24), "publisher");
  const nlohmann::json report = subscriber.channel().expect(std::chrono::hours(24), "subscriber");
  BenchResult result;
  result.latency = Histogram::from_json(report.at("histogram"));
  result.events = count;
  result.deliveries = result.latency.count();
  result.seconds = static_cast<double>(std::max(report.at("last_arrival").get<std::uint64_t>(), start) - start) / 1e9;
  result.lost = report.at("lost");
  result.duplicates = report.at("duplicates");
  return result;
}

}  // namespace ackring::tools
