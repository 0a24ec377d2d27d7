// Events that may not be delivered yet, or not any more; the explicit list of delays.
#include <doctest/doctest.h>

#include "tests/exchange/retry_world.hpp"

namespace ackring::test {
namespace {

struct Times {
  std::uint64_t expires_ns = 0;
  std::uint64_t not_before_ns = 0;
  operator shm::TimingInfo() const { return {expires_ns, not_before_ns}; }  // NOLINT(google-explicit-constructor)
};

std::vector<std::string> take_all(CoreMember& member) {
  std::vector<std::string> all;
  Seen seen;
  while (member.take(seen)) {
    all.push_back(seen.payload);
    member.verdict(seen.entry, ring::Verdict::ack);
  }
  return all;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("an event whose time is over when it is routed is counted, and delivered to nobody") {
  World world;
  CorePublisher publisher = world.publisher();
  CoreMember member = world.member("s", {"#"}, exact());
  publisher.publish("a", "late", Times{world.now_ns});
  publisher.publish("a", "in time", Times{world.now_ns + 1});
  publisher.publish("a", "any time");
  world.run();
  CHECK(take_all(member) == Texts{"in time", "any time"});
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["matched"] == 3);
  CHECK(row["expired"] == 1);
  CHECK(row["acked"] == 2);
}

TEST_CASE("what waits in a backlog expires there, with nobody listening, and never what has entered a ring") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.max_in_flight = 4;
  CoreMember member = world.member("s", {"#"}, options);
  options.name = "offline";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  for (int i = 0; i < 10; ++i) publisher.publish("a", std::to_string(i), Times{world.now_ns + 100 * ms});
  world.tick(20 * ms);
  CHECK(row_of(world.stat(), "offline")["queued"] == 10);
  world.restart();  // that some of the backlog expires is in shared memory
  for (int i = 0; i < 20; ++i) world.tick();
  const auto stat = world.stat();
  CHECK(row_of(stat, "offline")["expired"] == 10);
  CHECK(row_of(stat, "offline")["queued"] == 0);
  CHECK(row_of(stat, "s")["expired"] == 6);
  CHECK(take_all(member) == Texts{"0", "1", "2", "3"});
  world.tick();
  world.stat();
  CHECK_FALSE(world.x->find_queue("offline")->active);
}

TEST_CASE("what expired while no exchange ran, or in the ring of a publisher's earlier run, is delivered to nobody") {
  World world;
  SubscriptionOptions options = exact();
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  CorePublisher publisher = world.publisher("p");
  publisher.publish("a", "in the backlog", Times{world.now_ns + 50 * ms});
  world.run();
  publisher.publish("a", "in its ring", Times{world.now_ns + 50 * ms});
  world.now_ns += 60 * ms;
  world.x = nullptr;
  world.x = std::make_unique<exchange::Exchange>(*world.directory);
  CoreMember member = world.member("s", {});
  world.x->detach_publisher(*world.x->publishers()[publisher.slot()]);
  world.publisher("p");
  world.run();
  CHECK(take_all(member).empty());
  CHECK(row_of(world.stat(), "s")["expired"] == 2);
}

TEST_CASE("the time to live of a subscription holds for all its events, and can be changed") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.name = "s";
  options.patterns = {"#"};
  options.ttl = std::chrono::milliseconds(100);
  world.x->create_subscription(options, false);
  publisher.published_ns = world.now_ns;
  publisher.publish("a", "1");
  publisher.publish("a", "2", Times{world.now_ns + 10'000 * ms, world.now_ns + 50 * ms});  // its life begins at 50 ms
  world.tick(99 * ms);
  CHECK(row_of(world.stat(), "s")["queued"] == 2);
  world.tick(1 * ms);
  CHECK(row_of(world.stat(), "s")["expired"] == 1);
  options.ttl = std::chrono::milliseconds(500);
  world.x->update_subscription(options, {"ttl_ns"});
  world.tick(300 * ms);
  CHECK(row_of(world.stat(), "s")["expired"] == 1);
  world.tick(150 * ms);
  CHECK(row_of(world.stat(), "s")["expired"] == 2);
}

TEST_CASE("a time to live that is given later holds for what has long been waiting") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  publisher.published_ns = world.now_ns;
  publisher.publish("a", "1");
  world.run();
  for (int i = 0; i < 5; ++i) world.tick();
  CHECK_FALSE(world.x->find_queue("s")->active);
  options.ttl = std::chrono::milliseconds(100);
  world.x->update_subscription(options, {"ttl_ns"});
  world.tick(1 * ms);
  CHECK(row_of(world.stat(), "s")["queued"] == 1);
  world.tick(100 * ms);
  CHECK(row_of(world.stat(), "s")["expired"] == 1);
}

TEST_CASE("expired events become dead letters if they are to; requeued, they have all the time") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.dead_letter_expired = true;
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  publisher.publish("a", "routed too late", Times{world.now_ns});
  publisher.publish("a", "in the backlog", Times{world.now_ns + 50 * ms});
  publisher.publish("a", "delayed", Times{world.now_ns + 60 * ms, world.now_ns + 80 * ms});
  world.run();
  for (int i = 0; i < 30; ++i) world.tick();
  const auto dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 3);
  for (const Dead& letter : dead) {
    CHECK(letter.reason == "expired");
    CHECK(letter.causes.empty());
  }
  CHECK(row_of(world.stat(), "s")["expired"] == 0);
  world.x->requeue_dead(*world.x->find_queue("s"), {}, world.now_ns);
  CHECK(row_of(world.stat(), "s")["queued"] == 3);
  world.restart();
  CoreMember member = world.member("s", {});
  world.tick();
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(seen.attempt == 1);
  CHECK(seen.payload == "routed too late");
  member.verdict(seen.entry, ring::Verdict::nack);
  CHECK(take_all(member) == Texts{"in the backlog", "delayed"});
  for (int i = 0; i < 30; ++i) world.tick();
  REQUIRE(member.take(seen));
  CHECK(seen.attempt == 2);
  member.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 3);
  CHECK(row["requeued"] == 3);
  CHECK(row["redelivered"] == 1);
}

