// One shard dies, and the other goes on for a while before it dies, too: two open transactions, of which each may have seen
// something of the other. Many points of the one, with many of the other.
#include <array>

#include "tests/exchange/shards_scenario.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

unsigned long long printed(std::uint64_t number) { return number; }

std::size_t shards_after(std::uint64_t n) { return n % 5 == 1 ? 1 : n % 5 == 3 ? 4 : 2; }

// Points of each shard, when none dies.
std::array<std::uint64_t, 2> points_of_each(bool letters) {
  ShardsScenario scenario(Partial{}, 2, letters);
  REQUIRE(scenario.run() == 0);
  return {scenario.points_of(0), scenario.points_of(1)};
}

void die_one_by_one(bool letters, std::uint64_t stride) {
  const Depth depth;
  if (depth.deep) stride = 1;
  stride *= depth.stride();
  const std::array<std::uint64_t, 2> points = points_of_each(letters);
  std::uint64_t played = 0;
  std::uint64_t both = 0;
  Pairs pairs;
  Pairs spoilt[2];
  for (const std::size_t first : {0u, 1u}) {
    for (std::uint64_t at = depth.first(); at < points[first]; at += stride) {
      for (const std::uint64_t then : {at % 7, 3 + at % 41, 50 + at % 211, ~std::uint64_t{0}}) {
        CAPTURE(first);
        CAPTURE(at);
        CAPTURE(then);
        ShardsScenario scenario({first, at, then}, shards_after(++played), letters);
        scenario.on_death([&](const auto& dead) {
          if (played % 11 == 0) die_in_recovery(dead, false, played * 7, pairs, {}, {}, shards_after(played / 11));
          if (played % 13 != 0) return;
          const std::size_t shard = played / 13 % 2;
          die_in_recovery(
              dead, false, 0, spoilt[shard], {}, [&](auto& copy) { skip_redo_of(copy, shard); }, 2);
        });
        CHECK(scenario.run() == 1);
        both += scenario.both_died() ? 1 : 0;
      }
      if (depth.point != nullptr) break;
    }
  }
  std::printf(
      "one by one%s: points %llu and %llu; %llu deaths of one, in %llu of these of both; pairs %llu; spoilt %llu of "
      "%llu and %llu of %llu\n",
      letters ? ", dead letters" : "", printed(points[0]), printed(points[1]), printed(played), printed(both),
      printed(pairs.played), printed(spoilt[0].different), printed(spoilt[0].played), printed(spoilt[1].different),
      printed(spoilt[1].played));
  if (depth.point != nullptr) return;
  CHECK(both > played / 2);
  if (depth.stride() != 1 || letters) return;
  for (const Pairs& some : spoilt) CHECK(some.different > some.played / 50);
}

}  // namespace

// Primes, so that no step of a round is passed over each time.
TEST_CASE("one shard may die at any point, and the other some time later: the books are exact") {
  die_one_by_one(false, 11);
}

TEST_CASE("… and while dead letters are published") { die_one_by_one(true, 43); }

namespace {

// A bus on which both shards have much to do: rings with room for a part, backlogs, retries that are due, and late acks.
struct BusyBus {
  World world = World(2);
  std::uint64_t now_ns = 0;
  BusyBus() {
    const std::uint64_t virtual_ns = world.now_ns;
    ShardHook clock;
    clock.clock = &virtual_ns;
    shm::Environment::hook = &clock;
    std::vector<CoreMember> members;
    for (int i = 0; i < 4; ++i) {
      SubscriptionOptions options;
      options.ring_bytes = 4096;
      options.max_in_flight = i < 2 ? 4 : 32;
      options.backoff_initial = options.backoff_max = std::chrono::milliseconds(1);
      options.jitter = 0;
      options.max_deliveries = 2;
      members.push_back(world.member("s" + std::to_string(i), {"#"}, options));
    }
    CorePublisher publishers[] = {world.publisher("one", 4096), world.publisher("two", 4096)};
    for (int round = 0; round < 3; ++round) {
      for (CorePublisher& publisher : publishers) {
        for (int i = 0; i < 4; ++i) CHECK(publisher.publish(i % 2 == 0 ? "a" : "b", "x"));
      }
      if (round == 2) break;
      world.run();
      for (CoreMember& member : members) {
        for (Seen seen; member.take(seen);) {
          member.verdict(seen.entry, seen.delivery % 3 == 0 ? ring::Verdict::nack : ring::Verdict::ack);
        }
      }
      if (round == 0) world.tick();
    }
    shm::Environment::hook = nullptr;
    now_ns = world.now_ns + 5'000'000;
    world.x.reset();
  }
};

// Recovers a copy, lets the shards tick and step, each until it dies, and answers what becomes of the bus. `points`: how many
// each has when it does not die.
std::string after_deaths(const BusyBus& bus, const std::array<std::uint64_t, 2>& die_before, std::size_t first,
                         std::size_t shards, std::array<std::uint64_t, 2>* points = nullptr) {
  const auto copy = bus.world.directory->clone();
  ShardHook clock;
  clock.clock = &bus.now_ns;
  shm::Environment::hook = &clock;
  auto x = World::start(*copy, 2);
  CountingHolder holder;
  x->set_holder(&holder);
  for (const std::size_t k : {first, 1 - first}) {
    ShardHook hook;
    hook.clock = &bus.now_ns;
    hook.die_before = die_before[k];
    try {
      shm::Environment::hook = &hook;
      x->shards()[k]->tick(bus.now_ns);
      while (x->shards()[k]->step(bus.now_ns)) {
      }
    } catch (const Death&) {
    }
    if (points != nullptr) (*points)[k] = hook.points;
  }
  shm::Environment::hook = &clock;
  x.reset();
  x = World::start(*copy, shards);
  check_found_sound(*x);
  const std::string digest = bus_digest(*x, *copy);
  x.reset();
  shm::Environment::hook = nullptr;
  return digest;
}

}  // namespace

