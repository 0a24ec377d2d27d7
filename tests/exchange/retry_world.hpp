// What tests of retries and dead letters share: options without chance, and a look at the dead letters.
#pragma once

#include <string>
#include <vector>

#include "tests/exchange/core_world.hpp"

namespace ackring::test {

inline constexpr std::uint64_t ms = 1'000'000;

inline SubscriptionOptions exact() {
  SubscriptionOptions options;
  options.backoff_initial = std::chrono::milliseconds(100);
  options.backoff_max = std::chrono::milliseconds(500);
  options.backoff_multiplier = 2;
  options.jitter = 0;
  options.max_deliveries = 5;
  options.ack_timeout = std::chrono::milliseconds(50);
  return options;
}

struct Dead {
  std::uint64_t delivery;
  std::uint32_t attempt;
  std::string reason;
  std::vector<std::uint32_t> causes;
};

inline std::vector<Dead> dead_letters(World& world, const std::string& name) {
  std::vector<Dead> all;
  exchange::Exchange::walk_dead(*world.x->find_queue(name), {}, [&](std::uint64_t, const ring::EventParts& event) {
    const exchange::Attempt attempt = exchange::attempt_of(event);
    Dead dead{event.header->delivery, attempt.info.attempt, std::string(exchange::reason_of(event)), {}};
    for (std::size_t i = 0; i < attempt.info.history; ++i) dead.causes.push_back(attempt.past[i].cause);
    all.push_back(dead);
    return true;
  });
  return all;
}

}  // namespace ackring::test
