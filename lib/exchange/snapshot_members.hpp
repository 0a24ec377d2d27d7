// What the row of a subscription says of its members: their circuit breakers, last errors and latencies.
//
// Thread rules: as snapshot.hpp.
#pragma once

#include <cstdint>

#include <nlohmann/json.hpp>

#include "lib/exchange/snapshot.hpp"

namespace ackring::exchange {

/// `breaker`, `consumers`, `publish_to_take` and `publish_to_ack` of the row (docs/metrics.md).
[[nodiscard]] nlohmann::ordered_json members_part(const SubscriptionView& view);

/// What an operator wants of the breakers.
[[nodiscard]] shm::BreakerOrder breaker_order_of(const shm::SubscriptionSegment& state) noexcept;

}  // namespace ackring::exchange
