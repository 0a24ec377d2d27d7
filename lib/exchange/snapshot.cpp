#include "lib/exchange/snapshot.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/host.hpp"
#include "lib/exchange/latency.hpp"
#include "lib/exchange/snapshot_members.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/utf8.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using Json = nlohmann::ordered_json;
using shm::DeliveryState;

namespace {
std::size_t index(DeliveryState state) { return static_cast<std::size_t>(state); }

}  // namespace

Json publisher_part(const std::string& name, const std::vector<shm::IngressBlock>& blocks, const shm::IngressRing* ring,
                    bool quarantined) {
  const shm::IngressBlock& block = blocks.front();
  const std::uint64_t done = shm::events_of(block);
  std::uint64_t committed = 0;  // as the publisher says
  std::uint64_t back_pressured = 0;
  if (ring != nullptr) {
    committed = ring->events.load(std::memory_order_relaxed);  // relaxed: for people; the publisher writes it
    back_pressured = ring->back_pressured.load(std::memory_order_relaxed);  // relaxed: as above
  }
  const std::uint64_t in_ring = committed > done ? committed - done : 0;
  Json row{{"name", name},
           {"committed", done + in_ring},
           {"routed", block.routed},
           {"unroutable", block.unroutable},
           {"duplicates", block.duplicates},
           {"discarded", block.discarded},
           {"denied", block.denied},
           {"in_ring", in_ring},
           {"back_pressured", back_pressured},
           {"quarantined", quarantined}};
  if (blocks.size() == 1) return row;
  for (const shm::IngressBlock& of_shard : blocks) {  // events that it has not come by yet
    const std::uint64_t passed = shm::events_of(of_shard);
    row["behind"].push_back(done + in_ring > passed ? done + in_ring - passed : 0);
  }
  return row;
}

Json exchange_part(const shm::ExchangeSegment& page, const char* state) {
  // relaxed: all of these are notices for people
  const std::uint64_t started = page.started_unix_ns.load(std::memory_order_relaxed);
  const double uptime = static_cast<double>(std::max(unix_now_ns(), started) - started) / 1e9;  // the clock may be set
  const bool alive = std::string_view(state) != "stopped";
  std::size_t shards = 0;
  for (std::size_t shard = 0; shard < shm::max_shards; ++shard) shards += is_shard(page, shard) ? 1 : 0;
  return {{"state", state},
          {"shards", shards},
          {"pid", alive ? page.pid.load(std::memory_order_relaxed) : 0},    // relaxed: as above
          {"generation", page.generation.load(std::memory_order_relaxed)},  // relaxed: as above
          {"uptime_s", alive ? uptime : 0.0}};
}

std::uint64_t unix_now_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
}

namespace {
// Of an entry that is not settled: does it belong to X again?
bool taken_back(const LaneView& lane, std::uint64_t entry) {
  if (static_cast<std::int64_t>(lane.revoked_to - entry) <= 0) return false;
  return static_cast<std::int64_t>(entry - lane.revoked_from) >= 0 ||
         (lane.acks.valid() && lane.acks.verdict(entry) == ring::Verdict::returned);
}
}  // namespace

