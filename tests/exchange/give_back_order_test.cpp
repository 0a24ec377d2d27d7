// give_back where somebody else may come first: in groups, where there is an order, behind a pause.
#include <algorithm>

#include "tests/exchange/give_back_world.hpp"

using namespace ackring;
using namespace ackring::test;

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
