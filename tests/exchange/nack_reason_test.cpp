// A nack with a reason: whom it is for, how long it is kept, and that it is a nack all the same.
#include "tests/exchange/retry_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

void publish(World& world, int events) {
  auto publisher = world.publisher();
  for (int i = 0; i < events; ++i) publisher.add("a", std::to_string(i));
  publisher.commit();
  world.tick();
}

SubscriptionOptions one_attempt() {
  SubscriptionOptions options = exact();
  options.max_deliveries = 1;
  options.ack_timeout = std::chrono::seconds(100);
  return options;
}

// What nacks with these reasons, of a last attempt each, leave in the dead letters.
std::vector<std::string> reasons_of_dead(const std::vector<std::string>& given) {
  World world;
  auto member = world.member("s", {"#"}, one_attempt());
  publish(world, static_cast<int>(given.size()));
  Seen seen;
  for (const std::string& reason : given) {
    REQUIRE(member.take(seen));
    CHECK(member.nack(seen.entry, reason));
    CHECK_FALSE(member.give_back(seen.entry));
  }
  world.tick();
  CHECK(row_of(world.stat(), "s")["nacked"] == given.size());
  std::vector<std::string> kept;
  for (const Dead& dead : dead_letters(world, "s")) {
    CHECK(dead.causes == std::vector<std::uint32_t>{static_cast<std::uint32_t>(shm::DeliveryState::nacked)});
    kept.push_back(dead.reason);
  }
  return kept;
}

std::vector<std::string> last_errors(World& world) {
  const auto row = row_of(world.stat(), "s");
  REQUIRE(row["consumers"].size() == 1);
  return row["consumers"][0].value("last_errors", std::vector<std::string>());
}

}  // namespace

TEST_CASE("the reason of a last attempt's nack is in its dead letter, printable, at most 119 bytes of it") {
  const std::string long_one(119, 'x');
  CHECK(reasons_of_dead({"out of disk", "", "a\nb", long_one, long_one + "y"}) ==
        std::vector<std::string>{"max_deliveries: out of disk", "max_deliveries", "max_deliveries: a?b",
                                 "max_deliveries: " + long_one, "max_deliveries: " + long_one});
  // Cut between two characters, not within one.
  CHECK(reasons_of_dead({std::string(118, 'x') + "\xc3\xa4"})[0] == "max_deliveries: " + std::string(118, 'x'));
}

TEST_CASE("64 reasons are kept between two looks; of more, the first lose theirs and are nacks all the same") {
  std::vector<std::string> given;
  for (int i = 0; i < 70; ++i) given.push_back("reason " + std::to_string(i));
  const std::vector<std::string> kept = reasons_of_dead(given);
  REQUIRE(kept.size() == 70);
  for (std::size_t i = 0; i < 70; ++i) CHECK(kept[i] == (i < 6 ? "max_deliveries" : "max_deliveries: " + given[i]));
}

TEST_CASE("only the last attempt's reason counts, and only that of a nack") {
  World world;
  SubscriptionOptions options = exact();
  options.max_deliveries = 2;
  options.backoff_initial = options.backoff_max = std::chrono::milliseconds(0);
  auto member = world.member("s", {"#"}, options);
  publish(world, 3);
  Seen seen;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(member.take(seen));
    CHECK(member.nack(seen.entry, "first"));
  }
  world.tick();
  CHECK(row_of(world.stat(), "s")["dlq_size"] == 0);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(member.take(seen));
    if (i == 0) CHECK(member.verdict(seen.entry, ring::Verdict::nack));
    if (i == 1) CHECK(member.nack(seen.entry, "second"));
  }
  for (int i = 0; i < 20; ++i) world.tick();  // the third one times out
  const std::vector<Dead> dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 3);
  CHECK(dead[0].reason == "max_deliveries");
  CHECK(dead[1].reason == "max_deliveries: second");
  CHECK(dead[2].reason == "max_deliveries");
  CHECK(row_of(world.stat(), "s")["timed_out"] == 1);
}

TEST_CASE("a nack with a reason waits as long as the back-off says") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  publish(world, 1);
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(member.nack(seen.entry, "later"));
  const std::uint64_t from = world.now_ns;
  while (!member.take(seen)) world.tick(1 * ms);
  CHECK(world.now_ns - from >= 100 * ms);
  CHECK(world.now_ns - from <= 102 * ms);
  CHECK(seen.attempt == 2);
}

TEST_CASE("a nack with a reason by one who leaves at once keeps it") {
  World world;
  auto member = world.member("s", {"#"}, one_attempt());
  publish(world, 1);
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(member.nack(seen.entry, "goodbye"));
  world.x->detach_member(world.x->find_queue("s")->lane);
  const std::vector<Dead> dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].reason == "max_deliveries: goodbye");
}

TEST_CASE("dead letters of max_deliveries are found by that word, whatever reason comes behind it") {
  World world;
  auto member = world.member("s", {"#"}, one_attempt());
  publish(world, 3);
  Seen seen;
  for (const char* reason : {"broken", "", "max"}) {
    REQUIRE(member.take(seen));
    reason[0] == 'm' ? member.reject(seen.entry, reason) : member.nack(seen.entry, std::string(reason));
  }
  world.tick();
  exchange::Queue& queue = *world.x->find_queue("s");
  CHECK(world.x->requeue_dead(queue, {.reason = "max_deliver"}, world.now_ns).done == 0);
  CHECK(world.x->requeue_dead(queue, {.reason = "max_deliveries: broken"}, world.now_ns).done == 1);
  CHECK(world.x->requeue_dead(queue, {.reason = "max_deliveries"}, world.now_ns).done == 1);
  CHECK(row_of(world.stat(), "s")["dlq_size"] == 1);
}

TEST_CASE("stat shows the last five reasons of a member that is there, the latest first") {
  World world;
  SubscriptionOptions options = one_attempt();
  options.max_deliveries = 10;
  auto member = world.member("s", {"#"}, options);
  publish(world, 100);
  CHECK(last_errors(world).empty());
  Seen seen;
  for (int i = 0; i < 70; ++i) {
    REQUIRE(member.take(seen));
    const std::string reason = "r" + std::to_string(i);
    CHECK((i % 2 == 0 ? member.nack(seen.entry, reason) : member.reject(seen.entry, reason)));
    if (i == 1) CHECK(last_errors(world) == std::vector<std::string>{"r1", "r0"});
  }
  CHECK(last_errors(world) == std::vector<std::string>{"r69", "r68", "r67", "r66", "r65"});
  REQUIRE(member.take(seen));
  CHECK(member.nack(seen.entry, std::string()));  // no reason, no line
  CHECK(last_errors(world)[0] == "r69");
}

TEST_CASE("a forged word of a nack names no reason that is not its own") {
  World world;
  auto member = world.member("s", {"#"}, one_attempt());
  publish(world, 4);
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(member.nack(seen.entry, "mine"));  // in slot 1
  for (const std::uint32_t where : {1u, 65u, ring::delay_default}) {
    REQUIRE(member.take(seen));
    CHECK(member.forge(seen.entry, ring::Verdict::nack_reason, where));
  }
  world.tick();
  const std::vector<Dead> dead = dead_letters(world, "s");
  REQUIRE(dead.size() == 4);
  CHECK(dead[0].reason == "max_deliveries: mine");
  for (std::size_t i = 1; i < 4; ++i) CHECK(dead[i].reason == "max_deliveries");
}
