#include "tools/shmtool/bench_world.hpp"

#include <signal.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <numeric>
#include <random>
#include <utility>

#include <fmt/format.h>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_flow.hpp"

namespace ackring::tools {
namespace {

constexpr auto forever = std::chrono::hours(24);
constexpr std::size_t small_ring_bytes = limits::min_ring_bytes;

BenchOptions on_bus(BenchOptions options, const std::string& bus) {
  options.bus = bus;
  return options;
}

SubscriptionOptions idle_subscription(std::uint64_t number) {
  SubscriptionOptions subscription;
  subscription.name = fmt::format("idle-{}", number);
  subscription.patterns = {fmt::format("idle.{}", number)};
  subscription.ring_bytes = small_ring_bytes;
  subscription.max_in_flight = 64;
  return subscription;
}

// Children stay, with what they hold, until their parent is done.
void stay(Channel& channel) {
  channel.send("ready");
  static_cast<void>(channel.receive(forever));
}

void hold_idle(const BenchOptions& options, const Load& load, unsigned holder, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-idle");
  std::vector<Subscriber> members;
  for (std::uint64_t i = holder; i < load.idle_subscriptions; i += std::max(1u, load.holders)) {
    if (load.holders > 0) {
      members.push_back(bus.subscribe(idle_subscription(i)));
    } else {
      bus.create_subscription(idle_subscription(i));
    }
  }
  stay(channel);
}

void create_patterns(const BenchOptions& options, std::uint64_t patterns, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-patterns");
  for (std::uint64_t i = 0; i < patterns;) {
    SubscriptionOptions subscription;
    subscription.name = fmt::format("other-{}", i);
    subscription.ring_bytes = small_ring_bytes;
    for (std::size_t j = 0; j < limits::patterns && i < patterns; ++j, ++i) {
      subscription.patterns.push_back(fmt::format("other.{}.*.#", i));
    }
    bus.create_subscription(subscription);
  }
  stay(channel);
}

// A backlog of constant length: each event that comes drops the oldest.
void fill_backlog(const BenchOptions& options, std::uint64_t events, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-backlog");
  SubscriptionOptions subscription;
  subscription.name = "backlog";
  subscription.patterns = {"scale.#"};
  subscription.max_events = events;
  subscription.max_bytes = events * (options.size + 512) + (1u << 20);
  subscription.overflow = Overflow::drop_oldest;
  bus.create_subscription(subscription);
  Publisher publisher = bus.publisher({.name = {}, .ring_bytes = options.ring_bytes(), .wait = options.wait});
  const std::string topic = "scale.fill";
  const std::string payload(options.size, 'x');
  publish_in_batches(publisher, {&topic, 1}, as_bytes(payload), events);
  if (publisher.flush(forever) != Outcome::ok) throw Failure(status_refused, "bench scale: can't fill the backlog");
  stay(channel);
}

void hold_unacked(const BenchOptions& options, std::uint64_t events, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-unacked");
  SubscriptionOptions subscription;
  subscription.name = "unacked";
  subscription.patterns = {"unacked"};
  subscription.ack_timeout = forever;
  subscription.max_in_flight = static_cast<std::uint32_t>(std::bit_ceil(events));
  subscription.ring_bytes = std::bit_ceil(std::max<std::size_t>(limits::default_ring_bytes, events * 256));
  Subscriber subscriber = bus.subscribe(subscription);
  Publisher publisher = bus.publisher();
  const std::string topic = "unacked";
  publish_in_batches(publisher, {&topic, 1}, as_bytes("unacked"), events);
  std::vector<DeliveryView> views(256);
  for (std::uint64_t taken = 0; taken < events;) {
    const std::size_t some = subscriber.take_batch(views, Nanoseconds(patience_ns));
    if (some == 0) throw Failure(status_refused, "bench scale: --unacked: deliveries did not arrive in 10 s");
    taken += some;
  }
  stay(channel);
}

void take_rounds(const BenchOptions& options, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-subscriber");
  Subscriber subscriber = bus.subscribe(bench_subscription(options, "scale.topic.*"));
  std::vector<DeliveryView> views(256);
  channel.send("ready");
  while (const auto order = channel.receive(forever)) {
    const auto events = order->get<std::uint64_t>();
    for (std::uint64_t taken = 0; taken < events;) {
      const std::size_t some = subscriber.take_batch(views, Nanoseconds(patience_ns));
      if (some == 0) throw Failure(status_refused, "bench scale: events did not arrive in 10 s: see shmtool stat");
      taken += some;
      if (options.guarantee == at_least_once) static_cast<void>(subscriber.ack_through(views[some - 1]));
    }
    if (subscriber.flush(Nanoseconds(patience_ns)) != Outcome::ok)
      throw Failure(status_refused, "bench scale: the exchange did not settle the acks in 10 s");
    channel.send(monotonic_ns());
  }
}

std::vector<std::string> topic_names(const char* prefix, std::uint64_t count) {
  std::vector<std::string> names;
  for (std::uint64_t i = 0; i < count; ++i) names.push_back(fmt::format("scale.{}.{}", prefix, i));
  return names;
}

// In another order, the same in every run. Made anew, so that their letters lie in that order, too.
std::vector<std::string> shuffled(const std::vector<std::string>& names) {
  std::vector<std::size_t> order(names.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  std::vector<std::string> result;
  for (const std::size_t i : order) result.push_back(names[i]);
  return result;
}

void publish_rounds(const BenchOptions& options, const Load& load, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-publisher");
  Publisher publisher = bus.publisher({.name = {}, .ring_bytes = options.ring_bytes(), .wait = options.wait});
  if (load.idle_topics > 0) {
    publish_in_batches(publisher, topic_names("idle", load.idle_topics), as_bytes("idle"), load.idle_topics);
  }
  std::vector<std::string> topics = topic_names("topic", load.topics);
  const std::string payload(options.size, 'x');
  channel.send("ready");
  bool first = true;
  while (const auto order = channel.receive(forever)) {
    const std::uint64_t start = monotonic_ns();
    publish_in_batches(publisher, topics, as_bytes(payload), order->get<std::uint64_t>());
    channel.send(start);
    if (std::exchange(first, false) && load.random_topics) topics = shuffled(topics);
  }
}

}  // namespace

World::World(const BenchOptions& options, const std::string& bus, const Load& load)
    : options_(on_bus(options, bus)), load_(load), exchange_(start_exchange(options_)) {
  const auto start = [this](std::vector<Child>& where, const char* name, unsigned number, auto body) {
    where.push_back(Child::start(name, [this, number, &body](Channel& channel) {
      pin_to_cpu(options_.client_cpu(number));
      body(channel);
    }));
    where.back().channel().expect(std::chrono::minutes(10), name);
  };
  if (load_.idle_subscriptions > 0) {
    for (unsigned holder = 0; holder < std::max(1u, load_.holders); ++holder) {
      start(loads_, "bench-idle", 0, [&](Channel& channel) { hold_idle(options_, load_, holder, channel); });
    }
  }
  if (load_.other_patterns > 0)
    start(loads_, "bench-patterns", 0, [&](Channel& c) { create_patterns(options_, load_.other_patterns, c); });
  if (load_.unacked > 0)
    start(loads_, "bench-unacked", 0, [&](Channel& c) { hold_unacked(options_, load_.unacked, c); });
  if (load_.backlog > 0)
    start(loads_, "bench-backlog", 0, [&](Channel& c) { fill_backlog(options_, load_.backlog, c); });
  start(clients_, "bench-sub", 1, [&](Channel& channel) { take_rounds(options_, channel); });
  start(clients_, "bench-pub", 0, [&](Channel& channel) { publish_rounds(options_, load_, channel); });
  // Each topic once: what the first event of a topic costs is not what one more event costs.
  measure(load_.topics);
}

World::~World() { thaw(); }

double World::measure(std::uint64_t events) {
  Channel& subscriber = clients_[0].channel();
  Channel& publisher = clients_[1].channel();
  subscriber.send(events);
  publisher.send(events);
  const auto start = publisher.expect(forever, "publisher").get<std::uint64_t>();
  const auto end = subscriber.expect(forever, "subscriber").get<std::uint64_t>();
  return static_cast<double>(std::max(end, start + 1) - start) / 1e9;
}

void World::freeze() noexcept { ::kill(exchange_.pid(), SIGSTOP); }
void World::thaw() noexcept { ::kill(exchange_.pid(), SIGCONT); }

}  // namespace ackring::tools
