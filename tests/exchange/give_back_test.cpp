// give_back: a delivery goes back as if it had not been taken. Nothing is charged, and the books say that it is queued.
#include <algorithm>

#include "tests/exchange/give_back_world.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("given back: it comes behind the ring and before the backlog, and nothing is charged; over a restart, too") {
  for (const bool restart : {false, true}) {
    CAPTURE(restart);
    World world;
    SubscriptionOptions options = patient();
    options.ring_bytes = 4096;
    options.max_deliveries = 1;
    auto member = world.member("s", {"#"}, options);
    publish(world, 200);
    const std::uint64_t in_ring = world.x->find_queue("s")->lane.entries;
    REQUIRE(in_ring < 150);
    const Seen first = take_one(member);
    world.x->tick(world.now_ns);
    CHECK(row_of(world.stat(), "s")["delivered"] == 1);
    CHECK(member.give_back(first.entry));
    CHECK_FALSE(member.verdict(first.entry, ring::Verdict::ack));
    if (restart) world.restart();
    world.x->tick(world.now_ns);  // without a step: it waits for the ring
    check_untouched(row_of(world.stat(), "s"), 200);
    CHECK(explained(world, "s", 1)["state"] == "parked");
    if (restart) world.restart();
    world.tick();
    auto expected = range(2, in_ring);
    expected.push_back(1);
    for (const std::uint64_t behind : range(in_ring + 1, 200)) expected.push_back(behind);
    CHECK(drain(world, member) == expected);
    auto row = row_of(world.stat(), "s");
    CHECK(row["acked"] == 200);
    check_untouched(row, 0, 200);
    CHECK(row["lag"] == 0);
  }
}

TEST_CASE("given back with a delay: it comes when that is over, never earlier, and `committed` does not pass it") {
  for (const bool restart : {false, true}) {
    CAPTURE(restart);
    World world;
    SubscriptionOptions options = patient();
    options.ring_bytes = 4096;
    auto member = world.member("s", {"#"}, options);
    publish(world, 200);
    CHECK(member.give_back(take_one(member).entry, 30));
    const std::uint64_t from = world.now_ns;
    world.tick();
    check_untouched(row_of(world.stat(), "s"), 200);
    CHECK(explained(world, "s", 1)["state"] == "delayed");
    CHECK(explained(world, "s", 1)["attempt"] == 1);
    if (restart) world.restart();
    while (world.now_ns - from < 60 * ms) {
      const bool over = world.now_ns - from >= 35 * ms;
      CHECK((explained(world, "s", 1)["state"] == "delayed") == !over);
      world.tick();
    }
    for (const Seen& seen : take_all(member)) member.verdict(seen.entry, ring::Verdict::ack);
    world.tick();
    auto row = row_of(world.stat(), "s");
    CHECK(explained(world, "s", 1)["where"] == "backlog");
    CHECK(row["committed"] == 0);
    CHECK(row["lag"] == 200);
    CHECK(drain(world, member).size() + row["acked"].get<std::uint64_t>() == 200);
    check_untouched(row_of(world.stat(), "s"), 0, 200);
    CHECK(row_of(world.stat(), "s")["lag"] == 0);
  }
}

TEST_CASE("given back again and again: no attempt is used up, and causes stay as they were") {
  for (const std::uint32_t delay_ms : {0u, 7u}) {
    CAPTURE(delay_ms);
    World world;
    SubscriptionOptions options = patient();
    options.max_deliveries = 2;
    auto member = world.member("s", {"#"}, options);
    publish(world, 1);
    for (std::uint32_t attempt = 1; attempt <= 2; ++attempt) {
      for (int i = 0; i < 8; ++i) {
        Seen seen;
        for (int ticks = 0; !member.take(seen); ++ticks) {
          REQUIRE(ticks < 100);
          world.tick();
        }
        CHECK(seen.attempt == attempt);
        CHECK(seen.delivery == 1);
        CHECK(seen.causes.size() == attempt - 1);
        if (i < 7) {
          CHECK(member.give_back(seen.entry, delay_ms));
          world.tick(1 * ms);
          const auto row = row_of(world.stat(), "s");
          CHECK(row["queued"] == 1);
          CHECK(row["retry_waiting"] == 0);
          CHECK(row["delivered"] == attempt - 1);
        } else {
          CHECK(member.nack(seen.entry, "not today"));
          world.tick();
          CHECK(row_of(world.stat(), "s")["nacked"] == attempt);
        }
      }
    }
    const std::vector<Dead> dead = dead_letters(world, "s");
    REQUIRE(dead.size() == 1);
    CHECK(dead[0].attempt == 2);
    CHECK(dead[0].reason == "max_deliveries: not today");
    // Requeued, it has a new budget, of which nothing is used up either.
    (void)world.x->requeue_dead(*world.x->find_queue("s"), {.reason = "max_deliveries"}, world.now_ns);
    for (int i = 0; i < 5; ++i) {
      for (int ticks = 0; ticks < 3; ++ticks) world.tick();
      const Seen seen = take_one(member);
      CHECK(seen.attempt == 3);
      CHECK(member.give_back(seen.entry));
      world.tick();
      CHECK(row_of(world.stat(), "s")["queued"] == 1);
    }
    CHECK(drain(world, member, 3).size() == 1);
    CHECK(row_of(world.stat(), "s")["delivered"] == 3);
  }
}

