// give_back: a delivery goes back as if it had not been taken. Nothing is charged, its order stays, and the books say that
// it is queued.
#include "lib/exchange/inspect.hpp"

#include <algorithm>

#include "tests/exchange/group_world.hpp"

using namespace ackring;
using namespace ackring::test;
using exchange::Queue;

namespace {

std::vector<std::uint64_t> range(std::uint64_t from, std::uint64_t through) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = from; i <= through; ++i) numbers.push_back(i);
  return numbers;
}

Seen take_one(CoreMember& member) {
  Seen seen;
  REQUIRE(member.take(seen));
  return seen;
}

// Acks what comes until nothing does any more; the numbers in the order in which they came.
std::vector<std::uint64_t> drain(World& world, CoreMember& member, std::uint32_t attempt = 1) {
  std::vector<std::uint64_t> got;
  for (int quiet = 0; quiet < 30; ++quiet) {
    for (Seen seen; member.take(seen); quiet = 0) {
      CHECK(seen.attempt == attempt);
      got.push_back(seen.delivery);
      member.verdict(seen.entry, ring::Verdict::ack);
    }
    world.tick();
  }
  return got;
}

// Nothing has happened to these events, as far as counters tell.
void check_untouched(const nlohmann::ordered_json& row, std::uint64_t queued, std::uint64_t delivered = 0) {
  INFO(row.dump());
  CHECK(row["queued"] == queued);
  CHECK(row["delivered"] == delivered);
  for (const char* name : {"nacked", "rejected", "timed_out", "redelivered", "requeued", "late_acks", "retry_waiting",
                           "in_flight", "dead_lettered", "expired", "purged"}) {
    CAPTURE(name);
    CHECK(row[name] == 0);
  }
}

control::Json explained(World& world, const std::string& name, std::uint64_t delivery) {
  const Queue& queue = *world.x->find_queue(name);
  exchange::Found found;
  for (int looks = 0; found.where == exchange::Found::Where::nowhere; ++looks) {
    REQUIRE(looks < 1000);
    if (found.next.stage == exchange::InspectCursor::end) return exchange::explain_gone(queue);
    found = exchange::find(queue, {.delivery = delivery}, found.next, {});
  }
  return exchange::explain(queue, found, world.now_ns, world.x->served_at(world.now_ns));
}

SubscriptionOptions patient() {
  SubscriptionOptions options = exact();
  options.ack_timeout = std::chrono::seconds(100);
  return options;
}

}  // namespace

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

TEST_CASE("given back in a group: it goes to who has room, and is nobody's retry") {
  World world;
  SubscriptionOptions options = group(4);
  options.ack_timeout = std::chrono::seconds(100);
  auto busy = world.member("g", {"#"}, options);
  auto idle = world.member("g", {"#"}, options);
  publish(world, 8);
  const std::vector<Seen> held = take_all(busy);
  REQUIRE(held.size() == 4);
  for (const Seen& seen : take_all(idle)) idle.verdict(seen.entry, ring::Verdict::ack);
  CHECK(busy.give_back(held[2].entry));
  world.tick();
  const std::vector<Seen> got = take_all(idle);
  REQUIRE(got.size() == 1);
  CHECK(got[0].delivery == held[2].delivery);
  CHECK(got[0].attempt == 1);
  idle.verdict(got[0].entry, ring::Verdict::ack);
  for (const Seen& seen : held) busy.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  check_untouched(row_of(world.stat(), "g"), 0, 8);
  CHECK(row_of(world.stat(), "g")["acked"] == 8);
}

TEST_CASE("given back where there is an order: it is the next one again, whatever its delay says") {
  for (const bool grouped : {false, true}) {
    CAPTURE(grouped);
    World world;
    SubscriptionOptions options = grouped ? group() : patient();
    options.ack_timeout = std::chrono::seconds(100);
    options.ordered = true;
    auto member = world.member("o", {"#"}, options);
    publish(world, 5);
    std::vector<std::uint64_t> got;
    for (int i = 0; i < 15; ++i) {
      const Seen seen = take_one(member);
      CHECK(seen.attempt == 1);
      got.push_back(seen.delivery);
      if (i % 3 == 2) {
        member.verdict(seen.entry, ring::Verdict::ack);
      } else {
        CHECK(member.give_back(seen.entry, i % 3 == 0 ? 0 : 10'000));
      }
      if (i == 7) world.restart();
      world.tick();
    }
    CHECK(got == std::vector<std::uint64_t>{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5});
    check_untouched(row_of(world.stat(), "o"), 0, 5);
  }
}

TEST_CASE("given back, ordered by key: nothing of its key overtakes it, others do") {
  World world;
  SubscriptionOptions options = group();
  options.ack_timeout = std::chrono::seconds(100);
  options.ordered = options.ordered_by_key = true;
  auto member = world.member("k", {"#"}, options);
  auto publisher = world.publisher();
  for (const char* key : {"x", "y", "x", "y", "x"}) publisher.add("a", "p", key);
  publisher.commit();
  world.tick();
  std::vector<std::uint64_t> of_x;
  std::vector<std::uint64_t> of_y;
  for (int i = 0; i < 12; ++i) {
    for (const Seen& seen : take_all(member)) {
      CHECK(seen.attempt == 1);
      (seen.key == "x" ? of_x : of_y).push_back(seen.delivery);
      const bool again = seen.key == "x" && i % 2 == 0;
      again ? member.give_back(seen.entry, 10'000) : member.verdict(seen.entry, ring::Verdict::ack);
    }
    world.tick();
    (void)world.stat();
  }
  CHECK(of_x == std::vector<std::uint64_t>{1, 1, 3, 3, 5, 5});
  CHECK(of_y == std::vector<std::uint64_t>{2, 4});
  check_untouched(row_of(world.stat(), "k"), 0, 5);
}

TEST_CASE("given back while the subscription is paused: it waits with the others, in their order") {
  for (const std::uint32_t delay_ms : {0u, 20u}) {
    CAPTURE(delay_ms);
    World world;
    auto member = world.member("s", {"#"}, patient());
    publish(world, 10);
    const Seen first = take_one(member);
    const Seen second = take_one(member);
    world.x->pause(*world.x->find_queue("s"));
    CHECK(member.give_back(second.entry, delay_ms));
    for (int i = 0; i < 10; ++i) world.tick();
    CHECK(take_all(member).empty());
    const auto row = row_of(world.stat(), "s");
    CHECK(row["queued"] == 9);
    CHECK(row["in_flight"] == 1);
    CHECK(row["delivered"] == 1);
    CHECK(row["retry_waiting"] == 0);
    member.verdict(first.entry, ring::Verdict::ack);
    world.tick();
    world.x->resume(*world.x->find_queue("s"));
    world.tick();
    std::vector<std::uint64_t> got = drain(world, member);
    if (delay_ms != 0) std::sort(got.begin(), got.end());
    CHECK(got == range(2, 10));
    check_untouched(row_of(world.stat(), "s"), 0, 10);
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
