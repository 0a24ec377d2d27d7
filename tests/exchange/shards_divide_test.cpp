// A bus is divided anew at a start: its subscriptions move, and nothing else does.
#include "tests/exchange/shards_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::size_t subscriptions = 5;

std::string name_of(std::size_t i) { return "s" + std::to_string(i); }

std::uint32_t mask(const World& world) {
  return world.x->page().shards.load(std::memory_order_relaxed) | 1;  // relaxed: one thread
}

// What a stat document says of the flow, however many shards there are.
nlohmann::ordered_json without_shards(nlohmann::ordered_json stat) {
  for (auto& row : stat["subscriptions"]) row.erase("shard");
  for (auto& row : stat["publishers"]) row.erase("behind");
  stat.erase("exchange");
  return stat;
}

}  // namespace

TEST_CASE("a bus may be divided into any number of shards at any start: numbers and books go on") {
  for (const std::size_t before : {1u, 2u, 4u}) {
    for (const std::size_t after : {1u, 2u, 4u}) {
      CAPTURE(before);
      CAPTURE(after);
      Sharded world(before);
      std::vector<Reader> readers;
      for (std::size_t i = 0; i < subscriptions; ++i) readers.push_back(world.reader(name_of(i), {i == 2 ? "b" : "#"}));
      auto publisher = world.publisher("p");
      auto other = world.publisher("q");
      std::size_t got[subscriptions] = {};
      const auto send = [&](int events) {
        for (int i = 0; i < events; ++i) {
          REQUIRE(publisher.publish(i % 3 == 0 ? "b" : "a", std::to_string(i)));
          if (i % 4 == 0) REQUIRE(other.publish("b", std::to_string(i)));
        }
      };
      const auto read = [&] {
        for (std::size_t i = 0; i < subscriptions; ++i) got[i] += readers[i].read().size();
      };
      send(50);
      world.run();
      Seen held;  // is in flight while the bus is divided
      REQUIRE(readers[1].member.take(held));
      world.tick();
      const auto stat = without_shards(world.stat());
      send(10);  // lies in the ring meanwhile
      world.x.reset();
      world.x = World::start(*world.directory, after);
      CHECK(mask(world) == (1u << after) - 1);
      CHECK(world.lines_with("keeps the shards") == 0);
      std::size_t of[4] = {};
      for (std::size_t i = 0; i < subscriptions; ++i) ++of[world.shard_of(name_of(i))];
      for (std::size_t shard = 0; shard < 4; ++shard) CHECK((of[shard] != 0) == (shard < after));
      check_sound(*world.directory);
      CHECK(readers[1].member.verdict(held.entry, ring::Verdict::ack));
      world.run();
      send(50);
      // In whichever order.
      for (std::size_t shard = after; shard-- != 0;) world.run(shard);
      world.run();
      ++got[1];
      read();
      world.tick();
      const auto then = without_shards(world.stat());
      for (std::size_t i = 0; i < subscriptions; ++i) {
        CHECK(got[i] == (i == 2 ? 38u + 29u : 110u + 29u));
        const auto row = row_of(then, name_of(i));
        CHECK(row["matched"] == got[i]);
        CHECK(row["acked"] == got[i]);
        CHECK(row_of(stat, name_of(i))["matched"] < got[i]);
      }
      for (const auto& row : then["publishers"]) CHECK(row["in_ring"] == 0);
      CHECK(then["publishers"][0]["routed"] == 110);
      world.restart(before);
      CHECK(without_shards(world.stat()) == then);
    }
  }
}

TEST_CASE("the busiest subscriptions are shared out first, and what the exchange consumes is always the lead's") {
  Sharded world(1);
  SubscriptionOptions options;
  options.name = last_values_name;
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  std::vector<Reader> readers;
  for (const char* name : {"all", "a", "b", "c"}) {
    readers.push_back(world.reader(name, {std::string(name) == "all" ? "#" : name}));
  }
  auto publisher = world.publisher("p");
  for (int i = 0; i < 60; ++i) publisher.publish(i % 3 == 0 ? "a" : i % 3 == 1 ? "b" : "c", "x");
  world.run();
  world.restart(2);
  CHECK(world.shard_of("@last") == 0);
  CHECK(world.shard_of("all") == 0);
  for (const char* other : {"a", "b", "c"}) CHECK(world.shard_of(other) == 1);
  world.stat();
}

