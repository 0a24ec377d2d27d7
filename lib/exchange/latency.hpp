// Latency: what members measure of their deliveries, while they are there and when they have gone.
//
// Thread rules: plain functions; keep_latency() and order_breakers() on the thread of the queue's shard.
#pragma once

#include <string_view>

#include "lib/exchange/queue.hpp"
#include "lib/shm/latency.hpp"

namespace ackring::exchange {

/// Adds what the lane's member has measured to what its subscription keeps. Once per ack page, also where X dies in it:
/// until another member's is added, the subscription names the page, and recovery lets nobody go before the member that
/// kept_of() finds has gone.
void keep_latency(Queue& queue, const Lane& lane);

/// The lane of a member whose latencies were added when X died; it has nothing left but to go. nullptr: there is none.
[[nodiscard]] Lane* kept_of(Queue& queue);

/// What the subscription keeps.
[[nodiscard]] shm::LatencyBlock kept_latency(const shm::SubscriptionSegment& state);

/// Adds what a member that is there has measured so far.
void add_latency(shm::LatencyBlock& block, const ring::AckReader& member);

/// open, closed or auto. Throws Error (invalid_argument).
[[nodiscard]] shm::BreakerOrder order_named(std::string_view name);

/// Tells the members that are there, and those to come, what their circuit breakers shall do.
void order_breakers(Queue& queue, shm::BreakerOrder order);

}  // namespace ackring::exchange