TEST_CASE("given back after its time-out: it means nothing but that the view is let go") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 1);
  const Seen seen = take_one(member);
  for (int i = 0; i < 12; ++i) world.tick();
  REQUIRE(row_of(world.stat(), "s")["timed_out"] == 1);
  CHECK(member.give_back(seen.entry));
  world.tick();
  auto row = row_of(world.stat(), "s");
  CHECK(row["retry_waiting"] == 1);
  CHECK(row["late_acks"] == 0);
  CHECK(row["delivered"] == 1);
  CHECK(world.x->find_queue("s")->lane.open_entries() == 0);
  CHECK(drain(world, member, 2) == range(1, 1));
  CHECK(row_of(world.stat(), "s")["delivered"] == 2);
}

TEST_CASE("given back by one who leaves at once: nothing is charged, not even a last attempt") {
  for (const bool grouped : {false, true}) {
    for (const std::uint32_t delay_ms : {0u, 20u}) {
      CAPTURE(grouped);
      CAPTURE(delay_ms);
      World world;
      SubscriptionOptions options = grouped ? group() : patient();
      options.max_deliveries = 1;
      auto member = world.member("s", {"#"}, options);
      publish(world, 3);
      CHECK(member.give_back(take_one(member).entry, delay_ms));
      CHECK(member.give_back(take_one(member).entry, delay_ms));
      world.x->detach_member(lane_of(world, member));
      check_untouched(row_of(world.stat(), "s"), 3);
      world.restart();
      options.patterns = {"#"};
      auto next = world.member("s", {"#"}, options);
      world.tick();
      std::vector<std::uint64_t> got = drain(world, next);
      std::sort(got.begin(), got.end());
      CHECK(got == range(1, 3));
      check_untouched(row_of(world.stat(), "s"), 0, 3);
    }
  }
}

TEST_CASE("given back when its time to live is over: it expires, as what was never taken does; a retry does not") {
  for (const bool buried : {false, true}) {
    CAPTURE(buried);
    World world;
    SubscriptionOptions options = patient();
    options.ttl = std::chrono::milliseconds(20);
    options.dead_letter_expired = buried;
    options.backoff_initial = std::chrono::milliseconds(1);
    auto member = world.member("s", {"#"}, options);
    auto publisher = world.publisher();
    publisher.published_ns = world.now_ns;
    publisher.add("a", "first");
    publisher.add("a", "second");
    publisher.commit();
    world.tick();
    const Seen first = take_one(member);
    member.verdict(take_one(member).entry, ring::Verdict::nack);
    for (int i = 0; i < 8; ++i) world.tick();
    const Seen retried = take_one(member);
    CHECK(retried.attempt == 2);
    CHECK(member.give_back(first.entry));
    CHECK(member.give_back(retried.entry));
    world.tick();
    const auto row = row_of(world.stat(), "s");
    CHECK(row["expired"] == (buried ? 0 : 1));
    CHECK(row["dlq_size"] == (buried ? 1 : 0));
    CHECK(row["queued"] == 1);
    CHECK(drain(world, member, 2) == range(2, 2));
  }
}

TEST_CASE("given back, then purged or removed with dead letters: it is among those that go") {
  for (const std::uint32_t delay_ms : {0u, 20u}) {
    for (const bool seen_by_tick : {false, true}) {
      CAPTURE(delay_ms);
      CAPTURE(seen_by_tick);
      World world;
      auto member = world.member("s", {"#"}, patient());
      publish(world, 3);
      CHECK(member.give_back(take_one(member).entry, delay_ms));
      if (seen_by_tick) world.x->tick(world.now_ns);
      CHECK(world.x->purge(*world.x->find_queue("s"), world.now_ns) == 3);
      for (int i = 0; i < 10; ++i) world.tick();
      CHECK(take_all(member).empty());
      CHECK(row_of(world.stat(), "s")["purged"] == 3);
      publish(world, 1);
      CHECK(member.give_back(take_one(member).entry, delay_ms));
      world.x->end_subscription(*world.x->find_queue("s"), true);
      world.x->detach_member(world.x->find_queue("s")->lane);
      world.tick();
      const std::vector<Dead> dead = dead_letters(world, "s");
      REQUIRE(dead.size() == 1);
      CHECK(dead[0].reason == "removed");
      CHECK(dead[0].causes.empty());
      (void)world.stat();
    }
  }
}

TEST_CASE("given back at most once: it was settled when it was taken") {
  World world;
  SubscriptionOptions options;
  options.guarantee = Guarantee::at_most_once;
  auto member = world.member("s", {"#"}, options);
  publish(world, 2);
  (void)member.give_back(take_one(member).entry);
  world.tick();
  CHECK(take_all(member).size() == 1);
  member.release();
  world.tick();
  CHECK(row_of(world.stat(), "s")["acked"] == 2);
}
