// What people do to a subscription: pause, resume, purge, remove.
#include <algorithm>

#include "tests/exchange/group_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

std::vector<std::uint64_t> deliveries(const std::vector<Seen>& all) {
  std::vector<std::uint64_t> numbers;
  for (const Seen& seen : all) numbers.push_back(seen.delivery);
  return numbers;
}

std::vector<std::uint64_t> range(std::uint64_t from, std::uint64_t through) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = from; i <= through; ++i) numbers.push_back(i);
  return numbers;
}

}  // namespace

TEST_CASE("pause takes back what was not taken; resume goes on in order, over a restart too") {
  for (const bool restart : {false, true}) {
    for (const bool full : {false, true}) {
      CAPTURE(restart);
      CAPTURE(full);
      World world;
      SubscriptionOptions options = exact();
      options.ring_bytes = 4096;
      options.ack_timeout = std::chrono::seconds(100);
      auto member = world.member("s", {"#"}, options);
      const int first = full ? 200 : 10;  // 200 fill the ring, so that some wait in the backlog
      publish(world, first);
      Seen held;
      REQUIRE(member.take(held));
      world.x->pause(*world.x->find_queue("s"));
      CHECK(row_of(world.stat(), "s")["paused"] == true);
      CHECK(row_of(world.stat(), "s")["in_flight"] == 1);
      CHECK(take_all(member).empty());
      publish(world, 10);
      if (restart) world.restart();
      CHECK(take_all(member).empty());
      auto row = row_of(world.stat(), "s");
      CHECK(row["queued"] == first + 9);
      CHECK(row["retry_waiting"] == 0);
      member.verdict(held.entry, ring::Verdict::ack);
      world.tick();
      CHECK(row_of(world.stat(), "s")["acked"] == 1);
      world.x->resume(*world.x->find_queue("s"));
      std::vector<Seen> rest;
      for (int i = 0; i < 200; ++i) {
        world.tick();
        for (const Seen& seen : take_all(member)) {
          CHECK(seen.attempt == 1);
          member.verdict(seen.entry, ring::Verdict::ack);
          rest.push_back(seen);
        }
      }
      CHECK(deliveries(rest) == range(2, static_cast<std::uint64_t>(first) + 10));
      row = row_of(world.stat(), "s");
      CHECK(row["acked"] == first + 10);
      CHECK(row["delivered"] == first + 10);
      CHECK(row["redelivered"] == 0);
      CHECK(row["paused"] == false);
    }
  }
}

TEST_CASE("paused: retries wait, attempts and their order stay") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 3);
  for (const Seen& seen : take_all(member)) member.verdict(seen.entry, ring::Verdict::nack);
  world.tick();
  for (int i = 0; i < 40; ++i) world.tick();  // the second attempts are in the ring
  world.x->pause(*world.x->find_queue("s"));
  for (int i = 0; i < 100; ++i) world.tick();
  CHECK(take_all(member).empty());
  CHECK(row_of(world.stat(), "s")["queued"] == 3);
  world.restart();
  world.x->resume(*world.x->find_queue("s"));
  world.tick();
  const std::vector<Seen> again = take_all(member);
  REQUIRE(again.size() == 3);
  for (const Seen& seen : again) CHECK(seen.attempt == 2);
}

TEST_CASE("a paused group goes on where it stood") {
  World world;
  auto first = world.member("g", {"#"}, group());
  auto second = world.member("g", {"#"}, group());
  publish(world, 30);
  world.x->pause(*world.x->find_queue("g"));
  CHECK(take_all(first).empty());
  CHECK(take_all(second).empty());
  world.x->detach_member(lane_of(world, second));
  world.tick();
  CHECK(row_of(world.stat(), "g")["queued"] == 30);
  world.x->resume(*world.x->find_queue("g"));
  std::vector<Seen> got;
  for (int i = 0; i < 60; ++i) {
    world.tick();
    for (const Seen& seen : take_all(first)) {
      got.push_back(seen);
      first.verdict(seen.entry, ring::Verdict::ack);
    }
  }
  CHECK(deliveries(got) == range(1, 30));
  CHECK(row_of(world.stat(), "g")["acked"] == 30);
}

TEST_CASE("purge empties ring, backlog and retries; what is in flight is settled by its member") {
  for (const bool grouped : {false, true}) {
    CAPTURE(grouped);
    World world;
    SubscriptionOptions options = exact();
    options.group = grouped;
    options.ring_bytes = 4096;
    options.max_in_flight = 16;
    auto member = world.member("s", {"#"}, options);
    publish(world, 100);
    Seen nacked;
    Seen held;
    REQUIRE(member.take(nacked));
    REQUIRE(member.take(held));
    member.verdict(nacked.entry, ring::Verdict::nack);
    world.tick();
    CHECK(world.x->purge(*world.x->find_queue("s"), world.now_ns) == 99);
    auto row = row_of(world.stat(), "s");
    CHECK(row["purged"] == 99);
    CHECK(row["in_flight"] == 1);
    CHECK(row["queued"] == 0);
    CHECK(row["retry_waiting"] == 0);
    world.restart();
    CHECK(row_of(world.stat(), "s")["purged"] == 99);
    CHECK(take_all(member).empty());
    member.verdict(held.entry, ring::Verdict::ack);
    world.tick();
    publish(world, 3);
    CHECK(deliveries(take_all(member)) == range(101, 103));
    world.tick();
    row = row_of(world.stat(), "s");
    CHECK(row["acked"] == 1);
    CHECK(row["in_flight"] == 3);
    CHECK(world.x->purge(*world.x->find_queue("s"), world.now_ns) == 0);
  }
}

