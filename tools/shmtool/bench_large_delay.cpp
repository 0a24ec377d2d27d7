#include "tools/shmtool/bench_large_delay.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "lib/exchange/exchange.hpp"
#include "lib/ring/record.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_flow.hpp"

namespace ackring::tools {
namespace {

constexpr std::size_t small_bytes = 64;
constexpr std::uint64_t warm_up_ns = 50'000'000;  // the first round through the rings, and the caches

class Clients {
 public:
  Clients(const BenchOptions& options, const std::string& run, bool beside)
      : options_(options),
        small_topic_(fmt::format("bench.{}.small", run)),
        large_topic_(fmt::format("bench.{}.large", run)),
        small_payload_(small_bytes, 'x'),
        bus_(open_bench_bus(options, "bench-client")),
        small_(
            bus_.publisher({.name = run + "-small", .ring_bytes = limits::default_ring_bytes, .wait = options.wait})),
        small_taker_(bus_.subscribe(bench_subscription(options, small_topic_))),
        views_(256) {
    if (!beside) return;
    large_.emplace(bus_.publisher({.name = run + "-large", .ring_bytes = options.ring_bytes(), .wait = options.wait}));
    for (unsigned i = 0; i < options.subscribers; ++i)
      takers_.push_back(bus_.subscribe(bench_subscription(options, large_topic_)));
  }

  void run(std::uint64_t count, Channel& channel) {
    const Schedule schedule{monotonic_ns() + warm_up_ns, options_.rate, 1};
    std::uint64_t sent = 0;
    std::uint64_t large_before = 0;
    for (std::uint64_t taken = 0; taken < count;) {
      const std::uint64_t now = monotonic_ns();
      if (now > schedule.due_ns(count) + patience_ns)
        throw Failure(status_refused, "bench large: small events did not arrive in 10 s: see shmtool stat");
      if (sent < count && now >= schedule.due_ns(sent)) {
        if (sent == 0) large_before = large_taken_;
        const Outcome outcome = small_.publish(small_topic_, as_bytes(small_payload_));
        if (outcome == Outcome::ok) {
          ++sent;
        } else if (outcome != Outcome::back_pressured) {
          throw Failure(status_refused, fmt::format("bench large: can't publish: {}", to_string(outcome)));
        }
      }
      taken += take_small(schedule);
      pass_large();
    }
    const double seconds = static_cast<double>(monotonic_ns() - schedule.start_ns) / 1e9;
    channel.send({{"latency", latency_.to_json()}, {"large", large_taken_ - large_before}, {"seconds", seconds}});
  }

 private:
  std::size_t take_small(const Schedule& schedule) {
    const std::size_t arrived = small_taker_.take_batch(views_);
    if (arrived == 0) return 0;
    const std::uint64_t now = monotonic_ns();
    for (std::size_t i = 0; i < arrived; ++i)
      latency_.record(now - std::min(now, schedule.due_ns(schedule.index(0, views_[i].sequence()))));
    ack(small_taker_, views_[arrived - 1]);
    return arrived;
  }

  // Keeps the exchange busy: as many large events as there is room for, and what has come of them is acked at once.
  void pass_large() {
    if (!large_) return;
    Loan loan = large_->loan(large_topic_, options_.size);
    if (loan && loan.commit() != Outcome::ok) throw Failure(status_refused, "bench large: can't publish large events");
    for (std::size_t i = 0; i < takers_.size(); ++i) {
      const std::size_t arrived = takers_[i].take_batch(views_);
      if (arrived == 0) continue;
      if (i == 0) large_taken_ += arrived;
      ack(takers_[i], views_[arrived - 1]);
    }
  }

  void ack(Subscriber& subscriber, const DeliveryView& last) {
    if (options_.guarantee == at_least_once && subscriber.ack_through(last) != Outcome::ok)
      throw Failure(status_refused, "bench large: an ack was refused: see shmtool stat");
  }

  const BenchOptions& options_;
  const std::string small_topic_;
  const std::string large_topic_;
  const std::string small_payload_;
  Bus bus_;
  Publisher small_;
  Subscriber small_taker_;
  std::optional<Publisher> large_;
  std::vector<Subscriber> takers_;
  std::vector<DeliveryView> views_;
  std::uint64_t large_taken_ = 0;
  Histogram latency_;
};

}  // namespace

DelayResult small_delay(const BenchOptions& options, const std::string& run, std::uint64_t count, bool beside) {
  Child child = Child::start("bench-client", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    Clients(options, run, beside).run(count, channel);
  });
  const nlohmann::json report = child.channel().expect(std::chrono::hours(24), "client");
  child.wait(std::chrono::seconds(10));
  DelayResult result;
  result.latency = Histogram::from_json(report.at("latency"));
  if (!beside) return result;
  const double events = std::max<double>(1, report.at("large").get<double>());
  const std::uint64_t record = ring::record_bytes(options.size, 0, 0);
  const std::uint64_t events_of_batch = std::min((exchange::batch_bytes + record - 1) / record, exchange::batch_events);
  result.batch_ns = report.at("seconds").get<double>() * 1e9 / events * static_cast<double>(events_of_batch);
  return result;
}

}  // namespace ackring::tools
