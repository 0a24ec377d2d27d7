#include "lib/exchange/snapshot_members.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "lib/exchange/latency.hpp"

namespace ackring::exchange {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::size_t shown_errors = 5;  // of a member
constexpr const char* dead_reason_names[] = {"max_deliveries", "rejected", "expired", "overflow", "removed"};

const char* name_of(shm::BreakerState state) noexcept {
  switch (state) {
    case shm::BreakerState::closed:
      return "closed";
    case shm::BreakerState::half_open:
      return "half-open";
    case shm::BreakerState::open:
      return "open";
    case shm::BreakerState::none:
      break;
  }
  return "none";
}

const char* name_of(shm::BreakerOrder order) noexcept {
  switch (order) {
    case shm::BreakerOrder::open:
      return "open";
    case shm::BreakerOrder::closed:
      return "closed";
    case shm::BreakerOrder::none:
      break;
  }
  return "auto";
}

struct Breaker {
  shm::BreakerState state = shm::BreakerState::none;
  std::uint32_t failures = 0;
  std::uint64_t since_ns = 0;
  std::uint64_t opened = 0;
};

// As the member says: any value is possible, and those that mean nothing count as none.
Breaker breaker_of(const shm::AckPage& page) noexcept {
  // relaxed, to the end: notices of another process
  Breaker breaker;
  const std::uint32_t state = page.breaker.load(std::memory_order_relaxed);
  if (state <= static_cast<std::uint32_t>(shm::BreakerState::open)) {
    breaker.state = static_cast<shm::BreakerState>(state);
  }
  breaker.failures = page.breaker_failures.load(std::memory_order_relaxed);
  breaker.since_ns = page.breaker_since_ns.load(std::memory_order_relaxed);
  breaker.opened = page.breaker_opened.load(std::memory_order_relaxed);
  return breaker;
}

// One bucket per power of two, from 256 ns on: [end in ns, events below it, those of the buckets before included].
Json latency_part(const shm::LatencyCounts& counts) {
  Json buckets = Json::array();
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < shm::latency_buckets; ++i) {
    below += counts.counts[i];
    const std::uint64_t end = shm::latency_floor(i + 1);
    if ((end & (end - 1)) == 0 && end >= 256) buckets.push_back({end, below});
  }
  return {{"count", shm::count_of(counts)},
          {"sum_ns", counts.sum_ns},
          {"p50_ns", shm::quantile(counts, 0.5)},
          {"p90_ns", shm::quantile(counts, 0.9)},
          {"p99_ns", shm::quantile(counts, 0.99)},
          {"p999_ns", shm::quantile(counts, 0.999)},
          {"max_ns", counts.max_ns},
          {"buckets", std::move(buckets)}};
}

}  // namespace

shm::BreakerOrder breaker_order_of(const shm::SubscriptionSegment& state) noexcept {
  // relaxed: a word by itself
  const std::uint32_t order = state.breaker_order.load(std::memory_order_relaxed);
  return order <= static_cast<std::uint32_t>(shm::BreakerOrder::closed) ? static_cast<shm::BreakerOrder>(order)
                                                                        : shm::BreakerOrder::none;
}

Json members_part(const SubscriptionView& view) {
  Breaker worst;  // of the members: open before half-open before closed
  std::uint64_t opened = 0;
  Json consumers = Json::array();
  shm::LatencyBlock latency = view.latency;
  for (const LaneView& lane : view.lanes) {
    if (!lane.acks.valid()) continue;
    // relaxed: X is between stores, or dead. Of a member that was leaving it may have been added already.
    const bool kept = lane.ring->ack_page.load(std::memory_order_relaxed) == view.latency.ack_page;
    if (!kept) add_latency(latency, lane.acks);
    const Breaker breaker = breaker_of(*lane.acks.page());
    if (breaker.state > worst.state) worst = breaker;
    opened += breaker.opened;
    Json consumer = {{"client", lane.client},
                     {"number", lane.ring->number},
                     {"entries", lane.entries - lane.ring_block.floor_entry},
                     {"breaker", name_of(breaker.state)}};
    if (std::vector<std::string> errors = lane.acks.last_reasons(shown_errors); !errors.empty()) {
      consumer["last_errors"] = std::move(errors);
    }
    consumers.push_back(std::move(consumer));
  }
  // Who looks at the files finds the rings in the order of their names.
  std::sort(consumers.begin(), consumers.end(),
            [](const Json& left, const Json& right) { return left["number"] < right["number"]; });
  Json breaker = {{"state", name_of(worst.state)}, {"order", name_of(view.breaker_order)}};
  if (worst.state != shm::BreakerState::none) {
    breaker["since_monotonic_ns"] = worst.since_ns;
    breaker["failures"] = worst.failures;
    breaker["opened"] = opened;
  }
  Json reasons = Json::object();
  for (std::size_t i = 0; i < std::size(dead_reason_names); ++i) {
    if (view.dead_reasons.counts[i] != 0) reasons[dead_reason_names[i]] = view.dead_reasons.counts[i];
  }
  Json part = {{"dead_lettered_by", std::move(reasons)},
               {"ephemeral", view.ephemeral},
               {"breaker", std::move(breaker)},
               {"consumers", std::move(consumers)}};
  if (shm::count_of(latency.take) != 0) part["publish_to_take"] = latency_part(latency.take);
  if (shm::count_of(latency.ack) != 0) part["publish_to_ack"] = latency_part(latency.ack);
  return part;
}

}  // namespace ackring::exchange
