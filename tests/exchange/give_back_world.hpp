// What tests of deliveries that are given back share.
#pragma once

#include <string>
#include <vector>

#include "lib/exchange/inspect.hpp"
#include "tests/exchange/group_world.hpp"

namespace ackring::test {

inline std::vector<std::uint64_t> range(std::uint64_t from, std::uint64_t through) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = from; i <= through; ++i) numbers.push_back(i);
  return numbers;
}

inline Seen take_one(CoreMember& member) {
  Seen seen;
  REQUIRE(member.take(seen));
  return seen;
}

// Acks what comes until nothing does any more; the numbers in the order in which they came.
inline std::vector<std::uint64_t> drain(World& world, CoreMember& member, std::uint32_t attempt = 1) {
  std::vector<std::uint64_t> got;
  for (int quiet = 0; quiet < 30; ++quiet) {
    for (Seen seen; member.take(seen); quiet = 0) {
      CHECK(seen.attempt == attempt);
      got.push_back(seen.delivery);
      member.verdict(seen.entry, ring::Verdict::ack);
    }
    world.tick();
  }
  return got;
}

// Nothing has happened to these events, as far as counters tell.
inline void check_untouched(const nlohmann::ordered_json& row, std::uint64_t queued, std::uint64_t delivered = 0) {
  INFO(row.dump());
  CHECK(row["queued"] == queued);
  CHECK(row["delivered"] == delivered);
  for (const char* name : {"nacked", "rejected", "timed_out", "redelivered", "requeued", "late_acks", "retry_waiting",
                           "in_flight", "dead_lettered", "expired", "purged"}) {
    CAPTURE(name);
    CHECK(row[name] == 0);
  }
}

inline control::Json explained(World& world, const std::string& name, std::uint64_t delivery) {
  const exchange::Queue& queue = *world.x->find_queue(name);
  exchange::Found found;
  for (int looks = 0; found.where == exchange::Found::Where::nowhere; ++looks) {
    REQUIRE(looks < 1000);
    if (found.next.stage == exchange::InspectCursor::end) return exchange::explain_gone(queue);
    found = exchange::find(queue, {.delivery = delivery}, found.next, {});
  }
  return exchange::explain(queue, found, world.now_ns, world.x->served_at(world.now_ns));
}

inline SubscriptionOptions patient() {
  SubscriptionOptions options = exact();
  options.ack_timeout = std::chrono::seconds(100);
  return options;
}

}  // namespace ackring::test
