// What failed: back-off, attempts, late acks, extensions, over restarts of the exchange. Time is the test's own.
#include <set>

#include "tests/exchange/retry_world.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE(
    "a nacked delivery comes again after the back-off, never early, at most a tick late; then it is dead (F33, F34)") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  publisher.publish("a", "poison");
  world.run();
  const std::uint64_t nominal[] = {0, 100 * ms, 200 * ms, 400 * ms, 500 * ms};
  for (std::uint32_t attempt = 1; attempt <= 5; ++attempt) {
    CAPTURE(attempt);
    const std::uint64_t from = world.now_ns;
    Seen seen;
    while (!member.take(seen)) {
      world.tick(1 * ms);
      REQUIRE(world.now_ns - from < 1'000 * ms);
    }
    CHECK(seen.attempt == attempt);
    CHECK(seen.delivery == 1);
    CHECK(seen.payload == "poison");
    if (attempt > 1) {
      CHECK(world.now_ns - from >= nominal[attempt - 1]);
      CHECK(world.now_ns - from <= nominal[attempt - 1] + 2 * ms);
    }
    member.verdict(seen.entry, ring::Verdict::nack);
    world.tick(0);
    if (attempt < 5) CHECK(row_of(world.stat(), "s")["retry_waiting"] == 1);
  }
  for (int i = 0; i < 1000; ++i) world.tick(5 * ms);
  Seen seen;
  CHECK_FALSE(member.take(seen));
  const auto row = row_of(world.stat(), "s");
  CHECK(row["nacked"] == 5);
  CHECK(row["redelivered"] == 4);
  CHECK(row["dead_lettered"] == 1);
  CHECK(row["dlq_size"] == 1);
  CHECK(row["retry_waiting"] == 0);
  CHECK(row["lag"] == 0);
  const std::vector<Dead> dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].attempt == 5);
  CHECK(dead[0].reason == "max_deliveries");
  CHECK(dead[0].causes == std::vector<std::uint32_t>(5, static_cast<std::uint32_t>(shm::DeliveryState::nacked)));
}

TEST_CASE("a back-off counts from when the nack was seen, also where that was long after the tick began") {
  static std::uint64_t clock_ns;  // of an exchange that stood still between both for 70 ms
  World world;
  world.x->set_retry_clock([] { return clock_ns; });
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  publisher.publish("a", "late");
  world.run();
  Seen seen;
  REQUIRE(member.take(seen));
  member.verdict(seen.entry, ring::Verdict::nack);
  clock_ns = world.now_ns + 70 * ms;
  world.tick(0);
  world.tick(169 * ms);
  CHECK_FALSE(member.take(seen));
  world.tick(1 * ms);
  REQUIRE(member.take(seen));
  CHECK(seen.attempt == 2);
}

TEST_CASE("a poison event among 10,000 good ones charges none of them") {
  World world;
  SubscriptionOptions options = exact();
  options.backoff_initial = options.backoff_max = std::chrono::milliseconds(10);
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher("", 4 << 20);
  for (int i = 0; i < 10'000; ++i) publisher.add("a", i == 5'000 ? "poison" : "good");
  publisher.commit();
  std::uint64_t good = 0;
  std::uint64_t poison = 0;
  for (int round = 0; round < 400; ++round) {
    world.tick();
    Seen seen;
    while (member.take(seen)) {
      if (seen.payload == "poison") {
        ++poison;
        member.verdict(seen.entry, ring::Verdict::nack);
      } else {
        ++good;
        CHECK(seen.attempt == 1);
        member.verdict(seen.entry, ring::Verdict::ack);
      }
    }
  }
  CHECK(poison == 5);
  CHECK(good == 9'999);
  const auto row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 9'999);
  CHECK(row["dlq_size"] == 1);
  CHECK(row["committed"] == 10'000);
}

TEST_CASE("an ack after the time-out completes the event as long as it waits (F29)") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  for (int i = 0; i < 2; ++i) publisher.publish("a", "x");
  world.run();
  Seen first;
  Seen second;
  REQUIRE(member.take(first));
  REQUIRE(member.take(second));
  for (int i = 0; i < 14; ++i) world.tick();
  auto row = row_of(world.stat(), "s");
  CHECK(row["timed_out"] == 2);
  CHECK(row["retry_waiting"] == 2);
  CHECK(row["committed"] == 0);
  SUBCASE("before a restart") {}
  SUBCASE("after a restart") { world.restart(); }
  member.verdict(first.entry, ring::Verdict::ack);
  world.tick();
  row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 1);
  CHECK(row["late_acks"] == 1);
  CHECK(row["retry_waiting"] == 1);
  CHECK(row["committed"] == 1);
  for (int i = 0; i < 40; ++i) world.tick();
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(seen.delivery == second.delivery);
  CHECK(seen.attempt == 2);
  member.verdict(second.entry, ring::Verdict::ack);  // too late: the copy is out; it only lets go of the view
  member.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  CHECK_FALSE(member.take(seen));
  row = row_of(world.stat(), "s");
  CHECK(row["acked"] == 2);
  CHECK(row["late_acks"] == 2);
  CHECK(row["lag"] == 0);
}

