#include "lib/exchange/latency.hpp"

#include "ackring/error.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

void keep_latency(Queue& queue, const Lane& lane) {
  shm::LatencyBlock block = kept_latency(*queue.state);
  if (block.ack_page == lane.ack_incarnation) return;  // a dead exchange has done it
  add_latency(block, lane.acks);
  block.ack_page = lane.ack_incarnation;
  shm::write_block(queue.state->latency_version, queue.state->latency, block);
}

shm::LatencyBlock kept_latency(const shm::SubscriptionSegment& state) {
  return shm::read_block(state.latency_version, state.latency);
}

void add_latency(shm::LatencyBlock& block, const ring::AckReader& member) {
  const shm::MemberLatency& measured = member.latency();
  shm::accumulate(block.take, measured.take);
  shm::accumulate(block.ack, measured.ack);
}

shm::BreakerOrder order_named(std::string_view name) {
  if (name == "open") return shm::BreakerOrder::open;
  if (name == "closed") return shm::BreakerOrder::closed;
  if (name == "auto") return shm::BreakerOrder::none;
  throw Error(ErrorCode::invalid_argument, "order '" + std::string(name.substr(0, 64)) + "'", "it is none",
              "say open, closed or auto");
}

void order_breakers(Queue& queue, shm::BreakerOrder order) {
  const auto word = static_cast<std::uint32_t>(order);
  // relaxed: a word by itself, which members look at now and then
  queue.state->breaker_order.store(word, std::memory_order_relaxed);
  queue.each_lane([word](Lane& lane) {
    if (lane.has_ring) lane.ring_page->breaker_order.store(word, std::memory_order_relaxed);  // relaxed: as above
  });
}

}  // namespace ackring::exchange
