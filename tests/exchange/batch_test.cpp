// How long the events of one publisher, or of a backlog, may hold up those of another publisher: by one batch. All of it is
// counted in steps and events; no clock decides.
#include "tests/exchange/core_world.hpp"

#include <algorithm>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t big_ring_bytes = 16u << 20;

SubscriptionOptions roomy() {
  SubscriptionOptions options;
  options.ring_bytes = big_ring_bytes;
  return options;
}

// Payload sizes of what is there for a member, in the order in which it came.
std::vector<std::size_t> take_all(CoreMember& member) {
  std::vector<std::size_t> sizes;
  Seen seen;
  while (member.take(seen)) sizes.push_back(seen.payload.size());
  return sizes;
}

// Events of `bytes` that are taken from one publisher before the exchange looks at the next one.
std::uint64_t events_of_a_batch(std::size_t bytes) {
  World world;
  auto member = world.member("s", {"#"}, roomy());
  auto publisher = world.publisher("p", big_ring_bytes);
  REQUIRE(publisher.publish("topic", "first"));  // it brings the topic along
  REQUIRE(world.x->step(world.now_ns));
  while (publisher.add("topic", std::string(bytes, 'x')) && publisher.sequence() <= 1000) {
  }
  publisher.commit();
  (void)take_all(member);
  REQUIRE(world.x->step(world.now_ns));
  return take_all(member).size();
}

}  // namespace

