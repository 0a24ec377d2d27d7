// Groups and ordered subscriptions: who gets what, and when.
#include <set>

#include "ackring/error.hpp"

#include "tests/exchange/group_world.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("members of a group share the events; each is delivered to one of them") {
  World world;
  auto first = world.member("g", {"#"}, group());
  auto second = world.member("g", {"#"}, group());
  CHECK(row_of(world.stat(), "g")["members"] == 2);
  publish(world, 10);
  const std::vector<Seen> left = take_all(first);
  const std::vector<Seen> right = take_all(second);
  CHECK(left.size() == 5);
  CHECK(right.size() == 5);
  std::set<std::uint64_t> deliveries;
  for (const auto* seen : {&left, &right}) {
    for (const Seen& one : *seen) CHECK(deliveries.insert(one.delivery).second);
  }
  CHECK(deliveries.size() == 10);
  for (const Seen& one : left) first.verdict(one.entry, ring::Verdict::ack);
  for (const Seen& one : right) second.verdict(one.entry, ring::Verdict::ack);
  world.tick();
  const auto row = row_of(world.stat(), "g");
  CHECK(row["acked"] == 10);
  CHECK(row["lag"] == 0);
}

TEST_CASE("credit: who settles gets more, who does not gets no more than max_in_flight") {
  World world;
  auto slow = world.member("g", {"#"}, group(4));
  auto fast = world.member("g", {"#"}, group(4));
  publish(world, 100);
  const std::size_t held = take_all(slow).size();
  std::size_t done = 0;
  for (int i = 0; i < 60; ++i) {
    for (const Seen& seen : take_all(fast)) {
      fast.verdict(seen.entry, ring::Verdict::ack);
      ++done;
    }
    world.run();
  }
  CHECK(held == 4);
  CHECK(done == 96);
  CHECK(row_of(world.stat(), "g")["in_flight"] == 4);
}

TEST_CASE("a member that dies hands on what it had: taken with attempt + 1, not taken unchanged") {
  World world;
  auto first = world.member("g", {"#"}, group());
  auto second = world.member("g", {"#"}, group());
  publish(world, 12);
  Seen taken;
  REQUIRE(first.take(taken));
  const std::vector<Seen> others = take_all(second);
  REQUIRE(others.size() == 6);
  world.x->detach_member(lane_of(world, first));
  CHECK(row_of(world.stat(), "g")["members"] == 1);
  for (const Seen& seen : others) second.verdict(seen.entry, ring::Verdict::ack);
  world.run();
  world.tick();
  std::map<std::uint64_t, std::uint32_t> attempts;
  for (const Seen& seen : take_all(second)) {
    attempts[seen.delivery] = seen.attempt;
    second.verdict(seen.entry, ring::Verdict::ack);
  }
  CHECK(attempts.size() == 6);
  for (const auto& [delivery, attempt] : attempts) CHECK(attempt == (delivery == taken.delivery ? 2 : 1));
  world.tick();
  const auto row = row_of(world.stat(), "g");
  CHECK(row["acked"] == 12);
  CHECK(row["redelivered"] == 1);
  CHECK(row["delivered"] == 13);
  CHECK(world.x->find_queue("g")->members.size() == 1);  // the dead member's ring is gone
}

TEST_CASE("what the last member leaves waits for the next one, over a restart too") {
  World world;
  auto first = world.member("g", {"#"}, group());
  publish(world, 5);
  Seen taken;
  REQUIRE(first.take(taken));
  world.x->detach_member(lane_of(world, first));
  auto row = row_of(world.stat(), "g");
  CHECK(row["queued"] == 4);
  CHECK(row["retry_waiting"] == 1);
  world.restart();
  CHECK(row_of(world.stat(), "g")["queued"] == 4);
  auto next = world.member("g", {"#"}, group());
  world.tick();
  std::vector<std::uint64_t> untaken;
  for (const Seen& seen : take_all(next)) {
    if (seen.attempt == 1) untaken.push_back(seen.delivery);
    next.verdict(seen.entry, ring::Verdict::ack);
  }
  CHECK(untaken == std::vector<std::uint64_t>{2, 3, 4, 5});
  world.tick();
  CHECK(row_of(world.stat(), "g")["acked"] == 5);
}

TEST_CASE("a member that stands still keeps what it took; the rest goes to the others, and it harms nothing later") {
  for (const bool restart : {false, true}) {
    CAPTURE(restart);
    World world;
    auto frozen = world.member("g", {"#"}, group());
    auto other = world.member("g", {"#"}, group());
    publish(world, 8);
    Seen held;
    REQUIRE(frozen.take(held));
    std::set<std::uint64_t> acked;
    const auto work = [&](CoreMember& member) {
      for (const Seen& seen : take_all(member)) {
        CHECK(acked.insert(seen.delivery).second);
        member.verdict(seen.entry, ring::Verdict::ack);
      }
    };
    for (int i = 0; i < 10; ++i) {
      work(other);
      world.tick();
    }
    if (restart) world.restart();
    for (int i = 0; i < 40; ++i) {
      work(other);
      world.tick();
    }
    // All but what it took are acked; that one has timed out and was acked at its second attempt by the other.
    CHECK(acked.size() == 8);
    auto row = row_of(world.stat(), "g");
    CHECK(row["acked"] == 8);
    CHECK(row["timed_out"] == 1);
    work(frozen);  // it wakes up: what was taken back is not shown to it
    CHECK(acked.size() == 8);
    CHECK(row_of(world.stat(), "g")["delivered"] == 9);
    frozen.verdict(held.entry, ring::Verdict::ack);
    world.tick();
    row = row_of(world.stat(), "g");
    CHECK(row["late_acks"] == 1);
    CHECK(row["acked"] == 8);
    const exchange::Lane& lane = lane_of(world, frozen);
    CHECK(lane.floor_entry == lane.entries);  // everything is let go
    publish(world, 8);
    CHECK(take_all(frozen).size() == 4);  // and it has its share again
  }
}

