// Pump: moves events from the head of a backlog into the member's ring, as far as there is room.
#include <cstring>

#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

bool Exchange::pump(Queue& queue) {
  if (!queue.to_backlog || !queue.has_ring || !queue.has_member()) return false;
  settle(queue);
  shm::SubscriptionBlock& block = queue.block;
  std::uint64_t head = block.backlog_head;
  const shm::RecordHeader* record = queue.backlog.at(head);
  if (record != nullptr && !(queue.has_credit() && queue.ring.fits(record->bytes))) return false;
  if (record != nullptr) {
    begin(shm::TransactionKind::pump, queue.id, block.backlog_head, 0);
    touch_ring(queue);
    for (std::uint64_t events = 0, bytes = 0; record != nullptr && events < batch_events && bytes < batch_bytes;
         ++events) {
      if (!queue.has_credit() || !queue.ring.fits(record->bytes)) break;
      const std::uint32_t size = record->bytes;
      std::byte* to = queue.ring.claim(size);
      shm::shared_copy(to, record, size);
      queue.ring.advance(size);
      queue.ends[queue.entries & queue.slot_mask] = static_cast<std::uint32_t>(queue.ring.position());
      queue.counted_entries = ++queue.entries;
      ++block.ring_of_n;
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
  }
  if (block.backlog_events == 0) {
    queue.to_backlog = false;
    queue.full_since_ns = 0;
  }
  return true;
}

}  // namespace ackring::exchange