TEST_CASE("a batch ends with the event that makes it as long as its bound, and after so many events") {
  const auto record_bytes = [](std::size_t payload) { return ring::record_bytes(payload, 0, 0); };
  for (const std::size_t bytes : {0u, 64u, 464u, 1000u, 4096u, 65'000u, 131'024u, 131'025u, 1u << 20, 3u << 20}) {
    CAPTURE(bytes);
    const std::uint64_t by_bytes = (exchange::batch_bytes + record_bytes(bytes) - 1) / record_bytes(bytes);
    CHECK(events_of_a_batch(bytes) == std::min(by_bytes, exchange::batch_events));
  }
  CHECK(events_of_a_batch(64) == exchange::batch_events);
  CHECK(events_of_a_batch(1u << 20) == 1);
}

TEST_CASE("between two looks at a publisher there is one batch of each other, however much those have") {
  World world;
  auto member = world.member("s", {"#"}, roomy());
  auto one = world.publisher("one", big_ring_bytes);
  auto small = world.publisher("small");
  auto other = world.publisher("other", big_ring_bytes);
  const std::string big(1u << 20, 'x');
  for (CorePublisher* publisher : {&one, &other}) {
    REQUIRE(publisher->publish("big", ""));
    REQUIRE(world.x->step(world.now_ns));
    while (publisher->publish("big", big)) {
    }
  }
  Seen seen;
  while (member.take(seen)) {
  }
  std::map<std::string, int> between;  // events of the others since the last small one
  int small_ones = 0;
  for (int i = 0; i < 6; ++i) {
    REQUIRE(small.publish("small", "now"));
    REQUIRE(world.x->step(world.now_ns));
    while (member.take(seen)) {
      if (seen.payload == "now") {
        CHECK(between.size() == (small_ones++ == 0 ? 1 : 2));
        between.clear();
      } else {
        CHECK(++between[seen.publisher] == 1);
      }
    }
  }
  CHECK(small_ones == 6);
}

TEST_CASE("publishers who wait for the room of one ring get it in turn") {
  World world;
  world.x->set_full_ring_grace(exchange::full_ring_grace_ns);
  SubscriptionOptions options;
  options.ring_bytes = 4096;
  options.max_in_flight = 4;
  auto member = world.member("s", {"#"}, options);
  std::vector<CorePublisher> publishers;
  for (const char* name : {"one", "two", "three"}) publishers.push_back(world.publisher(name));
  for (CorePublisher& publisher : publishers) {
    for (int i = 0; i < 100; ++i) REQUIRE(publisher.publish("a", "x"));
  }
  std::map<std::string, int> taken;
  Seen seen;
  for (int i = 0; i < 94; ++i) {
    world.x->step(world.now_ns);
    REQUIRE(member.take(seen));
    if (i >= 4) ++taken[seen.publisher];  // the first ones found a ring that was empty
    member.ack_through(seen.entry);
  }
  CHECK(taken.size() == 3);
  for (const auto& row : taken) {
    const int events = row.second;
    CAPTURE(row.first);
    CHECK(events == 30);
  }
}

TEST_CASE("one batch is one event into all of its subscriptions, where it is larger than the bound") {
  World world;
  std::vector<CoreMember> members;
  for (int i = 0; i < 8; ++i) members.push_back(world.member("s" + std::to_string(i), {"big"}, roomy()));
  auto waits = world.member("waits", {"small"});
  auto big = world.publisher("big", big_ring_bytes);
  auto small = world.publisher("small");
  REQUIRE(big.publish("big", ""));
  REQUIRE(world.x->step(world.now_ns));
  for (CoreMember& member : members) (void)take_all(member);
  while (big.publish("big", std::string(1u << 20, 'x'))) {
  }
  REQUIRE(small.publish("small", "now"));
  REQUIRE(world.x->step(world.now_ns));
  CHECK(take_all(waits).size() == 1);
  for (CoreMember& member : members) CHECK(take_all(member) == std::vector<std::size_t>{1u << 20});
}

TEST_CASE("a backlog of big events gives way after one more batch than publishers had, too") {
  World world;
  SubscriptionOptions options = roomy();
  options.max_events = 100;
  options.max_bytes = 100u << 20;
  world.x->create_subscription(
      [&] {
        SubscriptionOptions created = options;
        created.name = "away";
        created.patterns = {"big"};
        return created;
      }(),
      false);
  auto big = world.publisher("big", big_ring_bytes);
  for (int i = 0; i < 8; ++i) {
    REQUIRE(big.publish("big", std::string(1u << 20, 'x')));
    world.run();
  }
  CHECK(world.x->find_queue("away")->block.backlog_events == 8);
  auto waits = world.member("waits", {"small"});
  auto back = world.member("away", {}, options);
  auto small = world.publisher("small");
  for (std::uint64_t left = 6;; left -= 2) {
    REQUIRE(small.publish("small", "now"));
    REQUIRE(world.x->step(world.now_ns));
    CHECK(take_all(waits).size() == 1);
    CHECK(world.x->find_queue("away")->block.backlog_events == left);
    if (left == 0) break;
  }
  CHECK(take_all(back).size() == 8);
}

TEST_CASE("a full ring of a live member makes its publishers wait a moment, and the backlog comes behind that") {
  for (const std::uint64_t begin_ns : {1'000'000'000u, 1'000'000'001u}) {
    CAPTURE(begin_ns);
    World world;
    world.x->set_full_ring_grace(exchange::full_ring_grace_ns);
    world.now_ns = begin_ns;
    SubscriptionOptions options;
    options.max_in_flight = 4;
    auto member = world.member("s", {"#"}, options);
    auto publisher = world.publisher();
    for (int i = 0; i < 10; ++i) REQUIRE(publisher.publish("a", std::to_string(i)));
    const auto waiting = [&world] { return world.stat()["publishers"][0]["in_ring"].get<int>(); };
    world.run();
    CHECK(waiting() == 6);
    Seen seen;
    REQUIRE(member.take(seen));  // who merely had to come to its turn makes room in time: nothing goes the long way
    member.ack_through(seen.entry);
    world.now_ns += exchange::full_ring_grace_ns - 1;
    world.run();
    CHECK(waiting() == 5);
    CHECK(world.x->find_queue("s")->block.backlog_events == 0);
    world.now_ns += exchange::full_ring_grace_ns - 1;
    world.run();
    CHECK(waiting() == 5);
    world.now_ns += 1;
    world.run();
    CHECK(waiting() == 0);
    CHECK(world.x->find_queue("s")->block.backlog_events == 5);
    for (int i = 1; i < 10; ++i) {
      if (!member.take(seen)) {
        world.tick();
        REQUIRE(member.take(seen));
      }
      CHECK(seen.payload == std::to_string(i));
      member.ack_through(seen.entry);
    }
  }
}
