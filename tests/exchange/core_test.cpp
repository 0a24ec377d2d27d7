// The exchange's core step by step: route, deliver, take, ack, settle, backlog, redelivery, restart.
#include "tests/exchange/core_world.hpp"

#include "ackring/error.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

SubscriptionOptions small() {
  SubscriptionOptions options;
  options.ring_bytes = 4096;
  options.max_in_flight = 8;
  return options;
}

}  // namespace

TEST_CASE("events reach the rings of matching subscriptions, in order, and are settled by acks") {
  World world;
  auto all = world.member("all", {"#"});
  auto created = world.member("created", {"orders.*.created"});
  auto publisher = world.publisher();
  CHECK(publisher.publish("orders.eu.created", "one"));
  CHECK(publisher.publish("orders.eu.deleted", "two"));
  CHECK(publisher.publish("orders.us.created", ""));
  world.run();
  Seen seen;
  REQUIRE(all.take(seen));
  CHECK(seen.payload == "one");
  CHECK(seen.delivery == 1);
  REQUIRE(all.take(seen));
  CHECK(seen.payload == "two");
  REQUIRE(all.take(seen));
  CHECK(seen.payload.empty());
  CHECK(seen.sequence == 3);
  CHECK_FALSE(all.take(seen));
  all.ack_through(seen.entry);
  REQUIRE(created.take(seen));
  CHECK(created.verdict(seen.entry, ring::Verdict::ack));
  CHECK_FALSE(created.verdict(seen.entry, ring::Verdict::nack));
  REQUIRE(created.take(seen));
  CHECK(seen.sequence == 3);
  world.tick();
  const auto stat = world.stat();
  CHECK(row_of(stat, "all")["acked"] == 3);
  CHECK(row_of(stat, "all")["lag"] == 0);
  CHECK(row_of(stat, "created")["acked"] == 1);
  CHECK(row_of(stat, "created")["in_flight"] == 1);
  CHECK(row_of(stat, "created")["committed"] == 1);
}

TEST_CASE("out-of-order acks leave the stuck one in flight and count the rest") {
  World world;
  auto member = world.member("s", {"#"});
  auto publisher = world.publisher();
  for (int i = 0; i < 10; ++i) publisher.publish("a", std::to_string(i));
  world.run();
  std::vector<Seen> taken(10);
  for (Seen& seen : taken) REQUIRE(member.take(seen));
  for (int i = 9; i >= 1; --i) member.verdict(taken[i].entry, ring::Verdict::ack);
  world.tick();
  auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 9);
  CHECK(row["in_flight"] == 1);
  CHECK(row["committed"] == 0);
  member.verdict(taken[0].entry, ring::Verdict::ack);
  world.tick();
  row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 10);
  CHECK(row["committed"] == 10);
}

TEST_CASE("a full ring of one member holds up nobody else, and its events wait in its backlog in order") {
  World world;
  auto slow = world.member("slow", {"#"}, small());
  auto fast = world.member("fast", {"#"});
  auto publisher = world.publisher();
  Seen seen;
  for (int i = 1; i <= 1000; ++i) {
    while (!publisher.publish("a.b", std::to_string(i))) {
      world.run();
      world.now_ns += 2'000'000;
    }
    world.run();
    world.now_ns += 2'000'000;
    world.run();
    REQUIRE(fast.take(seen));
    CHECK(seen.payload == std::to_string(i));
    fast.verdict(seen.entry, ring::Verdict::ack);
  }
  CHECK(row_of(world.stat(), "slow")["queued"] == 1000);
  for (int i = 1; i <= 1000; ++i) {
    if (!slow.take(seen)) {
      world.tick();
      REQUIRE(slow.take(seen));
    }
    CHECK(seen.payload == std::to_string(i));
    slow.ack_through(seen.entry);
  }
  world.tick();
  const auto row = row_of(world.stat(), "slow");
  CHECK(row["acked"] == 1000);
  CHECK(row["lag"] == 0);
}

