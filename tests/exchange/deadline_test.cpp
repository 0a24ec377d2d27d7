// When taken deliveries time out, over restarts and absences of the exchange. Time is the test's own.
#include <string>

#include "tests/exchange/retry_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

std::uint64_t timed_out(World& world) { return row_of(world.stat(), "s")["timed_out"]; }

SubscriptionOptions with_timeout(std::chrono::milliseconds timeout) {
  SubscriptionOptions options = exact();
  options.ack_timeout = timeout;
  return options;
}

// The exchange is there for this long, ticking, and then another one takes its place, `away_ns` later.
void live(World& world, std::uint64_t for_ns, std::uint64_t away_ns = 0) {
  for (std::uint64_t past = 0; past < for_ns; past += 5 * ms) world.tick();
  world.now_ns += away_ns;
  world.restart();
  world.tick(0);
}

}  // namespace

TEST_CASE("an exchange that restarts more often than the ack timeout times deliveries out all the same, never early") {
  for (const std::uint64_t away_ns : {std::uint64_t{0}, 7 * ms, 3'600'000 * ms}) {
    CAPTURE(away_ns);
    World world;
    auto member = world.member("s", {"#"}, with_timeout(std::chrono::milliseconds(100)));
    auto publisher = world.publisher();
    publisher.publish("a", "x");
    world.run();
    Seen seen;
    REQUIRE(member.take(seen));
    world.tick(0);  // seen here
    std::uint64_t served_ns = 0;
    while (timed_out(world) == 0) {
      REQUIRE(served_ns <= 110 * ms);
      live(world, 30 * ms, away_ns);
      served_ns += 30 * ms;
      CHECK((timed_out(world) == 0 || served_ns >= 100 * ms));
    }
    CHECK(served_ns >= 100 * ms);
    CHECK(served_ns <= 120 * ms);  // it looks after each 30 ms only
    CHECK(timed_out(world) == 1);
  }
}

TEST_CASE("nothing times out because the exchange was away; what was left of each timeout is what is left") {
  World world;
  auto member = world.member("s", {"#"}, with_timeout(std::chrono::milliseconds(100)));
  auto publisher = world.publisher();
  Seen seen;
  for (int i = 0; i < 10; ++i) {  // one is taken every 5 ms
    publisher.publish("a", std::to_string(i));
    world.run();
    REQUIRE(member.take(seen));
    world.tick();
  }
  world.now_ns += 3'600'000 * ms;
  world.restart();
  world.tick(0);
  CHECK(timed_out(world) == 0);
  for (std::uint64_t i = 1; i <= 19; ++i) {  // the first one was seen 45 ms before the end, the last one at it
    world.tick();
    CAPTURE(i);
    CHECK(timed_out(world) == (i < 11 ? 0 : i - 10));
  }
  world.tick();
  CHECK(timed_out(world) == 10);
}

TEST_CASE("more marks than the page has room for: after a restart nothing is early, nor later than a thirtieth") {
  World world;
  constexpr std::uint64_t timeout_ns = 3'000 * ms;
  SubscriptionOptions options = with_timeout(std::chrono::milliseconds(3'000));
  options.max_in_flight = 1024;
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher("", 1 << 20);
  std::vector<std::uint64_t> taken_ns;  // by entry, in time without the absence
  Seen seen;
  for (int i = 0; i < 500; ++i) {
    publisher.publish("a", "x");
    world.run();
    REQUIRE(member.take(seen));
    world.tick();
    taken_ns.push_back(world.now_ns);
  }
  const std::uint64_t away_ns = 10'000 * ms;
  world.now_ns += away_ns;
  world.restart();
  world.tick(0);
  std::uint64_t before = 0;
  for (int i = 0; i < 800 && before < 500; ++i) {
    const std::uint64_t now = timed_out(world);
    const std::uint64_t at_ns = world.now_ns - away_ns;
    for (std::uint64_t entry = before; entry < now; ++entry) {
      CAPTURE(entry);
      CHECK(at_ns - taken_ns[entry] >= timeout_ns);
      CHECK(at_ns - taken_ns[entry] <= timeout_ns + timeout_ns / 30 + 5 * ms);
    }
    before = now;
    world.tick();
  }
  CHECK(before == 500);
}

TEST_CASE("an extension ends when it ends, however often the exchange restarts meanwhile") {
  World world;
  auto member = world.member("s", {"#"}, with_timeout(std::chrono::milliseconds(50)));
  auto publisher = world.publisher();
  publisher.publish("a", "extended");
  publisher.publish("a", "not");
  world.run();
  Seen extended;
  Seen other;
  REQUIRE(member.take(extended));
  REQUIRE(member.take(other));
  CHECK(member.extend(extended.entry, 200));
  world.tick(0);
  for (std::uint64_t served_ns = 20 * ms; served_ns <= 180 * ms; served_ns += 20 * ms) {
    live(world, 20 * ms, 1'000 * ms);
    CAPTURE(served_ns);
    const std::uint64_t count = timed_out(world) + row_of(world.stat(), "s")["dead_lettered"].get<std::uint64_t>();
    CHECK(count == (served_ns < 50 * ms ? 0 : 1));
  }
  CHECK(member.extend(extended.entry, 100));  // while the exchange is not looking: a new one counts from its next look
  world.tick();
  live(world, 90 * ms);
  CHECK(timed_out(world) == 1);
  live(world, 15 * ms);
  CHECK(timed_out(world) == 2);
}

TEST_CASE("a member that has the place of another one begins with a time of its own") {
  World world;
  auto first = std::make_unique<CoreMember>(world.member("s", {"#"}, with_timeout(std::chrono::milliseconds(50))));
  auto publisher = world.publisher();
  for (int i = 0; i < 3; ++i) publisher.publish("a", "x");
  world.run();
  Seen seen;
  REQUIRE(first->take(seen));
  for (int i = 0; i < 8; ++i) world.tick();
  first.reset();
  world.x->detach_members(*world.x->find_queue("s"), [](const exchange::Lane&) { return true; });
  auto second = world.member("s", {"#"}, with_timeout(std::chrono::milliseconds(50)));
  world.run();
  REQUIRE(second.take(seen));
  world.tick();
  live(world, 45 * ms);
  CHECK(timed_out(world) == 0);
  live(world, 10 * ms);
  CHECK(timed_out(world) == 1);
}

TEST_CASE("what timed out and found no room is not forgotten by the next exchange") {
  World world;
  SubscriptionOptions options = with_timeout(std::chrono::milliseconds(50));
  options.max_deliveries = 1;
  options.max_dead_bytes = 200;  // one letter
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 2; ++i) publisher.publish("a", "x");
  world.run();
  Seen seen;
  for (int i = 0; i < 2; ++i) REQUIRE(member.take(seen));
  world.tick(0);
  live(world, 60 * ms);
  CHECK(row_of(world.stat(), "s")["dead_lettered"] == 1);
  CHECK(row_of(world.stat(), "s")["in_flight"] == 1);  // held (F35)
  CHECK(world.x->purge_dead(*world.x->find_queue("s"), {}).done == 1);
  world.tick();
  CHECK(row_of(world.stat(), "s")["dead_lettered"] == 2);
}