TEST_CASE("a late ack out of order is counted once, in the files too, and after a restart") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  for (int i = 0; i < 2; ++i) publisher.publish("a", "x");
  world.run();
  Seen first;
  Seen second;
  REQUIRE(member.take(first));
  REQUIRE(member.take(second));
  for (int i = 0; i < 14; ++i) world.tick();
  member.verdict(second.entry, ring::Verdict::ack);  // the view of the first one holds the floor
  world.tick();
  CHECK(row_of(world.stat(), "s")["late_acks"] == 1);
  CHECK(row_of(exchange::stat_document(*world.directory, "test"), "s")["late_acks"] == 1);
  world.restart();
  world.tick();
  CHECK(row_of(world.stat(), "s")["late_acks"] == 1);
  member.verdict(first.entry, ring::Verdict::ack);
  world.tick();
  CHECK(row_of(world.stat(), "s")["late_acks"] == 2);
}

TEST_CASE("attempts and due times outlive the exchange (F32)") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  publisher.publish("a", "x");
  world.run();
  for (std::uint32_t attempt = 1; attempt <= 5; ++attempt) {
    const std::uint64_t from = world.now_ns;
    Seen seen;
    while (!member.take(seen)) {
      world.restart();
      world.tick(10 * ms);
      REQUIRE(world.now_ns - from < 1'000 * ms);
    }
    CHECK(seen.attempt == attempt);
    if (attempt > 1) CHECK(world.now_ns - from >= 100 * ms);
    member.verdict(seen.entry, ring::Verdict::nack);
    world.tick(0);
  }
  world.restart();
  CHECK(dead_letters(world, "s").size() == 1);
  CHECK(row_of(world.stat(), "s")["dlq_size"] == 1);
}

TEST_CASE("a herd of failures does not come back all at once; nack(0) does (F37)") {
  World world;
  SubscriptionOptions options = exact();
  options.jitter = 0.5;
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 200; ++i) publisher.publish("a", "x");
  world.run();
  Seen seen;
  while (member.take(seen)) member.verdict(seen.entry, ring::Verdict::nack);
  world.tick(0);
  std::set<std::uint64_t> times;
  std::uint64_t count = 0;
  const std::uint64_t from = world.now_ns;
  while (count < 200) {
    world.tick(1 * ms);
    REQUIRE(world.now_ns - from <= 151 * ms);
    while (member.take(seen)) {
      CHECK(world.now_ns - from >= 50 * ms);
      times.insert(world.now_ns);
      ++count;
      member.verdict(seen.entry, ring::Verdict::ack);
    }
  }
  CHECK(times.size() > 50);
}