Json describe(const SubscriptionView& view) {
  const shm::SubscriptionBlock& block = view.block;
  std::array<std::uint64_t, shm::delivery_states> totals = block.totals;
  std::uint64_t queued = block.backlog_events + block.delayed_events;
  std::uint64_t in_flight = 0;
  std::uint64_t delivered = block.delivered;
  std::uint64_t oldest = block.matched + 1;  // smallest delivery number that is not settled
  std::uint64_t oldest_ns = 0;               // when the first of those that were found was published
  const auto unsettled = [&oldest, &oldest_ns](const shm::RecordHeader& record) {
    oldest = std::min(oldest, record.delivery);
    if (oldest_ns == 0 || record.published_ns < oldest_ns) oldest_ns = record.published_ns;
  };
  const bool at_most_once = view.options->guarantee == Guarantee::at_most_once;
  for (const LaneView& lane : view.lanes) {
    for (std::size_t i = 0; i < totals.size(); ++i) totals[i] += lane.ring_block.totals[i];
    delivered += lane.taken - lane.ring->start_entry - lane.ring_block.totals[index(DeliveryState::returned)];
    const std::uint64_t slots = lane.ring->slots;
    const auto* base = reinterpret_cast<const std::byte*>(lane.ring);
    const auto* states = reinterpret_cast<const shm::Word8*>(base + shm::page_bytes);
    const std::byte* data = base + shm::page_bytes + ((slots + shm::page_bytes - 1) & ~(shm::page_bytes - 1));
    RingWalk walk(data, *lane.ring, lane.ring_block.floor_position);
    for (std::uint64_t entry = lane.ring_block.floor_entry; entry != lane.entries; ++entry) {
      const shm::RecordHeader* header = walk.next();
      if (header == nullptr) break;
      std::uint8_t state = states[entry & (slots - 1)].load(std::memory_order_relaxed);  // relaxed: X is between stores
      if (state == 0 && lane.moved_state != 0 && entry == lane.moved_entry) state = lane.moved_state;
      const bool passed = static_cast<std::int64_t>(lane.taken - entry) > 0;
      const bool taken = passed && !taken_back(lane, entry);
      const bool returned = state == 0 ? !taken : (state & shm::state_mask) == index(DeliveryState::returned);
      if (passed && returned) --delivered;
      if (!passed && !returned) ++delivered;  // by a member that is gone
      if (state != 0) {
        ++totals[state & shm::state_mask];
        if ((state & shm::late_ack_bit) != 0) ++totals[index(DeliveryState::late_ack)];
      } else if (taken && at_most_once) {
        ++totals[index(DeliveryState::acked)];
      } else {
        ++(taken ? in_flight : queued);
        unsettled(*header);
      }
    }
  }
  if (block.backlog_events != 0) {
    // First deliveries are in order; redelivered, requeued and delayed ones may stand anywhere, and so may what a member
    // gave back with a delay.
    const bool returned = totals[index(DeliveryState::returned)] != 0;
    view.walk_backlog([&](const shm::RecordHeader& record) {
      unsettled(record);
      return block.redelivered != 0 || block.requeued != 0 || block.backlog_expires != 0 || returned;
    });
  }
  if (block.retry_events != 0) {
    view.walk_retry([&](const shm::RecordHeader& record) {
      const auto* later = ring::parts(reinterpret_cast<const std::byte*>(&record)).later;
      // relaxed: a notice; X is between stores, or dead
      if (later != nullptr && later->state.load(std::memory_order_relaxed) == 0) {
        unsettled(record);
      }
      return true;
    });
  }
  Json dropped = Json::object();
  if (block.dropped_newest != 0) dropped["drop-newest"] = block.dropped_newest;
  if (block.dropped_oldest != 0) dropped["drop-oldest"] = block.dropped_oldest;
  if (block.dropped_too_large != 0) dropped["too-large"] = block.dropped_too_large;
  Json row = {{"name", view.options->name},
              {"patterns", view.options->patterns},
              {"guarantee", control::to_string(view.options->guarantee)},
              {"members", view.members},
              {"shard", view.shard},
              {"paused", view.paused},
              {"matched", block.matched},
              {"delivered", delivered},
              {"acked", totals[index(DeliveryState::acked)]},
              {"nacked", totals[index(DeliveryState::nacked)]},
              {"rejected", totals[index(DeliveryState::rejected)]},
              {"timed_out", totals[index(DeliveryState::timed_out)]},
              {"redelivered", block.redelivered},
              {"requeued", block.requeued},
              {"late_acks", totals[index(DeliveryState::late_ack)]},
              {"invalid_acks", view.invalid_acks},
              {"dead_lettered", block.dead_lettered},
              {"dropped", dropped},
              {"expired", block.expired},
              {"purged", block.purged},
              {"queued", queued},
              {"in_flight", in_flight},
              {"retry_waiting", block.retry_events - block.delayed_events},
              {"dlq_size", block.dead_events},
              {"dlq_removed", block.dead_removed},
              {"last", block.matched},
              {"committed", oldest - 1},
              {"lag", block.matched + 1 - oldest},
              {"backlog_bytes", block.backlog_bytes},
              {"retry_bytes", block.retry_bytes},
              {"dlq_bytes", block.dead_bytes},
              {"oldest_monotonic_ns", oldest_ns}};
  row.update(members_part(view));
  return row;
}

Json stat_document(const Exchange& exchange, const std::string& bus) {
  Json publishers = Json::array();
  for (const auto& ingress : exchange.publishers()) {
    if (!ingress) continue;
    std::vector<shm::IngressBlock> blocks;
    for (const Exchange* shard : exchange.shards()) {
      if (shard != nullptr) blocks.push_back(shard->publishers()[ingress->slot]->block);
    }
    publishers.push_back(publisher_part(ingress->name, blocks, ingress->ring_page, ingress->quarantined));
  }
  std::map<std::string, Json> subscriptions;
  for (const auto& queue : exchange.queues()) {
    if (!queue) continue;
    SubscriptionView view;
    view.options = &queue->options;
    view.paused = queue->paused;
    view.ephemeral = queue->ephemeral;
    view.shard = queue->shard;
    view.block = queue->block;
    view.invalid_acks = queue->state->invalid_acks.load(std::memory_order_relaxed);  // relaxed: X's own word
    view.dead_reasons = queue->dead_reasons;
    view.latency = kept_latency(*queue->state);
    view.breaker_order = breaker_order_of(*queue->state);
    queue->each_lane([&view](const Lane& lane) {
      if (lane.has_ring) {
        view.lanes.push_back({lane.ring_page, lane.ring_block, lane.entries, lane.taken, lane.revoked_from,
                              lane.revoked_to, lane.acks, lane.client, 0, 0});
      }
      view.members += lane.has_member() ? 1 : 0;
    });
    const auto walk = [](const log::SegmentLog& log, std::uint64_t position, const auto& each) {
      while (const shm::RecordHeader* record = log.at(position)) {
        if (!each(*record)) return;
        position = log::SegmentLog::next(position, *record);
      }
    };
    view.walk_backlog = [&](const auto& each) { walk(queue->backlog, queue->block.backlog_head, each); };
    view.walk_retry = [&](const auto& each) { walk(queue->retry, queue->block.retry_head, each); };
    subscriptions[queue->options.name] = describe(view);
  }
  Json rows = Json::array();
  for (auto& [name, row] : subscriptions) rows.push_back(std::move(row));
  return {{"bus", bus},
          {"exchange", exchange_part(const_cast<Exchange&>(exchange).page(), "running")},
          {"publishers", std::move(publishers)},
          {"subscriptions", std::move(rows)}};
}

}  // namespace ackring::exchange
