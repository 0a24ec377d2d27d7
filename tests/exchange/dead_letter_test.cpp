// Dead letters: requeued, purged, walked in steps, held back where there is no room.
#include <algorithm>
#include <set>

#include "ackring/error.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "tests/exchange/retry_world.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("dead letters are requeued with a new budget, or purged; the history stays") {
  World world;
  SubscriptionOptions options = exact();
  options.max_deliveries = 2;
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 4; ++i) publisher.publish("a", std::to_string(i));
  const auto refuse_all = [&](ring::Verdict verdict) {
    std::uint64_t count = 0;
    for (int i = 0; i < 100; ++i) {
      world.tick();
      Seen seen;
      while (member.take(seen)) {
        ++count;
        member.verdict(seen.entry, verdict);
      }
    }
    return count;
  };
  CHECK(refuse_all(ring::Verdict::nack) == 8);
  CHECK(dead_letters(world, "s").size() == 4);
  exchange::Queue* queue = world.x->find_queue("s");
  CHECK(world.x->requeue_dead(*queue, {.delivery = 2}, world.now_ns).done == 1);
  CHECK(world.x->requeue_dead(*queue, {.reason = "rejected"}, world.now_ns).done == 0);
  auto row = row_of(world.stat(), "s");
  CHECK(row["requeued"] == 1);
  CHECK(row["dlq_size"] == 3);
  CHECK(row["retry_waiting"] == 1);
  world.restart();
  CHECK(refuse_all(ring::Verdict::nack) == 2);  // attempts 3 and 4: two more
  std::vector<Dead> dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 4);
  CHECK(dead[3].delivery == 2);
  CHECK(dead[3].attempt == 4);
  CHECK(dead[3].causes.size() == 4);
  queue = world.x->find_queue("s");
  CHECK(world.x->requeue_dead(*queue, {}, world.now_ns).done == 4);
  CHECK(refuse_all(ring::Verdict::reject) == 4);
  dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 4);
  for (const Dead& letter : dead) CHECK(letter.reason == "rejected");
  queue = world.x->find_queue("s");
  CHECK(world.x->purge_dead(*queue, {.at_most = 3}).more);
  CHECK(world.x->purge_dead(*queue, {.reason = "rejected"}).done == 1);
  world.tick();
  row = row_of(world.stat(), "s");
  CHECK(row["dlq_size"] == 0);
  CHECK(row["dlq_removed"] == 4);
  CHECK(row["rejected"] == 4);
  CHECK(row["dead_lettered"] == 9);
  CHECK(row["lag"] == 0);
}

TEST_CASE("dead letters are walked in bounded steps, from wherever a client says (F37)") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  for (int i = 0; i < 300; ++i) {  // some segments
    publisher.publish("a", std::string(static_cast<std::size_t>(i % 7) * 200, 'x'));
    world.run();
    Seen seen;
    REQUIRE(member.take(seen));
    member.verdict(seen.entry, ring::Verdict::reject);
    world.tick(1 * ms);
  }
  exchange::Queue& queue = *world.x->find_queue("s");
  const auto walk = [&queue](exchange::DeadLetterFilter filter) {
    std::vector<std::uint64_t> found;
    exchange::DeadLetterResult result;
    do {
      result = exchange::Exchange::walk_dead(queue, filter, [&found](std::uint64_t, const ring::EventParts& event) {
        found.push_back(event.header->delivery);
        return true;
      });
      filter.from = result.next;
    } while (result.more);
    return found;
  };
  const std::vector<std::uint64_t> all = walk({});
  CHECK(all.size() == 300);
  CHECK(walk({.at_most = 7}) == all);
  CHECK(walk({.at_most_bytes = 1}) == all);
  CHECK(walk({.at_most_looked_at = 3}) == all);
  CHECK(walk({.delivery = 299, .at_most_looked_at = 10}) == std::vector<std::uint64_t>{299});
  std::vector<std::uint64_t> files;
  exchange::walk_dead_files(*world.directory, "s", [&files](const ring::EventParts& event) {
    files.push_back(event.header->delivery);
    return true;
  });
  CHECK(files == all);
  for (std::uint64_t segment = 0; segment <= queue.dead.tail() >> 32; ++segment) {
    for (std::uint64_t offset = 0; offset < 70'000; offset += 1001) {
      const std::vector<std::uint64_t> rest = walk({.from = segment << 32 | offset});
      CHECK(std::equal(rest.rbegin(), rest.rend(), all.rbegin()));
    }
  }
  for (const std::uint64_t from : {~std::uint64_t{0}, queue.dead.tail(), std::uint64_t{99} << 32}) {
    CHECK(walk({.from = from}).empty());
  }
  const std::uint64_t until = queue.dead.tail();  // what is requeued and dies again is behind it
  CHECK(world.x->requeue_dead(queue, {.delivery = 300, .until = until}, world.now_ns).done == 1);
  Seen seen;
  while (!member.take(seen)) world.tick(1 * ms);
  member.verdict(seen.entry, ring::Verdict::reject);
  world.tick(1 * ms);
  CHECK(walk({}).size() == 300);
  CHECK(world.x->requeue_dead(queue, {.delivery = 300, .until = until}, world.now_ns).done == 0);
  CHECK_THROWS_AS(exchange::walk_dead_files(*world.directory, "t", [](const ring::EventParts&) { return true; }),
                  Error);
}

