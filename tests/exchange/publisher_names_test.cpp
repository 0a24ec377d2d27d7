// Whose numbers a publisher goes on with.
#include <string>

#include "ackring/error.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("a named publisher never gets the slot of an anonymous one, nor its numbers, whatever its name") {
  World world;
  auto member = world.member("s", {"b"});
  for (const std::string prefix : {"p", "@", ""}) {
    auto anonymous = world.publisher("", 4096);
    anonymous.publish("a", "1");
    world.tick();
    world.x->detach_publisher(*world.x->find_publisher(anonymous.slot(), anonymous.incarnation()));
    world.tick();
    const std::string name = prefix + std::to_string(anonymous.slot());
    if (prefix == "@") {
      CHECK_THROWS_AS(world.publisher(name), Error);
      continue;
    }
    auto named = world.publisher(name);
    CHECK(named.slot() != anonymous.slot());
    named.publish("b", "1");
    world.tick();
    Seen seen;
    REQUIRE(member.take(seen));
    CHECK(seen.sequence == 1);
  }
}
