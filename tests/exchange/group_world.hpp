// What tests of groups share.
#pragma once

#include <string>
#include <vector>

#include "tests/exchange/retry_world.hpp"

namespace ackring::test {

inline SubscriptionOptions group(std::uint32_t credit = 8) {
  SubscriptionOptions options = exact();
  options.group = true;
  options.max_in_flight = credit;
  options.ring_bytes = 16 << 10;
  return options;
}

inline void publish(World& world, int events) {
  auto publisher = world.publisher();
  for (int i = 0; i < events; ++i) publisher.add("a", std::to_string(i));
  publisher.commit();
  world.tick();
}

inline std::vector<Seen> take_all(CoreMember& member) {
  std::vector<Seen> all;
  for (Seen seen; member.take(seen);) all.push_back(seen);
  return all;
}

inline exchange::Lane& lane_of(World& world, const CoreMember& member) {
  return *world.x->find_queue(member.name)->find_lane(member.ring);
}

}  // namespace ackring::test