TEST_CASE("a full dead-letter log holds deliveries, and lets go when there is room (F35)") {
  World world;
  SubscriptionOptions options = exact();
  options.max_dead_bytes = 400;  // two letters
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 5; ++i) publisher.publish("a", std::to_string(i));
  world.run();
  Seen seen;
  while (member.take(seen)) member.verdict(seen.entry, ring::Verdict::reject);
  for (int i = 0; i < 5; ++i) world.tick();
  auto row = row_of(world.stat(), "s");
  const auto size = row["dlq_size"].get<std::uint64_t>();
  CHECK(size > 0);
  CHECK(size < 5);
  CHECK(row["in_flight"] == 5 - size);
  CHECK(world.x->find_queue("s")->dead_held != 0);
  for (int i = 0; i < 40; ++i) world.tick();  // a verdict that waits for room does not time out
  CHECK(row_of(world.stat(), "s")["timed_out"] == 0);
  CHECK(row_of(world.stat(), "s")["in_flight"] == 5 - size);
  std::uint64_t purged = 0;
  for (int i = 0; i < 10; ++i) {
    purged += world.x->purge_dead(*world.x->find_queue("s"), {}).done;
    world.tick();
  }
  CHECK(purged == 5);
  row = row_of(world.stat(), "s");
  CHECK(row["dlq_removed"] == 5);
  CHECK(row["in_flight"] == 0);
}

TEST_CASE("a delivery that timed out for the last time and has no room holds up no other's time-out (F35)") {
  World world;
  SubscriptionOptions options = exact();
  options.max_dead_bytes = 0;
  options.max_deliveries = 2;
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  publisher.publish("a", "last");
  world.run();
  Seen last;
  REQUIRE(member.take(last));
  member.nack(last.entry, 0);
  world.tick();
  REQUIRE(member.take(last));
  CHECK(last.attempt == 2);
  publisher.publish("a", "first");
  world.run();
  Seen first;
  REQUIRE(member.take(first));
  for (int i = 0; i < 14; ++i) world.tick();  // time-out: 50 ms
  CHECK(row_of(world.stat(), "s")["in_flight"] == 1);
  CHECK(row_of(world.stat(), "s")["timed_out"] == 1);
  CHECK(row_of(world.stat(), "s")["retry_waiting"] == 1);
  member.verdict(last.entry, ring::Verdict::ack);  // it has not ended yet
  world.tick();
  CHECK(row_of(world.stat(), "s")["acked"] == 1);
  CHECK(row_of(world.stat(), "s")["late_acks"] == 0);
}

TEST_CASE("a member that dies while dead letters have no room frees its place all the same") {
  World world;
  SubscriptionOptions options = exact();
  options.max_dead_bytes = 0;
  options.max_deliveries = 1;
  auto member = std::make_unique<CoreMember>(world.member("s", {"#"}, options));
  auto publisher = world.publisher();
  for (int i = 0; i < 2; ++i) publisher.publish("a", "x");
  world.run();
  Seen seen;
  REQUIRE(member->take(seen));
  member->verdict(seen.entry, ring::Verdict::reject);
  REQUIRE(member->take(seen));
  world.tick();
  CHECK(row_of(world.stat(), "s")["in_flight"] == 2);
  world.x->detach_member(world.x->find_queue("s")->lane);
  options.patterns.clear();
  auto next = world.member("s", {}, options);
  world.tick();
  for (int i = 0; i < 2; ++i) {
    REQUIRE(next.take(seen));
    CHECK(seen.attempt == 2);
    next.verdict(seen.entry, ring::Verdict::ack);
  }
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 2);
  CHECK(row["dlq_size"] == 0);
}
