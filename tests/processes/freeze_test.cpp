// What 999 subscriptions notice of one whose process stands still: throughput of the others, with and without, in rounds
// that take turns. To measure: ACKRING_ROUNDS=15 ACKRING_ROUND_MS=1000.
#include "tests/processes/support.hpp"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <memory>
#include <new>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::size_t subscriptions = 1'000;
constexpr std::size_t holders =
    3;  // processes that hold 333 subscriptions each; one more holds the one that is stopped

SubscriptionOptions options(std::size_t number) {
  SubscriptionOptions options;
  options.name = "s" + std::to_string(number);
  options.patterns = {"t.#"};
  options.ring_bytes = 64u << 10;
  options.max_in_flight = 1024;
  // What is measured is flow through the rings of those who work, as in shmtool bench; the one that stands still has the
  // default limits, as its events have to go somewhere.
  if (number != 0) options.max_events = 1;
  return options;
}

struct Counts {
  std::array<std::atomic<std::uint64_t>, holders> acked;
  std::atomic<std::uint64_t> acked_by_frozen;
  std::atomic<std::uint64_t> published;
};

void hold(Channel& channel, const std::string& directory, std::size_t from, std::size_t until,
          std::atomic<std::uint64_t>& done) {
  Bus bus = open_bus(directory);
  std::vector<Subscriber> all;
  for (std::size_t i = from; i < until; ++i) all.push_back(bus.subscribe(options(i)));
  channel.send({{"ready", true}});
  std::array<DeliveryView, 64> views{};
  for (std::uint64_t turn = 0; turn % 64 != 0 || !channel.receive(0ns); ++turn) {
    std::uint64_t count = 0;
    for (Subscriber& subscriber : all) {
      const std::size_t taken = subscriber.take_batch(views);
      if (taken == 0) continue;
      require(subscriber.ack_through(views[taken - 1]) == Outcome::ok, "ack_through");
      count += taken;
    }
    done.fetch_add(count, std::memory_order_relaxed);
    if (count == 0) ::poll(nullptr, 0, 1);
  }
  channel.send({{"done", true}});
  channel.receive(patience);
}

void publish(Channel& channel, const std::string& directory, std::atomic<std::uint64_t>& sequence) {
  Bus bus = open_bus(directory);
  Publisher publisher = bus.publisher({.name = "p", .ring_bytes = 64u << 10});
  const std::string payload(64, 'x');
  channel.send({{"ready", true}});
  channel.expect(patience, "go");
  for (std::uint64_t i = 0; i % 64 != 0 || !channel.receive(0ns); ++i) {
    const Outcome outcome = publisher.publish_wait("t.a", as_bytes(payload), patience);
    require(outcome == Outcome::ok, std::string("publish: ") + to_string(outcome));
    sequence.store(publisher.sequence(), std::memory_order_relaxed);
  }
  require(publisher.flush(patience) == Outcome::ok, "flush");
  channel.send({{"published", publisher.sequence()}});
  channel.receive(patience);
}

}  // namespace

TEST_CASE("1,000 subscriptions: the others do not notice that the process of one stands still") {
  if (!raise_descriptors(4 * subscriptions)) return;
  const std::uint64_t rounds = amount("ACKRING_ROUNDS", 5);
  const auto round = std::chrono::milliseconds(amount("ACKRING_ROUND_MS", 200));
  void* memory = ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto& counts = *static_cast<Counts*>(memory);  // zero: all that is in it begins like that
  const TemporaryDirectory temporary("freeze");
  const ExchangeProcess exchange(temporary.path());

  std::vector<std::unique_ptr<Child>> working;
  for (std::size_t i = 0; i < holders; ++i) {
    working.push_back(std::make_unique<Child>(Child::start("holder", [&, i](Channel& channel) {
      hold(channel, temporary.path(), 1 + i * 333, 1 + (i + 1) * 333, counts.acked[i]);
    })));
  }
  Child frozen =
      Child::start("frozen", [&](Channel& channel) { hold(channel, temporary.path(), 0, 1, counts.acked_by_frozen); });
  Child publisher =
      Child::start("publisher", [&](Channel& channel) { publish(channel, temporary.path(), counts.published); });
  for (auto& child : working) child->channel().expect(patience, "a holder");
  frozen.channel().expect(patience, "the one that is to stand still");
  publisher.channel().expect(patience, "the publisher");
  publisher.channel().send({{"go", true}});

  const auto acked = [&] {
    std::uint64_t sum = 0;
    for (const auto& count : counts.acked) sum += count.load(std::memory_order_relaxed);
    return sum;
  };
  const auto lag = [&] {  // of the one that is stopped; what is in the publisher's ring is part of it
    const std::uint64_t done = counts.acked_by_frozen.load(std::memory_order_relaxed);
    return counts.published.load(std::memory_order_relaxed) - done;
  };
  REQUIRE(eventually([&] { return acked() > 20 * subscriptions; }));
  const auto measure = [&] {
    const std::uint64_t before = acked();
    const std::int64_t begin = now_ns();
    ::poll(nullptr, 0, static_cast<int>(round.count()));
    return static_cast<double>(acked() - before) / static_cast<double>(now_ns() - begin) * 1e9;
  };
  std::vector<double> with;
  std::vector<double> without;
  std::vector<double> ratios;
  std::uint64_t waiting = 0;
  for (std::uint64_t i = 0; i < rounds; ++i) {
    for (const bool stop : {i % 2 == 0, i % 2 != 0}) {
      if (!stop) {
        without.push_back(measure());
        continue;
      }
      ::kill(frozen.pid(), SIGSTOP);
      with.push_back(measure());
      waiting = std::max(waiting, lag());
      ::kill(frozen.pid(), SIGCONT);
      REQUIRE(eventually([&] { return lag() < 2'000; }));  // it catches up while the others go on
    }
    ratios.push_back(with.back() / without.back());
  }
  publisher.channel().send({{"end", true}});
  const auto total = publisher.channel().expect(patience, "the publisher's end").at("published").get<std::uint64_t>();
  Json stat;
  const bool all = eventually([&] {
    stat = shm_stat(temporary.path());
    return std::ranges::all_of(stat.at("subscriptions"), [&](const Json& row) { return row.at("acked") == total; });
  });
  CHECK(all);
  check_books(stat);
  CHECK(stat.at("subscriptions").size() == subscriptions);
  for (const Json& row : stat.at("subscriptions")) {
    if (row.at("redelivered") != 0) FAIL_CHECK(row.dump());
  }
  ::munmap(memory, sizeof(Counts));

  const double ratio = median(with) / median(without);
  MESSAGE("deliveries/s of the others, medians of "
          << rounds << " rounds of " << round.count() << " ms: " << median(without) / 1e6
          << " million, with one frozen " << median(with) / 1e6 << " million: " << ratio * 100
          << " %; median of the pairs " << median(ratios) * 100 << " %; for the frozen one waited up to " << waiting
          << " events");
  // The aim is 95 % on a quiet machine; a busy one varies by more, and who is held up by the frozen one has far less.
  CHECK(ratio > 0.3);
}