TEST_CASE("a nacked, a timed-out and an abandoned delivery come again with the next attempt") {
  World world;
  SubscriptionOptions options;
  options.ack_timeout = std::chrono::milliseconds(50);
  options.backoff_initial = options.backoff_max = Nanoseconds(0);
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 3; ++i) publisher.publish("a", std::to_string(i));
  world.run();
  std::vector<Seen> taken(3);
  for (Seen& seen : taken) REQUIRE(member.take(seen));
  member.verdict(taken[1].entry, ring::Verdict::nack);
  world.tick();
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(seen.delivery == 2);
  CHECK(seen.attempt == 2);
  CHECK(seen.payload == "1");
  member.verdict(seen.entry, ring::Verdict::ack);
  for (int i = 0; i < 12; ++i) world.tick();
  REQUIRE(member.take(seen));
  CHECK(seen.delivery == 1);
  CHECK(seen.attempt == 2);
  REQUIRE(member.take(seen));
  CHECK(seen.delivery == 3);
  // A late ack lets go of the old view and is counted; the space of the ring moves on.
  member.verdict(taken[0].entry, ring::Verdict::ack);
  member.verdict(taken[2].entry, ring::Verdict::ack);
  world.tick();
  auto row = row_of(world.stat(), "s");
  CHECK(row["nacked"] == 1);
  CHECK(row["timed_out"] == 2);
  CHECK(row["late_acks"] == 2);
  CHECK(row["redelivered"] == 3);
  CHECK(row["in_flight"] == 2);
  // The member goes: what it had taken comes again, with the next attempt, to the next member.
  world.x->detach_member(world.x->find_queue("s")->lane);
  auto next = world.member("s", {"#"}, options);
  REQUIRE(next.take(seen));
  CHECK(seen.delivery == 1);
  CHECK(seen.attempt == 3);
  next.verdict(seen.entry, ring::Verdict::ack);
  REQUIRE(next.take(seen));
  CHECK(seen.delivery == 3);
  next.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  CHECK(row_of(world.stat(), "s")["lag"] == 0);
}

TEST_CASE("an extension is no verdict: nothing comes again for it, and every verdict may follow") {
  World world;
  SubscriptionOptions options;
  options.ack_timeout = std::chrono::milliseconds(50);
  auto member = world.member("s", {"#"}, options);
  ring::AckWriter acks(member.page());
  auto publisher = world.publisher();
  for (int i = 0; i < 4; ++i) publisher.publish("a", std::to_string(i));
  world.run();
  std::vector<Seen> taken(4);
  for (Seen& seen : taken) REQUIRE(member.take(seen));
  for (const Seen& seen : taken) REQUIRE(acks.extend(seen.entry, 1));
  Seen seen;
  for (int i = 0; i < 3; ++i) world.tick();
  CHECK_FALSE(member.take(seen));
  CHECK(row_of(world.stat(), "s")["in_flight"] == 4);
  member.ack_through(taken[1].entry);
  CHECK(member.verdict(taken[2].entry, ring::Verdict::ack));
  world.tick();
  CHECK(row_of(world.stat(), "s")["acked"] == 3);
  CHECK(row_of(world.stat(), "s")["in_flight"] == 1);
  // The last one is extended by a millisecond only: it times out like any other, once, and its view pins its bytes.
  const std::uint64_t floor = world.x->find_queue("s")->lane.floor_entry;
  for (int i = 0; i < 40; ++i) world.tick();
  CHECK(row_of(world.stat(), "s")["timed_out"] == 1);
  CHECK(world.x->find_queue("s")->lane.floor_entry == floor);
  CHECK(acks.extend(taken[3].entry, 1));  // too late for this attempt
  world.tick();
  CHECK(world.x->find_queue("s")->lane.floor_entry == floor);
  REQUIRE(member.take(seen));
  CHECK(seen.delivery == 4);
  CHECK(seen.attempt == 2);
  member.verdict(seen.entry, ring::Verdict::ack);
  member.verdict(taken[3].entry, ring::Verdict::nack);
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 4);
  CHECK(row["timed_out"] == 1);
  CHECK(row["nacked"] == 0);
  CHECK(row["lag"] == 0);
}

