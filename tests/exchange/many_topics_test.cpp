// Publishers of so many topics that the exchange looks ahead for their routes (route_scout.hpp).
#include <set>

#include "lib/exchange/route_scout.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr int topics = 4 * exchange::RouteScout::many_topics;

std::string topic(int i) { return (i % 2 == 0 ? "even." : "odd.") + std::to_string(i); }

void publish_all(World& world, CorePublisher& publisher, const std::function<int(int)>& which) {
  for (int i = 0; i < topics; ++i) {
    const std::string name = topic(which(i));
    while (!publisher.add(name, name)) {
      publisher.commit();
      world.run();
    }
  }
  publisher.commit();
  world.run();
}

std::multiset<std::string> taken(World& world, CoreMember& member) {
  std::multiset<std::string> payloads;
  Seen seen;
  while (member.take(seen)) {
    payloads.insert(seen.payload);
    member.ack_through(seen.entry);
    world.run();
  }
  return payloads;
}

std::multiset<std::string> all_of(const std::string& prefix) {
  std::multiset<std::string> payloads;
  for (int i = 0; i < topics; ++i) {
    if (topic(i).starts_with(prefix)) payloads.insert(topic(i));
  }
  return payloads;
}

}  // namespace

TEST_CASE("events of thousands of topics go where each belongs, in any order, over many laps of the ring") {
  World world;
  auto all = world.member("all", {"#"});
  auto even = world.member("even", {"even.*"});
  auto publisher = world.publisher("", 16 << 10);
  for (int round = 0; round < 3; ++round) {
    publish_all(world, publisher, [round](int i) { return i * (2 * round + 1) % topics; });
    CHECK(taken(world, all) == all_of(""));
    CHECK(taken(world, even) == all_of("even."));
  }
  // A new subscription makes every route old, also those that were asked for a moment before.
  auto odd = world.member("odd", {"odd.#"});
  publish_all(world, publisher, [](int i) { return topics - 1 - i; });
  CHECK(taken(world, all) == all_of(""));
  CHECK(taken(world, even) == all_of("even."));
  CHECK(taken(world, odd) == all_of("odd."));
  CHECK(world.stat()["publishers"][0]["unroutable"] == 0);
}

TEST_CASE("what a publisher of many topics breaks behind its next events costs none of them") {
  for (const std::uint32_t bytes : {0u, 8u, 47u, 1u << 20, ~0u}) {
    CAPTURE(bytes);
    World world;
    auto all = world.member("all", {"#"});
    auto publisher = world.publisher();
    publish_all(world, publisher, [](int i) { return i; });
    CHECK(taken(world, all) == all_of(""));
    auto ring = shm::Segment::attach(*world.directory,
                                     exchange::Exchange::ingress_name(publisher.slot(), publisher.incarnation()),
                                     shm::SegmentKind::ingress_ring, shm::Access::read_write);
    auto* page = ring.as<shm::IngressRing>();
    for (int i = 0; i < 5; ++i) REQUIRE(publisher.add(topic(i), topic(i)));
    publisher.commit();
    const std::uint64_t broken = page->tail.load(std::memory_order_relaxed);
    for (int i = 5; i < 9; ++i) REQUIRE(publisher.add(topic(i), topic(i)));
    std::memcpy(ring.data() + shm::page_bytes + (broken & (page->ring_bytes - 1)), &bytes, sizeof bytes);
    publisher.commit();
    world.run();
    CHECK(taken(world, all) == std::multiset<std::string>{topic(0), topic(1), topic(2), topic(3), topic(4)});
    CHECK(world.x->find_publisher(publisher.slot(), publisher.incarnation())->quarantined);
  }
}
