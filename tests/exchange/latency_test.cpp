// Latencies: what members measure is added up exactly once, however they go and however often the exchange dies.
#include "lib/exchange/latency.hpp"

#include "ackring/error.hpp"
#include "lib/client/latency_writer.hpp"
#include "tests/exchange/group_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

void measure(CoreMember& member, std::uint64_t ns, std::uint64_t weight) {
  client::add_latency(member.latency().take, ns, weight);
  client::add_latency(member.latency().ack, 2 * ns, weight);
}

// Events that were measured, members that are there and those that are gone.
std::uint64_t counted(World& world, const std::string& name) {
  const auto row = row_of(world.stat(), name);
  const auto of_files = row_of(exchange::stat_document(*world.directory, "test"), name);
  CHECK(row["publish_to_take"] == of_files["publish_to_take"]);
  CHECK(row["publish_to_take"]["count"] == row["publish_to_ack"]["count"]);
  CHECK(row["publish_to_ack"]["sum_ns"] == 2 * row["publish_to_take"]["sum_ns"].get<std::uint64_t>());
  return row["publish_to_take"]["count"];
}

}  // namespace

TEST_CASE("latencies of a member that leaves stay with its subscription; those of the next one are added") {
  World world;
  std::uint64_t all = 0;
  for (std::uint64_t life = 1; life <= 3; ++life) {
    auto member = world.member("s", {"#"}, exact());
    measure(member, 1000 * life, life);
    all += life;
    CHECK(counted(world, "s") == all);
    world.x->detach_member(world.x->find_queue("s")->lane);
    CHECK(counted(world, "s") == all);
    world.restart();
    CHECK(counted(world, "s") == all);
  }
  const auto row = row_of(world.stat(), "s")["publish_to_take"];
  CHECK(row["sum_ns"] == 1000 + 2 * 2000 + 3 * 3000);
  CHECK(row["max_ns"] == 3000);
}

TEST_CASE(
    "the exchange dies when it has added a member's latencies, and others of the group go first: they count once") {
  for (const int order : {0, 1}) {
    CAPTURE(order);
    World world;
    auto first = world.member("g", {"#"}, group());
    auto second = world.member("g", {"#"}, group());
    measure(first, 1000, 5);
    measure(second, 3000, 7);
    publish(world, 6);
    CoreMember& leaving = order == 0 ? first : second;
    CoreMember& other = order == 0 ? second : first;
    // As far as a member that leaves with everything settled may have come.
    for (const Seen& seen : take_all(leaving)) leaving.verdict(seen.entry, ring::Verdict::ack);
    world.tick();
    exchange::keep_latency(*world.x->find_queue("g"), lane_of(world, leaving));
    CHECK(row_of(exchange::stat_document(*world.directory, "test"), "g")["publish_to_take"]["count"] == 12);
    world.restart();
    CHECK(counted(world, "g") == 12);
    world.x->detach_member(lane_of(world, other));
    world.tick();
    CHECK(counted(world, "g") == 12);
    world.x->detach_members(*world.x->find_queue("g"), [](const exchange::Lane&) { return true; });
    CHECK(counted(world, "g") == 12);
    world.restart();
    CHECK(counted(world, "g") == 12);
  }
}

TEST_CASE("what an ephemeral subscription's member has measured goes with it") {
  World world;
  auto member = world.member("", {"#"}, exact());
  measure(member, 1000, 1);
  world.x->detach_members(*world.x->queues()[0], [](const exchange::Lane&) { return true; });
  world.tick();
  CHECK(world.stat()["subscriptions"].empty());
}

TEST_CASE("garbage in a member's latencies harms nobody: they are numbers, nothing more") {
  World world;
  auto member = world.member("s", {"#"}, exact());
  auto other = world.member("t", {"#"}, exact());
  measure(other, 1000, 3);
  std::memset(static_cast<void*>(&member.latency()), 0xff, sizeof(shm::MemberLatency));
  member.page()->breaker.store(77, std::memory_order_relaxed);
  member.page()->breaker_failures.store(~0u, std::memory_order_relaxed);
  const auto row = row_of(world.stat(), "s");
  CHECK(row["consumers"][0]["breaker"] == "none");
  CHECK(row["breaker"]["state"] == "none");
  CHECK(row["publish_to_take"]["max_ns"] == ~std::uint64_t{0});
  world.x->detach_member(world.x->find_queue("s")->lane);
  world.restart();
  (void)world.stat();
  CHECK(row_of(world.stat(), "t")["publish_to_take"]["count"] == 3);
  CHECK(world.x->report().empty());
}

TEST_CASE("an order to the breakers reaches members that are there, those to come, and stays over a restart") {
  World world;
  auto first = world.member("g", {"#"}, group());
  exchange::order_breakers(*world.x->find_queue("g"), exchange::order_named("open"));
  auto second = world.member("g", {"#"}, group());
  const auto order_of = [&](const CoreMember& member) {
    return lane_of(world, member).ring_page->breaker_order.load(std::memory_order_relaxed);
  };
  const auto open = static_cast<std::uint32_t>(shm::BreakerOrder::open);
  CHECK(order_of(first) == open);
  CHECK(order_of(second) == open);
  CHECK(row_of(world.stat(), "g")["breaker"]["order"] == "open");
  world.restart();
  CHECK(order_of(second) == open);
  auto third = world.member("g", {"#"}, group());
  CHECK(order_of(third) == open);
  // Dead before all of them were told: the next exchange tells them.
  lane_of(world, first).ring_page->breaker_order.store(0, std::memory_order_relaxed);
  world.restart();
  CHECK(order_of(first) == open);
  exchange::order_breakers(*world.x->find_queue("g"), exchange::order_named("auto"));
  CHECK(order_of(third) == 0);
  CHECK(row_of(world.stat(), "g")["breaker"]["order"] == "auto");
  CHECK_THROWS_AS((void)exchange::order_named("ajar"), Error);
}
