#include "tools/shmtool/bench_taker.hpp"

#include <charconv>
#include <chrono>
#include <string_view>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

constexpr std::size_t take_batch = 256;

SubscriptionOptions subscription_of(const BenchOptions& options, const std::string& run, unsigned number) {
  SubscriptionOptions subscription = bench_subscription(options, fmt::format("bench.{}.*", run));
  if (options.members > 1) {
    subscription.name = fmt::format("{}-{}", run, number / options.members);
    subscription.group = true;
  }
  return subscription;
}

}  // namespace

Taker::Taker(const BenchOptions& options, const std::string& run, unsigned number, std::uint64_t total,
             std::uint64_t warm_up, Progress& progress)
    : options_(options),
      number_(number),
      total_(total),
      warm_up_(warm_up),
      progress_(progress),
      bus_(open_bench_bus(options, "bench-subscriber")),
      subscriber_(bus_.subscribe(subscription_of(options, run, number))),
      checks_(options.publishers),
      schedule_{0, options.rate, options.publishers} {}

void Taker::run(Channel& channel) {
  channel.send("ready");
  // Asleep, and without losing patience: hundreds of processes may take long until all are there.
  channel.expect(std::chrono::hours(24), "start of the benchmark");
  std::vector<DeliveryView> views(take_batch);
  // Others of a group may get the last event: who waits for more looks often whether all is there.
  const auto wait = std::chrono::milliseconds(options_.members > 1 ? 2 : 100);
  const std::uint64_t longest_gap =
      patience_ns + (options_.rate > 0 ? static_cast<std::uint64_t>(1e9 / options_.rate) : 0);
  std::uint64_t last_arrival = monotonic_ns();
  std::uint64_t last_progress = last_arrival;  // of the whole group
  std::uint64_t group_total = 0;
  bool idle = false;
  while (group_taken() < total_) {
    const std::size_t taken = subscriber_.take_batch(views, wait);
    const std::uint64_t now = monotonic_ns();
    idle = taken == 0;
    if (idle) {
      if (const std::uint64_t total = group_taken(); total != group_total) {
        group_total = total;
        last_progress = now;
      }
      if (now - last_progress > longest_gap) break;  // what is missing counts as lost
      continue;
    }
    last_arrival = last_progress = now;
    // As fast as possible: one sample per batch, of its oldest event, so that clock and histogram stay out of the way.
    if (options_.rate == 0) latency_.record(now - views[0].published_ns());
    for (std::size_t i = 0; i < taken; ++i) note(views[i], now);
    received_ += taken;
    if (options_.members > 1) progress_.set_taken(number_, received_);
    if (options_.guarantee == at_least_once && subscriber_.ack_through(views[taken - 1]) != Outcome::ok) {
      throw Failure(status_refused, "bench: an ack was refused: see shmtool stat");
    }
  }
  if (subscriber_.flush(Nanoseconds(patience_ns)) != Outcome::ok) {
    throw Failure(status_refused, "bench: the exchange did not settle the acks in 10 s: see shmtool stat");
  }
  // Settled is what counts; but who waited for others of its group has settled long before.
  const std::uint64_t end = options_.rate > 0 || idle ? last_arrival : monotonic_ns();
  nlohmann::json checks = nlohmann::json::array();
  for (unsigned i = 0; i < options_.publishers; ++i) {
    checks.push_back({checks_[i].seen(), checks_[i].sum(), checks_[i].lost(share(total_, options_.publishers, i)),
                      checks_[i].duplicates()});
  }
  channel.send({{"end", end}, {"received", received_}, {"checks", checks}, {"histogram", latency_.to_json()}});
}

void Taker::note(const DeliveryView& view, std::uint64_t now) {
  const unsigned publisher = publisher_of(view);
  checks_[publisher].see(view.sequence());
  if (options_.rate == 0) return;
  if (schedule_.start_ns == 0) schedule_.start_ns = progress_.start_ns();
  const std::uint64_t index = schedule_.index(publisher, view.sequence());
  if (index >= warm_up_) latency_.record(now - std::min(now, schedule_.due_ns(index)));
}

std::uint64_t Taker::group_taken() const noexcept {
  if (options_.members == 1) return received_;
  return progress_.taken(number_ / options_.members * options_.members, options_.members);
}

unsigned Taker::publisher_of(const DeliveryView& view) {
  if (checks_.size() == 1) return 0;
  const std::string_view name = subscriber_.publisher(view);
  unsigned number = 0;
  std::from_chars(name.data() + name.rfind('-') + 1, name.data() + name.size(), number);
  if (number >= checks_.size())
    throw Failure(status_refused, "bench: an event of another publisher: is the bus in use?");
  return number;
}

}  // namespace ackring::tools