TEST_CASE("shards that have not come equally far stay as they are, and are divided when they have") {
  for (const std::size_t after : {1u, 4u}) {
    CAPTURE(after);
    Sharded world;
    auto free = world.reader("free", {"#"});
    world.blocker("full", "#");
    auto publisher = world.publisher("p");
    for (int i = 0; i < 5; ++i) publisher.publish("t", std::to_string(i));
    world.run();
    CHECK(free.read().size() == 5);
    world.restart(after);
    CHECK(mask(world) == 3);
    CHECK(world.lines_with("the bus keeps the shards of the exchange before this one") == 1);
    CHECK(world.shard_of("full") == 1);
    // It works on as before.
    publisher.publish("t", "5");
    world.run();
    CHECK(free.read() == Texts{"5"});
    auto late = world.reader("late", {"#"});
    world.stat();
    for (int i = 0; i < 5; ++i) {
      world.x->purge(world.queue("full"), world.now_ns);
      world.run();
    }
    CHECK(late.read().size() == (world.shard_of("late") == 0 ? 0u : 4u));
    world.restart(after);
    CHECK(mask(world) == (1u << after) - 1);
    CHECK(world.lines_with("keeps the shards") == 0);
    world.x->purge(world.queue("full"), world.now_ns);
    publisher.publish("t", "6");
    world.run();
    CHECK(free.read() == Texts{"6"});
    CHECK(late.read() == Texts{"6"});
    CHECK(row_of(world.stat(), "full")["matched"] == 7);
    CHECK(world.publisher_row("p")["routed"] == 7);
  }
}

TEST_CASE("a ring that is not read any more does not keep a bus from being divided") {
  Sharded world;
  auto a = world.reader("a", {"#"});
  auto b = world.reader("b", {"#"});
  auto bad = world.publisher("bad");
  auto gone = world.publisher("gone");
  auto good = world.publisher("good");
  bad.publish("t", "1");
  world.run(0);
  auto ring = shm::Segment::attach(*world.directory, exchange::Exchange::ingress_name(bad.slot(), bad.incarnation()),
                                   shm::SegmentKind::ingress_ring, shm::Access::read_write);
  ring.as<shm::IngressRing>()->tail.store(8, std::memory_order_release);
  gone.publish("t", "2");
  world.x->detach_publisher(*world.x->find_publisher(gone.slot(), gone.incarnation()));
  world.run();
  world.x->look_after_shards(world.now_ns);
  world.tick();
  world.restart(4);
  CHECK(mask(world) == 15);
  good.publish("t", "3");
  auto again = world.publisher("gone");
  again.publish("t", "4");
  world.run();
  CHECK(a.read() == Texts{"1", "2", "3", "4"});
  CHECK(b.read() == Texts{"2", "3", "4"});
  world.restart(1);
  again.publish("t", "5");
  world.run();
  CHECK(b.read() == Texts{"5"});
}

TEST_CASE("what recovery has found is reported, also where the bus is divided behind it") {
  Sharded world;
  world.blocker("a", "#", 100);
  world.blocker("b", "#", 100);
  world.x.reset();
  const auto state =
      shm::Segment::attach(*world.directory, "sub.2.state", shm::SegmentKind::subscription, shm::Access::read_write);
  // relaxed: one thread
  state.as<shm::SubscriptionSegment>()->shard.store(3, std::memory_order_relaxed);
  world.x = World::start(*world.directory, 1);
  CHECK(world.lines_with("set aside") == 1);
  CHECK(world.x->find_queue("b") == nullptr);
}

TEST_CASE("what a shard did last is not done again when a subscription comes back to it") {
  Sharded world;
  auto busy = world.reader("busy", {"#"});
  auto moves = world.reader("moves", {"a"});
  auto publisher = world.publisher("p");
  for (int i = 0; i < 5; ++i) publisher.publish("b", "x");
  publisher.publish("a", "1");
  world.run();
  Seen seen;
  REQUIRE(moves.member.take(seen));
  moves.member.reject(seen.entry, "no");
  world.tick();
  CHECK(world.shard_of("moves") == 1);
  world.restart(1);
  publisher.publish("a", "2");
  world.run();
  CHECK(moves.read() == Texts{"2"});
  world.restart(2);
  CHECK(world.shard_of("moves") == 1);
  check_found_sound(*world.x);
  CHECK(world.lines_with("redo") == 0);
  world.tick();
  const auto row = row_of(world.stat(), "moves");
  CHECK(row["dead_lettered"] == 1);
  CHECK(row["dlq_size"] == 1);
  CHECK(row["acked"] == 1);
}
