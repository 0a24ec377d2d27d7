// shmtool bench throughput and fanout: publishers that add in batches, subscribers that take and ack in batches.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench.hpp"

namespace ackring::tools {
namespace {

constexpr std::size_t publish_batch = 64;
constexpr std::size_t take_batch = 256;
constexpr double default_seconds = 3;
constexpr std::uint64_t calibration_events = 200'000;
constexpr std::uint64_t patience_ns = 10'000'000'000;  // what does not come for so long is lost

// Events of the n-th publisher of `total`.
std::uint64_t share(std::uint64_t total, unsigned publishers, unsigned number) {
  return total / publishers + (number < total % publishers ? 1 : 0);
}

void publish(const BenchOptions& options, const std::string& run, unsigned number, std::uint64_t count,
             Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-publisher");
  Publisher publisher = bus.publisher({.name = fmt::format("{}-{}", run, number), .wait = options.wait});
  const std::string topic = fmt::format("bench.{}.{}", run, number);
  const std::string text(options.size, 'x');
  const Bytes payload = as_bytes(text);
  channel.send("ready");
  channel.expect(std::chrono::minutes(1), "start of the benchmark");

  const std::uint64_t start = monotonic_ns();
  for (std::uint64_t sent = 0; sent < count;) {
    Outcome outcome = Outcome::ok;
    const std::uint64_t batch_end = std::min(count, sent + publish_batch);
    while (sent < batch_end && (outcome = publisher.add(topic, payload)) == Outcome::ok) ++sent;
    if (publisher.commit_batch() != Outcome::ok) throw Failure(status_refused, "bench: can't commit: see shmtool stat");
    if (outcome == Outcome::back_pressured) {
      outcome = publisher.publish_wait(topic, payload, Nanoseconds(patience_ns));
      ++sent;
    }
    if (outcome != Outcome::ok) {
      throw Failure(status_refused, std::string("bench: can't publish: ") + to_string(outcome) + ": see shmtool stat");
    }
  }
  channel.send({{"start", start}});
}

class Counter {
 public:
  Counter(const BenchOptions& options, const std::string& run, std::uint64_t total)
      : options_(options),
        total_(total),
        bus_(open_bench_bus(options, "bench-subscriber")),
        subscriber_(bus_.subscribe(bench_subscription(options, fmt::format("bench.{}.*", run)))),
        checks_(options.publishers) {}

  void run(Channel& channel) {
    channel.send("ready");
    std::vector<DeliveryView> views(take_batch);
    std::uint64_t last_arrival = monotonic_ns();
    while (received_ < total_) {
      const std::size_t taken = subscriber_.take_batch(views, std::chrono::milliseconds(100));
      const std::uint64_t now = monotonic_ns();
      if (taken == 0) {
        if (now - last_arrival > patience_ns) break;
        continue;
      }
      last_arrival = now;
      // One sample per batch, of its oldest event: the clock and the histogram stay out of the way.
      latency_.record(now - views[0].published_ns());
      for (std::size_t i = 0; i < taken; ++i) check_of(views[i]).see(views[i].sequence());
      received_ += taken;
      if (options_.guarantee == at_least_once && subscriber_.ack_through(views[taken - 1]) != Outcome::ok) {
        throw Failure(status_refused, "bench: an ack was refused: see shmtool stat");
      }
    }
    if (subscriber_.flush(Nanoseconds(patience_ns)) != Outcome::ok) {
      throw Failure(status_refused, "bench: the exchange did not settle the acks in 10 s: see shmtool stat");
    }
    const std::uint64_t end = monotonic_ns();
    std::uint64_t lost = 0;
    std::uint64_t duplicates = 0;
    for (unsigned i = 0; i < options_.publishers; ++i) {
      lost += checks_[i].lost(share(total_, options_.publishers, i));
      duplicates += checks_[i].duplicates();
    }
    channel.send({{"end", end},
                  {"deliveries", received_},
                  {"lost", lost},
                  {"duplicates", duplicates},
                  {"histogram", latency_.to_json()}});
  }

 private:
  SequenceCheck& check_of(const DeliveryView& view) {
    if (checks_.size() == 1) return checks_.front();
    const std::string_view name = subscriber_.publisher(view);
    unsigned number = 0;
    std::from_chars(name.data() + name.rfind('-') + 1, name.data() + name.size(), number);
    return checks_.at(number);
  }

  const BenchOptions& options_;
  const std::uint64_t total_;
  Bus bus_;
  Subscriber subscriber_;
  std::vector<SequenceCheck> checks_;
  Histogram latency_;
  std::uint64_t received_ = 0;
};

BenchResult run_once(const BenchOptions& options, const std::string& run, std::uint64_t total) {
  std::vector<Child> subscribers;
  std::vector<Child> publishers;
  for (unsigned i = 0; i < options.subscribers; ++i) {
    subscribers.push_back(Child::start("bench-sub", [&](Channel& channel) {
      pin_to_cpu(options.client_cpu(options.publishers + i));
      Counter(options, run, total).run(channel);
    }));
  }
  for (Child& child : subscribers) child.channel().expect(std::chrono::seconds(30), "subscriber");
  for (unsigned i = 0; i < options.publishers; ++i) {
    publishers.push_back(Child::start("bench-pub", [&](Channel& channel) {
      pin_to_cpu(options.client_cpu(i));
      publish(options, run, i, share(total, options.publishers, i), channel);
    }));
  }
  for (Child& child : publishers) child.channel().expect(std::chrono::seconds(30), "publisher");
  for (Child& child : publishers) child.channel().send("go");

  BenchResult result;
  std::uint64_t start = ~std::uint64_t{0};
  std::uint64_t end = 0;
  for (Child& child : publishers) {
    start =
        std::min(start, child.channel().expect(std::chrono::hours(24), "publisher").at("start").get<std::uint64_t>());
  }
  for (Child& child : subscribers) {
    const nlohmann::json report = child.channel().expect(std::chrono::hours(24), "subscriber");
    end = std::max(end, report.at("end").get<std::uint64_t>());
    result.deliveries += report.at("deliveries").get<std::uint64_t>();
    result.lost += report.at("lost").get<std::uint64_t>();
    result.duplicates += report.at("duplicates").get<std::uint64_t>();
    result.latency.merge(Histogram::from_json(report.at("histogram")));
  }
  for (Child& child : publishers) child.wait(std::chrono::seconds(10));
  for (Child& child : subscribers) child.wait(std::chrono::seconds(10));
  result.events = total;
  result.seconds = static_cast<double>(end - start) / 1e9;
  return result;
}

}  // namespace

BenchResult bench_throughput(const BenchOptions& options) {
  const std::string name = fmt::format("run{}", ::getpid());
  std::uint64_t count = options.count;
  if (count == 0) {
    // A small run first tells how many events three seconds take; large events take fewer.
    const std::uint64_t few = std::clamp<std::uint64_t>((256u << 20) / (options.size + 64), 1000, calibration_events);
    const BenchResult calibration = run_once(options, name + "a", few);
    count =
        std::max<std::uint64_t>(few, std::llround(static_cast<double>(few) / calibration.seconds * default_seconds));
  }
  return run_once(options, name + "b", count);
}

}  // namespace ackring::tools