TEST_CASE("a view that is held past its time-out pins its bytes (F47)") {
  World world;
  SubscriptionOptions options = small();
  options.ack_timeout = std::chrono::milliseconds(10);
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  publisher.publish("a", std::string(100, 'x'));
  world.run();
  Seen first;
  REQUIRE(member.take(first));
  for (int i = 0; i < 5; ++i) world.tick();
  const std::uint64_t floor = world.x->find_queue("s")->lane.floor_entry;
  for (int i = 0; i < 200; ++i) {
    publisher.publish("a", std::string(100, 'y'));
    world.tick();
  }
  CHECK(world.x->find_queue("s")->lane.floor_entry == floor);
  CHECK(world.x->find_queue("s")->block.backlog_events > 0);
  member.verdict(first.entry, ring::Verdict::ack);
  world.tick();
  CHECK(world.x->find_queue("s")->lane.floor_entry == floor + 1);
  world.stat();
}

TEST_CASE("at most once: taken is settled, and space comes back when the next one is taken") {
  World world;
  SubscriptionOptions options = small();
  options.guarantee = Guarantee::at_most_once;
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  Seen seen;
  for (int i = 1; i <= 100; ++i) {
    publisher.publish("a", std::to_string(i));
    world.run();
    member.release();
    REQUIRE(member.take(seen));
    CHECK(seen.sequence == static_cast<std::uint64_t>(i));
  }
  world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 100);
  CHECK(row["in_flight"] == 0);
  CHECK(row["lag"] == 0);
}

TEST_CASE("overflow policies: block stops the publisher, drops are counted") {
  for (const Overflow policy : {Overflow::block, Overflow::drop_newest, Overflow::drop_oldest}) {
    World world;
    SubscriptionOptions options = small();
    options.max_events = 20;
    options.overflow = policy;
    options.name = "s";
    options.patterns = {"#"};
    world.x->create_subscription(options, false);
    auto publisher = world.publisher("", 8192);
    int published = 0;
    for (int i = 1; i <= 1000; ++i) {
      if (publisher.publish("a", std::to_string(i))) ++published;
      world.run();
    }
    const auto row = row_of(world.stat(), "s");
    CAPTURE(static_cast<int>(policy));
    CHECK(row["queued"] == 20);
    if (policy == Overflow::block) {
      CHECK(published < 1000);
      CHECK(row["matched"] == 20);
    } else {
      CHECK(published == 1000);
      CHECK(row["dropped"][policy == Overflow::drop_newest ? "drop-newest" : "drop-oldest"] == 980);
      auto member = world.member("s", {});
      world.run();
      Seen seen;
      REQUIRE(member.take(seen));
      CHECK(seen.payload == (policy == Overflow::drop_newest ? "1" : "981"));
    }
  }
}

TEST_CASE("a restarted exchange goes on where it was") {
  World world;
  auto online = world.member("online", {"#"});
  SubscriptionOptions offline;
  offline.name = "offline";
  offline.patterns = {"a.#"};
  world.x->create_subscription(offline, false);
  auto publisher = world.publisher("gateway");
  for (int i = 1; i <= 100; ++i) publisher.publish("a.b", std::to_string(i));
  world.run();
  Seen seen;
  for (int i = 1; i <= 60; ++i) {
    REQUIRE(online.take(seen));
    if (i <= 50) online.ack_through(seen.entry);
  }
  world.tick();
  publisher.publish("a.b", "101");  // committed, not yet routed
  const auto before = row_of(world.stat(), "online");
  world.restart();
  const auto after = row_of(world.stat(), "online");
  CHECK(after["acked"] == before["acked"]);
  CHECK(after["in_flight"] == before["in_flight"]);
  for (int i = 61; i <= 101; ++i) {
    REQUIRE(online.take(seen));
    CHECK(seen.payload == std::to_string(i));
    CHECK(seen.attempt == 1);
  }
  online.ack_through(seen.entry);
  world.tick();
  CHECK(row_of(world.stat(), "online")["acked"] == 101);
  auto late = world.member("offline", {"a.#"});
  world.run();
  for (int i = 1; i <= 101; ++i) {
    REQUIRE(late.take(seen));
    CHECK(seen.payload == std::to_string(i));
  }
}