TEST_CASE("a subscription that ends goes when nothing is left in it, not before") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 2);
  world.x->detach_member(world.x->find_queue("s")->lane);
  CHECK(exchange::Exchange::pending(*world.x->find_queue("s")) == 2);
  world.x->end_subscription(*world.x->find_queue("s"));
  publish(world, 5);
  world.restart();
  world.tick();
  CHECK(row_of(world.stat(), "s")["matched"] == 2);
  auto next = world.member("s", {});
  for (const Seen& seen : take_all(next)) next.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  REQUIRE(world.x->find_queue("s") != nullptr);
  world.x->detach_member(world.x->find_queue("s")->lane);
  world.tick();
  CHECK(world.x->find_queue("s") == nullptr);
}

TEST_CASE("what a pause took back from a member that left is not shown to the next one, and comes once") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 5);
  world.x->pause(*world.x->find_queue("s"));
  world.x->detach_member(world.x->find_queue("s")->lane);
  auto next = world.member("s", {});
  CHECK(take_all(next).empty());
  world.x->resume(*world.x->find_queue("s"));
  world.tick();
  const std::vector<Seen> got = take_all(next);
  CHECK(deliveries(got) == range(1, 5));
  for (const Seen& seen : got) next.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 5);
  CHECK(row["delivered"] == 5);
}

TEST_CASE("what is purged from the ring of a member that is gone does not come to the next one") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 5);
  Seen taken;
  REQUIRE(member.take(taken));
  world.x->detach_member(world.x->find_queue("s")->lane);
  CHECK(world.x->purge(*world.x->find_queue("s"), world.now_ns) >= 4);
  publish(world, 2);
  auto next = world.member("s", {});
  std::vector<Seen> got = take_all(next);
  for (const Seen& seen : got) next.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  for (const Seen& seen : take_all(next)) got.push_back(seen);
  CHECK(got.size() + row_of(world.stat(), "s")["purged"].get<std::uint64_t>() == 7);
  for (const Seen& seen : got) CHECK((seen.delivery == 1 || seen.delivery >= 6));
}

TEST_CASE("a subscription that was removed into dead letters delivers what is requeued, and then goes") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 3);
  world.x->detach_member(world.x->find_queue("s")->lane);
  world.x->end_subscription(*world.x->find_queue("s"), true);
  world.tick();
  auto& queue = *world.x->find_queue("s");
  CHECK(row_of(world.stat(), "s")["dlq_size"] == 3);
  CHECK(!queue.burying);
  CHECK(world.x->requeue_dead(queue, {}, world.now_ns).done == 3);
  world.restart();
  world.tick();
  auto next = world.member("s", {});
  const std::vector<Seen> got = take_all(next);
  CHECK(deliveries(got) == range(1, 3));
  for (const Seen& seen : got) next.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  world.x->detach_member(world.x->find_queue("s")->lane);
  world.tick();
  CHECK(world.x->find_queue("s") == nullptr);
}

TEST_CASE("ordered: a delayed event goes behind what a pause took back, and before the backlog") {
  for (const bool by_key : {false, true}) {
    CAPTURE(by_key);
    World world;
    SubscriptionOptions options = exact();
    options.ordered = true;
    options.ordered_by_key = by_key;
    options.ack_timeout = std::chrono::seconds(10);
    CoreMember member = world.member("s", {"#"}, options);
    CorePublisher publisher = world.publisher();
    publisher.add("a", "delayed", "k", shm::TimingInfo{0, world.now_ns + 20 * ms});
    publisher.add("a", "fails", "k");
    for (int i = 0; i < 20; ++i) publisher.add("a", "later", "k");
    publisher.commit();
    world.run();
    Seen seen;
    REQUIRE(member.take(seen));
    CHECK(seen.payload == "fails");
    member.nack(seen.entry, 0);
    world.tick();
    world.tick();  // it is in the ring again
    world.x->pause(*world.x->find_queue("s"));
    for (int i = 0; i < 5; ++i) world.tick();
    world.x->resume(*world.x->find_queue("s"));
    std::vector<std::string> got;
    for (int i = 0; i < 40; ++i) {
      world.tick(1 * ms);
      if (!member.take(seen)) continue;
      got.push_back(seen.payload);
      member.verdict(seen.entry, ring::Verdict::ack);
      world.run();
    }
    REQUIRE(got.size() == 22);
    CHECK(got[0] == "fails");
    CHECK(got[1] == "delayed");
  }
}

TEST_CASE("what is delayed no more and stands in the backlog behind later ones is not committed") {
  World world;
  SubscriptionOptions options = exact();
  options.max_in_flight = 1;
  CoreMember member = world.member("s", {"#"}, options);
  CorePublisher publisher = world.publisher();
  publisher.publish("a", "delayed", {0, world.now_ns + 20 * ms});
  for (int i = 0; i < 5; ++i) publisher.publish("a", "x");
  world.run();
  for (int i = 0; i < 6; ++i) world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["retry_waiting"] == 0);
  CHECK(row["committed"] == 0);
}