TEST_CASE("retries wait while nobody is there, and space is given back in the end") {
  World world;
  SubscriptionOptions options = exact();
  auto member = std::make_unique<CoreMember>(world.member("s", {"#"}, options));
  auto publisher = world.publisher("", 4 << 20);
  std::uint64_t acked = 0;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 300; ++i) publisher.add("a", std::string(1'000, 'x'));
    publisher.commit();
    world.tick();
    Seen seen;
    while (member->take(seen)) {
      member->verdict(seen.entry, seen.attempt == 1 ? ring::Verdict::nack : ring::Verdict::ack);
      acked += seen.attempt != 1 ? 1 : 0;
    }
  }
  world.x->detach_member(world.x->find_queue("s")->lane);
  for (int i = 0; i < 100; ++i) world.tick();
  auto row = row_of(world.stat(), "s");
  CHECK(row["retry_waiting"] == 0);
  CHECK(row["queued"] == 9'000 - acked);
  options.patterns.clear();
  auto next = world.member("s", {}, options);
  for (int i = 0; i < 200; ++i) {
    world.tick();
    Seen seen;
    while (next.take(seen)) next.verdict(seen.entry, ring::Verdict::ack);
  }
  CHECK(row_of(world.stat(), "s")["acked"] == 9'000);
  CHECK(world.x->find_queue("s")->retry.file_bytes() == 0);
}

TEST_CASE("a nack may name its delay, a reject its reason") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  for (int i = 0; i < 2; ++i) publisher.publish("a", "x");
  world.run();
  Seen later;
  Seen never;
  REQUIRE(member.take(later));
  REQUIRE(member.take(never));
  member.nack(later.entry, 1'000);
  member.reject(never.entry, "no such order");
  world.tick(0);
  const std::uint64_t from = world.now_ns;
  const std::vector<Dead> dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].reason == "rejected: no such order");
  Seen seen;
  while (!member.take(seen)) {
    world.tick();
    REQUIRE(world.now_ns - from <= 1'005 * ms);
  }
  CHECK(world.now_ns - from >= 1'000 * ms);
  CHECK(seen.delivery == 1);
  CHECK(world.x->requeue_dead(*world.x->find_queue("s"), {.reason = "rejected"}, world.now_ns).done == 1);
}

TEST_CASE("an extension keeps one delivery from timing out, as often as it is given; not its neighbour") {
  World world;
  auto member = world.member("s", {"#"}, exact());  // time-out: 50 ms
  auto publisher = world.publisher();
  for (int i = 0; i < 2; ++i) publisher.publish("a", "x");
  world.run();
  Seen extended;
  Seen neighbour;
  REQUIRE(member.take(extended));
  REQUIRE(member.take(neighbour));
  for (int i = 0; i < 40; ++i) {
    if (i % 10 == 0) CHECK(member.extend(extended.entry, 100));
    world.tick();
  }
  auto row = row_of(world.stat(), "s");
  CHECK(row["timed_out"] == 1);
  CHECK(row["in_flight"].get<std::uint64_t>() + row["retry_waiting"].get<std::uint64_t>() +
            row["queued"].get<std::uint64_t>() ==
        2);
  for (int i = 0; i < 22; ++i) world.tick();  // the last extension ends
  CHECK(row_of(world.stat(), "s")["timed_out"] >= 2);
  member.verdict(extended.entry, ring::Verdict::ack);  // late, and it counts: the retry waits for its back-off
  world.tick();
  CHECK(row_of(world.stat(), "s")["acked"] == 1);
}

TEST_CASE("an exchange that could not run for an hour lets nothing time out for it (F17)") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto publisher = world.publisher();
  publisher.publish("a", "x");
  world.run();
  Seen seen;
  REQUIRE(member.take(seen));
  for (int i = 0; i < 5; ++i) world.tick();
  world.tick(3'600'000 * ms);
  CHECK(row_of(world.stat(), "s")["timed_out"] == 0);
  member.verdict(seen.entry, ring::Verdict::ack);
  world.tick();
  CHECK(row_of(world.stat(), "s")["acked"] == 1);
}

TEST_CASE("an ack behind thousands of nacks is seen before anything times out") {
  World world;
  SubscriptionOptions options = exact();
  options.backoff_initial = options.backoff_max = Nanoseconds(0);
  options.ack_timeout = std::chrono::milliseconds(10);
  options.max_deliveries = 1'000;
  auto member = world.member("s", {"#"}, options);
  auto publisher = world.publisher("", 4 << 20);
  for (int i = 0; i < 5'000; ++i) publisher.add("a", "x");
  publisher.commit();
  world.run();
  std::vector<Seen> taken;
  for (Seen seen; member.take(seen);) taken.push_back(seen);
  REQUIRE(taken.size() == 5'000);
  world.tick();
  for (std::size_t i = 0; i < taken.size(); ++i) {
    member.verdict(taken[i].entry, i < 4'000 ? ring::Verdict::nack : ring::Verdict::ack);
  }
  for (int i = 0; i < 10; ++i) world.tick();
  const auto row = row_of(world.stat(), "s");
  CHECK(row["timed_out"] == 0);
  CHECK(row["nacked"] == 4'000);
  CHECK(row["acked"] == 1'000);
}

TEST_CASE(
    "a member that goes right after thousands of verdicts: each of them counts, for none was its death the cause") {
  for (const bool rejects : {false, true}) {
    CAPTURE(rejects);
    World world;
    constexpr std::uint64_t count = 3'000;  // more than one sweep carries out
    SubscriptionOptions options = exact();
    options.ack_timeout = std::chrono::seconds(10);
    auto member = world.member("s", {"#"}, options);
    auto publisher = world.publisher("", 1 << 20);
    for (std::uint64_t i = 0; i < count; ++i) publisher.add("a", "x");
    publisher.commit();
    world.run();
    Seen seen;
    for (std::uint64_t i = 0; i < count; ++i) {
      REQUIRE(member.take(seen));
      CHECK((rejects ? member.reject(seen.entry, "no") : member.nack(seen.entry, 60'000)));
    }
    world.x->detach_members(*world.x->find_queue("s"), [](const exchange::Lane&) { return true; });
    const auto row = row_of(world.stat(), "s");
    CHECK(row["redelivered"] == 0);
    CHECK(row[rejects ? "rejected" : "nacked"] == count);
    CHECK(row[rejects ? "dlq_size" : "retry_waiting"] == count);
  }
}