TEST_CASE("a dead-letter log that is full holds what has expired, and what comes behind it") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.dead_letter_expired = true;
  options.max_dead_bytes = 200;
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  for (int i = 0; i < 4; ++i) publisher.publish("a", "x", Times{world.now_ns + 50 * ms});
  world.run();
  for (int i = 0; i < 20; ++i) world.tick();
  auto row = row_of(world.stat(), "s");
  CHECK(row["dlq_size"] == 1);
  CHECK(row["queued"] == 3);
  CHECK(world.x->find_queue("s")->dead_held != 0);
  world.x->purge_dead(*world.x->find_queue("s"), {});
  world.tick();
  row = row_of(world.stat(), "s");
  CHECK(row["dlq_size"] == 1);
  CHECK(row["dlq_removed"] == 1);
  CHECK(row["queued"] == 2);
}

TEST_CASE("a delayed event waits, overtaken by others, until its time has come, over a restart") {
  World world;
  CorePublisher publisher = world.publisher();
  CoreMember member = world.member("s", {"#"}, exact());
  const std::uint64_t due = world.now_ns + 100 * ms;
  publisher.publish("a", "later", Times{0, due});
  publisher.publish("a", "now");
  publisher.publish("a", "also later", Times{0, due + 1});
  publisher.publish("a", "now, too");
  world.run();
  CHECK(take_all(member) == Texts{"now", "now, too"});
  world.tick(1 * ms);
  CHECK(row_of(world.stat(), "s")["queued"] == 2);
  CHECK(row_of(world.stat(), "s")["retry_waiting"] == 0);
  world.restart();
  while (world.now_ns + 5 * ms < due) {
    world.tick();
    CHECK(take_all(member).empty());
  }
  world.tick(due - world.now_ns);
  CHECK(take_all(member) == Texts{"later"});
  world.tick();
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(seen.attempt == 1);
  CHECK(seen.delivery == 3);
  member.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  CHECK(row_of(world.stat(), "s")["acked"] == 4);
}

TEST_CASE("delayed events count for the limits of the backlog") {
  World world;
  CorePublisher publisher = world.publisher("", 4096);
  SubscriptionOptions options = exact();
  options.name = "blocks";
  options.patterns = {"block"};
  options.max_events = 3;
  world.x->create_subscription(options, false);
  options.name = "drops";
  options.patterns = {"drop"};
  options.overflow = Overflow::drop_oldest;
  world.x->create_subscription(options, false);
  options.name = "buries";
  options.patterns = {"bury"};
  options.overflow = Overflow::dead_letter;
  world.x->create_subscription(options, false);
  for (int i = 0; i < 5; ++i) {
    publisher.publish("drop", "x", Times{0, world.now_ns + 1000 * ms});
    publisher.publish("bury", "x", Times{0, world.now_ns + 1000 * ms});
  }
  for (int i = 0; i < 5; ++i) publisher.publish("block", "x", Times{0, world.now_ns + 1000 * ms});
  world.run();
  const auto stat = world.stat();
  CHECK(row_of(stat, "drops")["queued"] == 3);
  CHECK(row_of(stat, "drops")["dropped"]["drop-newest"] == 2);
  CHECK(row_of(stat, "buries")["queued"] == 3);
  CHECK(row_of(stat, "buries")["dlq_size"] == 2);
  CHECK(row_of(stat, "blocks")["queued"] == 3);
  CHECK(stat["publishers"][0]["in_ring"] == 2);
}