TEST_CASE("publishers: names are held once, sequences go on, anonymous slots are used again") {
  World world;
  auto member = world.member("s", {"#"});
  auto first = world.publisher("gateway");
  CHECK_THROWS_AS(world.publisher("gateway"), Error);
  first.publish("a", "1");
  first.publish("a", "2");
  world.x->detach_publisher(*world.x->find_publisher(first.slot(), first.incarnation()));
  auto second = world.publisher("gateway");
  second.publish("a", "3");
  world.tick();
  Seen seen;
  for (std::uint64_t i = 1; i <= 3; ++i) {
    REQUIRE(member.take(seen));
    CHECK(seen.sequence == i);
  }
  std::uint16_t slot = 0;
  for (int i = 0; i < 3000; ++i) {
    auto anonymous = world.publisher("", 4096);
    if (i > 0) CHECK(anonymous.slot() == slot);
    slot = anonymous.slot();
    world.x->detach_publisher(*world.x->find_publisher(slot, anonymous.incarnation()));
    world.tick();
  }
  CHECK(world.directory->list("pub.").size() == 3);  // gateway's ring and cursor, the slot's last cursor
}

TEST_CASE("an event of an unknown topic number, a rewound sequence, a broken record: counted or quarantined") {
  World world;
  auto member = world.member("s", {"#"});
  auto good = world.publisher("good");
  auto bad = world.publisher("bad");
  bad.publish("a", "x");
  world.run();
  auto ring = shm::Segment::attach(*world.directory, exchange::Exchange::ingress_name(bad.slot(), bad.incarnation()),
                                   shm::SegmentKind::ingress_ring, shm::Access::read_write);
  ring.as<shm::IngressRing>()->tail.store(1 << 30, std::memory_order_release);
  good.publish("a", "y");
  world.run();
  CHECK(world.x->find_publisher(bad.slot(), bad.incarnation())->quarantined);
  Seen seen;
  REQUIRE(member.take(seen));
  REQUIRE(member.take(seen));
  CHECK(seen.payload == "y");
}

TEST_CASE(
    "who ruins his ack page loses his place at the next restart; nobody loses an event, and nobody else anything") {
  for (const bool grouped : {false, true}) {
    CAPTURE(grouped);
    World world;
    SubscriptionOptions options = small();
    options.group = grouped;
    auto hostile = world.member("hostile", {"#"}, options);
    auto other = world.member("other", {"#"}, small());
    auto publisher = world.publisher();
    for (int i = 0; i < 20; ++i) REQUIRE(publisher.publish("a", std::to_string(i)));
    world.tick();
    Seen seen;
    REQUIRE(hostile.take(seen));
    REQUIRE(other.take(seen));
    std::memset(static_cast<void*>(hostile.page()), grouped ? 0xff : 0, 64);
    world.restart();
    CHECK(world.x->report().size() == 1);
    world.tick();
    CHECK(row_of(world.stat(), "hostile")["members"] == 0);
    CHECK(row_of(world.stat(), "other")["members"] == 1);
    auto next = world.member("hostile", {});
    std::map<std::string, std::uint32_t> got;
    for (int i = 0; i < 20; ++i) {
      world.tick();
      while (next.take(seen)) {
        CHECK(got.emplace(seen.payload, seen.attempt).second);
        next.verdict(seen.entry, ring::Verdict::ack);
      }
    }
    CHECK(got.size() == 20);
    CHECK(row_of(world.stat(), "hostile")["acked"] == 20);
    CHECK(row_of(world.stat(), "hostile")["lag"] == 0);
  }
}
