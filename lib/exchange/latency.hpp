// Latency: what members measure of their deliveries, while they are there and when they have gone.
//
// Thread rules: plain functions; keep_latency() and order_breakers() on the thread of the queue's shard.
#pragma once

#include <string_view>

#include "lib/exchange/queue.hpp"
#include "lib/shm/latency.hpp"

namespace ackring::exchange {

/// Adds what the lane's member has measured to what its subscription keeps, which names the member's ack page from then on.
/// Once per page, also where X dies in it: nothing is left to the member but to go, and it goes in the recovery, before
/// the name is another one's.
void keep_latency(Queue& queue, const Lane& lane);

/// What the subscription keeps.
[[nodiscard]] shm::LatencyBlock kept_latency(const shm::SubscriptionSegment& state);

/// Adds what a member that is there has measured so far.
void add_latency(shm::LatencyBlock& block, const ring::AckReader& member);

/// open, closed or auto. Throws Error (invalid_argument).
[[nodiscard]] shm::BreakerOrder order_named(std::string_view name);

/// Tells the members that are there, and those to come, what their circuit breakers shall do.
void order_breakers(Queue& queue, shm::BreakerOrder order);

}  // namespace ackring::exchange
