// Pump: moves events from the head of a backlog into a member's ring, as far as there is room.
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

bool Exchange::pump(Queue& queue) {
  if (queue.dispatched()) return dispatch(queue);
  Lane& lane = queue.lane;
  if (!queue.to_backlog || !lane.has_ring || !lane.has_member()) return false;
  settle(lane);
  if (queue.paused) return false;
  if (queue.parked_events != 0) {
    const bool moved = unpark(queue);
    if (queue.parked_events != 0) return moved;
  }
  if (!head_in_time(queue) && queue.block.backlog_events != 0) return false;
  std::uint64_t head = queue.block.backlog_head;
  const shm::RecordHeader* record = queue.backlog.at(head);
  if (record != nullptr && !(lane.has_credit() && lane.ring.fits(record->bytes))) return false;
  if (record != nullptr) pump_into(lane, batch_events);
  if (queue.block.backlog_events == 0) {
    queue.to_backlog = false;
    lane.full_since_ns = 0;
  }
  return true;
}

// One transaction: up to `most` events from the head of the backlog. Answers how many.
std::uint64_t Exchange::pump_into(Lane& lane, std::uint64_t most) {
  Queue& queue = *lane.queue;
  shm::SubscriptionBlock& block = queue.block;
  std::uint64_t head = block.backlog_head;
  const shm::RecordHeader* record = queue.backlog.at(head);
  shm::Environment::at(shm::CrashPoint::backlog_pump);
  begin(shm::TransactionKind::pump, queue.id, block.backlog_head, lane.ring_incarnation);
  touch_ring(lane);
  const bool may_expire = queue.may_expire();
  std::uint64_t events = 0;
  for (std::uint64_t bytes = 0; record != nullptr && events < most && bytes < batch_bytes; ++events) {
    const std::uint32_t size = record->bytes;
    if (!lane.ring.fits(size)) break;
    if (may_expire && expired(queue, ring::parts(reinterpret_cast<const std::byte*>(record)), clock_ns_)) break;
    std::byte* to = place_in_ring(lane, size);
    if (to == nullptr) break;
    shm::shared_copy(to, record, size);
    if (queue.keys) count_slot(queue, *record, +1, 0);
    --block.backlog_events;
    block.backlog_bytes -= size;
    bytes += size;
    head = log::SegmentLog::next(head, *record);
    record = queue.backlog.at(head);
  }
  block.backlog_head = head;
  commit_sinks();
  wake_members();
  queue.backlog.release_below(head);
  return events;
}

}  // namespace ackring::exchange
