#include "tools/shmtool/bench_large_flow.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include <fmt/format.h>

#include "lib/shm/park.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_flow.hpp"

namespace ackring::tools {
namespace {

struct Member {
  Subscriber subscriber;
  SequenceCheck check;
};

class Client {
 public:
  Client(const BenchOptions& options, const std::string& run, std::uint64_t count)
      : options_(options),
        count_(count),
        topic_(fmt::format("bench.{}", run)),
        payload_(options.size, 'x'),
        bus_(open_bench_bus(options, "bench-client")),
        publisher_(bus_.publisher({.name = run, .ring_bytes = options.ring_bytes(), .wait = options.wait})),
        views_(256) {
    for (unsigned i = 0; i < options.subscribers; ++i) {
      members_.push_back({bus_.subscribe(bench_subscription(options, topic_)), {}});
    }
  }

  void run(Channel& channel) {
    const std::uint64_t start = monotonic_ns();
    std::uint64_t last_progress = start;
    std::uint64_t taken = 0;
    std::uint32_t idle = 0;
    while (taken < count_ * members_.size()) {
      const std::size_t moved = publish() + take(taken);
      if (moved != 0) {
        idle = 0;
        continue;
      }
      if (idle == 0) last_progress = monotonic_ns();
      shm::cpu_relax();
      if (++idle % 10'000 != 0) continue;
      if (monotonic_ns() - last_progress > patience_ns) break;  // what is missing counts as lost
      ::sched_yield();                                          // the exchange may be on this core, too
    }
    for (Member& member : members_) {
      if (member.subscriber.flush(Nanoseconds(patience_ns)) != Outcome::ok)
        throw Failure(status_refused, "bench large: the exchange did not settle the acks in 10 s: see shmtool stat");
    }
    const std::uint64_t end = monotonic_ns();
    std::uint64_t lost = 0;
    std::uint64_t duplicates = 0;
    for (const Member& member : members_) {
      lost += member.check.lost(count_);
      duplicates += member.check.duplicates();
    }
    channel.send({{"start", start}, {"end", end}, {"taken", taken}, {"lost", lost}, {"duplicates", duplicates}});
  }

 private:
  std::size_t publish() {
    if (sent_ == count_) return 0;
    const Outcome outcome = publisher_.publish(topic_, as_bytes(payload_));
    if (outcome == Outcome::back_pressured) return 0;
    if (outcome != Outcome::ok)
      throw Failure(status_refused, fmt::format("bench large: can't publish: {}", to_string(outcome)));
    ++sent_;
    return 1;
  }

  std::size_t take(std::uint64_t& taken) {
    std::size_t moved = 0;
    for (Member& member : members_) {
      const std::size_t arrived = member.subscriber.take_batch(views_);
      if (arrived == 0) continue;
      for (std::size_t i = 0; i < arrived; ++i) member.check.see(views_[i].sequence());
      if (options_.guarantee == at_least_once && member.subscriber.ack_through(views_[arrived - 1]) != Outcome::ok)
        throw Failure(status_refused, "bench large: an ack was refused: see shmtool stat");
      moved += arrived;
    }
    taken += moved;
    return moved;
  }

  const BenchOptions& options_;
  const std::uint64_t count_;
  const std::string topic_;
  const std::string payload_;
  Bus bus_;
  Publisher publisher_;
  std::vector<Member> members_;
  std::vector<DeliveryView> views_;
  std::uint64_t sent_ = 0;
};

}  // namespace

BenchResult large_flow(const BenchOptions& options, const std::string& run, std::uint64_t count) {
  Child child = Child::start("bench-client", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    Client(options, run, count).run(channel);
  });
  const nlohmann::json report = child.channel().expect(std::chrono::hours(24), "client");
  child.wait(std::chrono::seconds(10));
  const auto start = report.at("start").get<std::uint64_t>();
  BenchResult result;
  result.events = count;
  result.deliveries = report.at("taken");
  result.lost = report.at("lost");
  result.duplicates = report.at("duplicates");
  result.seconds = static_cast<double>(std::max(report.at("end").get<std::uint64_t>(), start + 1) - start) / 1e9;
  return result;
}

}  // namespace ackring::tools