TEST_CASE("ordered: nothing overtakes an event that is not settled, whatever becomes of it") {
  for (const bool grouped : {false, true}) {
    CAPTURE(grouped);
    World world;
    SubscriptionOptions options = group();
    options.group = grouped;
    options.ordered = true;
    options.max_deliveries = 2;
    std::vector<CoreMember> members;
    members.push_back(world.member("o", {"#"}, options));
    if (grouped) members.push_back(world.member("o", {"#"}, options));
    publish(world, 20);
    std::vector<std::pair<std::uint64_t, std::uint32_t>> order;
    for (int i = 0; i < 400 && order.size() < 24; ++i) {
      std::size_t open = 0;
      for (CoreMember& member : members) {
        for (const Seen& seen : take_all(member)) {
          ++open;
          order.emplace_back(seen.delivery, seen.attempt);
          const bool poison = seen.delivery % 5 == 3;
          member.verdict(seen.entry, poison ? ring::Verdict::nack : ring::Verdict::ack);
        }
      }
      CHECK(open <= 1);
      world.tick();
      if (i == 30) world.restart();
    }
    std::vector<std::pair<std::uint64_t, std::uint32_t>> expected;
    for (std::uint64_t delivery = 1; delivery <= 20; ++delivery) {
      expected.emplace_back(delivery, 1);
      if (delivery % 5 == 3) expected.emplace_back(delivery, 2);
    }
    CHECK(order == expected);
    const auto row = row_of(world.stat(), "o");
    CHECK(row["acked"] == 16);
    CHECK(row["dlq_size"] == 4);
  }
}

TEST_CASE("an at-most-once group: each event once, whoever stands still") {
  World world;
  SubscriptionOptions options = group();
  options.guarantee = Guarantee::at_most_once;
  auto frozen = world.member("g", {"#"}, options);
  auto other = world.member("g", {"#"}, options);
  publish(world, 8);
  std::set<std::uint64_t> seen;
  const auto work = [&](CoreMember& member) {
    for (const Seen& one : take_all(member)) CHECK(seen.insert(one.delivery).second);
    member.release();
  };
  for (int i = 0; i < 30; ++i) {
    work(other);
    world.tick();
  }
  CHECK(seen.size() == 8);
  work(frozen);
  world.tick();
  world.tick();
  CHECK(row_of(world.stat(), "g")["acked"] == 8);
  CHECK(lane_of(world, frozen).floor_entry == lane_of(world, frozen).entries);
}

TEST_CASE("who may join: a group takes any number of members, an ordered subscription one") {
  World world;
  SubscriptionOptions options = group();
  options.group = false;
  options.ordered = true;
  auto member = world.member("o", {"#"}, options);
  CHECK_THROWS_WITH_AS(world.member("o", {"#"}, options), doctest::Contains("has a member already"), const Error&);
  options.group = true;
  CHECK_THROWS_WITH_AS(world.member("", {"#"}, options), doctest::Contains("no name"), const Error&);
  options.name = "o";
  options.patterns = {"#"};
  CHECK_THROWS_WITH_AS(world.x->update_subscription(options, {"group"}), doctest::Contains("can't change"), Error);
}

TEST_CASE("a backlog gets shorter while the rings of several publishers are full") {
  for (const bool grouped : {false, true}) {
    CAPTURE(grouped);
    World world;
    SubscriptionOptions options = group(4096);
    options.group = grouped;
    options.ring_bytes = 1 << 20;
    world.x->detach_member(lane_of(world, world.member("s", {"#"}, options)));
    publish(world, 500);
    publish(world, 500);
    auto member = world.member("s", {"#"}, options);
    std::vector<CorePublisher> publishers;
    for (int i = 0; i < 3; ++i) publishers.push_back(world.publisher());
    const exchange::Queue& queue = *world.x->find_queue("s");
    CHECK(queue.block.backlog_events == 1'000);
    int steps = 0;
    for (; steps < 50 && queue.block.backlog_events != 0; ++steps) {
      for (CorePublisher& publisher : publishers) {
        while (publisher.add("a", "x")) {
        }
        publisher.commit();
      }
      world.x->step(world.now_ns);
      for (const Seen& seen : take_all(member)) member.verdict(seen.entry, ring::Verdict::ack);
    }
    CHECK(steps < 50);
    world.run();
    world.stat();
  }
}

TEST_CASE("a group of which every member stood still, with full rings, goes on when one moves") {
  World world;
  auto first = world.member("g", {"#"}, group(4));
  auto second = world.member("g", {"#"}, group(4));
  publish(world, 12);
  for (int i = 0; i < 20; ++i) world.tick();  // what they have not taken is taken back from both
  std::set<std::uint64_t> acked;
  for (int i = 0; i < 20; ++i) {
    for (CoreMember* member : {&first, &second}) {
      for (const Seen& seen : take_all(*member)) {
        CHECK(seen.attempt == 1);
        CHECK(acked.insert(seen.delivery).second);
        member->verdict(seen.entry, ring::Verdict::ack);
      }
    }
    world.tick();
  }
  CHECK(acked.size() == 12);
  const auto row = row_of(world.stat(), "g");
  CHECK(row["acked"] == 12);
  CHECK(row["delivered"] == 12);
}