TEST_CASE(
    "overflow dead_letter: what the backlog has no room for is dead; a full dead-letter log makes publishers wait") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.name = "s";
  options.patterns = {"#"};
  options.max_events = 5;
  options.max_dead_bytes = 1000;
  options.overflow = Overflow::dead_letter;
  world.x->create_subscription(options, false);
  for (int i = 0; i < 30; ++i) publisher.publish("a", std::to_string(i));
  world.run();
  auto stat = world.stat();
  auto row = row_of(stat, "s");
  CHECK(row["queued"] == 5);
  const std::size_t dead = row["dlq_size"];
  CHECK(dead > 3);
  CHECK(stat["publishers"][0]["in_ring"] == 25 - dead);
  for (const Dead& letter : dead_letters(world, "s")) CHECK(letter.reason == "overflow");
  world.x->purge_dead(*world.x->find_queue("s"), {});
  CoreMember member = world.member("s", {});
  std::size_t got = 0;
  for (int i = 0; i < 20; ++i) {
    world.run();
    got += take_all(member).size();
    world.tick();
  }
  stat = world.stat();
  row = row_of(stat, "s");
  CHECK(stat["publishers"][0]["in_ring"] == 0);
  CHECK(row["acked"] == got);
  CHECK(row["matched"] == 30);
}

TEST_CASE("an explicit list of delays takes the place of the back-off, to the nanosecond; its last one goes on") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.jitter = 0.5;
  options.retry_delays = {std::chrono::milliseconds(10), std::chrono::milliseconds(40)};
  CoreMember member = world.member("s", {"#"}, options);
  publisher.publish("a", "x");
  world.run();
  std::vector<std::uint64_t> taken;
  Seen seen;
  for (int i = 0; i < 200 && taken.size() < 5; ++i) {
    if (member.take(seen)) {
      taken.push_back(world.now_ns);
      member.verdict(seen.entry, ring::Verdict::nack);
    }
    world.tick(1 * ms);
  }
  REQUIRE(taken.size() == 5);
  CHECK(taken[1] - taken[0] == 11 * ms);  // a tick until the verdict is seen, and the delay
  for (std::size_t i = 2; i < 5; ++i) CHECK(taken[i] - taken[i - 1] == 41 * ms);
}

TEST_CASE("in an ordered subscription a delayed event does not overtake a delivery that comes back") {
  World world;
  CorePublisher publisher = world.publisher();
  for (const bool by_key : {false, true}) {
    CAPTURE(by_key);
    const std::string name = by_key ? "keys" : "all";
    SubscriptionOptions options = exact();
    options.ordered = true;
    options.ordered_by_key = by_key;
    options.ack_timeout = std::chrono::seconds(10);
    CoreMember member = world.member(name, {name}, options);
    publisher.add(name, "fails", "k");
    publisher.add(name, "delayed", "k", Times{0, world.now_ns + 20 * ms});
    publisher.commit();
    world.run();
    Seen seen;
    REQUIRE(member.take(seen));
    member.verdict(seen.entry, ring::Verdict::nack);  // it is back after 100 ms
    for (int i = 0; i < 18; ++i) {
      world.tick();
      CHECK_FALSE(member.take(seen));
    }
    for (int i = 0; i < 5; ++i) world.tick();
    REQUIRE(member.take(seen));
    CHECK(seen.payload == "fails");
    CHECK(seen.attempt == 2);
    Seen behind;
    CHECK_FALSE(member.take(behind));
    member.verdict(seen.entry, ring::Verdict::ack);
    world.tick();
    world.tick();
    REQUIRE(member.take(seen));
    CHECK(seen.payload == "delayed");
    member.verdict(seen.entry, ring::Verdict::ack);
    world.tick();
    world.stat();
  }
}

TEST_CASE("a subscription that goes makes dead letters of what it holds, wherever that is") {
  World world;
  CorePublisher publisher = world.publisher();
  SubscriptionOptions options = exact();
  options.max_in_flight = 4;
  {
    CoreMember member = world.member("s", {"#"}, options);
    for (int i = 0; i < 10; ++i) publisher.publish("a", std::to_string(i));
    publisher.publish("a", "delayed", Times{0, world.now_ns + 10'000 * ms});
    world.run();
    Seen seen;
    REQUIRE(member.take(seen));
    member.nack(seen.entry, 10'000);
    world.tick();
    world.x->detach_member(world.x->find_queue("s")->lane);
  }
  exchange::Queue* queue = world.x->find_queue("s");
  world.x->end_subscription(*queue, true);
  publisher.publish("a", "matches nothing");
  world.tick();
  world.restart();
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["matched"] == 11);
  CHECK(row["dlq_size"] == 11);
  const auto dead = dead_letters(world, "s");
  for (const Dead& letter : dead) {
    CHECK(letter.reason == "removed");
    CHECK(letter.causes.size() == (letter.delivery == 1 ? 1 : 0));
  }
  world.x->purge_dead(*world.x->find_queue("s"), {});
  world.tick();
  CHECK(world.x->find_queue("s") == nullptr);
}

}  // namespace ackring::test