// Neither has anything that the other one looks at: topics are defined, no ids, no letters.
TEST_CASE("two transactions that are open together are finished alike, whichever was opened first") {
  const Depth depth;
  const BusyBus bus;
  constexpr std::uint64_t never = ~std::uint64_t{0};
  std::array<std::uint64_t, 2> points{};
  const std::string whole = after_deaths(bus, {never, never}, 0, 2, &points);
  CHECK(after_deaths(bus, {never, never}, 1, 2) == whole);
  REQUIRE(points[0] > 100);
  REQUIRE(points[1] > 100);
  const std::uint64_t stride = (depth.deep ? 1 : 13) * depth.stride();
  std::uint64_t played = 0;
  for (std::uint64_t m = 0; m < points[0]; m += stride) {
    for (std::uint64_t n = m % 7; n < points[1]; n += stride) {
      CAPTURE(m);
      CAPTURE(n);
      const std::size_t shards = shards_after(++played);
      CHECK(difference(after_deaths(bus, {m, n}, 0, shards), after_deaths(bus, {m, n}, 1, shards)) == "");
    }
  }
  std::printf("two orders: points %llu and %llu, %llu pairs\n", printed(points[0]), printed(points[1]),
              printed(played));
}

// A note that is there before the lead has come by its event is found by the other shards, whatever a later lead would say.
TEST_CASE("a lead that dies while it finds a duplicate is taken at its word, also when the id has expired") {
  std::uint64_t noted = 0;
  for (std::uint64_t point = 0, died = 1; died != 0; ++point) {
    CAPTURE(point);
    died = 0;
    Sharded world;
    SubscriptionOptions options;
    options.name = event_ids_name;
    options.patterns = {"o"};
    options.ttl = std::chrono::milliseconds(100);
    world.x->create_subscription(options, false);
    auto follower = world.reader("f", {"#"});
    auto lead = world.reader("l", {"#"});
    CHECK(world.shard_of("f") == 1);
    CHECK(world.shard_of("l") == 0);
    auto publisher = world.publisher("p");
    world.tick();
    publisher.headers = with_id("1");
    CHECK(publisher.publish("o", "1"));
    world.run();
    CHECK(publisher.publish("o", "again"));
    ShardHook hook;
    hook.clock = &world.now_ns;
    hook.die_before = point;
    shm::Environment::hook = &hook;
    try {
      world.x->step(world.now_ns);
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      died = 1;
    }
    check_sound(*world.directory);
    world.x.reset();
    world.x = World::start(*world.directory, 2);
    tick_all(*world.x, world.now_ns += 200'000'000);
    tick_all(*world.x, world.now_ns += 200'000'000);
    world.run();
    const Texts texts = lead.read();
    CHECK(follower.read() == texts);
    CHECK((texts.size() == 1 || texts.size() == 2));
    const auto row = world.publisher_row("p");
    CHECK(row["routed"] == texts.size());
    CHECK(row["duplicates"] == 2 - texts.size());
    noted += died != 0 && texts.size() == 1 ? 1 : 0;
  }
  CHECK(noted > 2);
}
