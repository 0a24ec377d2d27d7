// Deliver: one event into the ring of one subscription, or into its backlog when the ring has no room or nobody is there.
// All sinks of an event are made ready before it is copied into any, so that a batch can end before an event.
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

namespace {

// Both sides are 16-byte aligned and `bytes` is a multiple of 16: small bodies are copied without a call.
void copy_body(std::byte* to, const std::byte* from, std::uint64_t bytes) {
  shm::Environment::before_store(to, bytes);
#if defined(__SSE2__)
  if (bytes <= 256) {
    for (std::uint64_t at = 0; at < bytes; at += 16) {
      _mm_store_si128(reinterpret_cast<__m128i*>(to + at),
                      _mm_load_si128(reinterpret_cast<const __m128i*>(from + at)));
    }
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

bool too_large(const Queue& queue, std::uint64_t bytes) {
  return bytes + sizeof(shm::AttemptInfo) > queue.options.ring_bytes / 4;
}

}  // namespace

bool Exchange::ready(Queue& queue, std::uint64_t bytes, std::uint64_t now_ns, bool redoing) {
  if (too_large(queue, bytes)) return true;
  if (!queue.to_backlog) {
    if (queue.has_credit() && queue.ring.fits(bytes)) [[likely]] return true;
    settle(queue);
    if (queue.has_credit() && queue.ring.fits(bytes)) {
      queue.full_since_ns = 0;
      return true;
    }
    // A member that merely waits for its turn on the core gets one before its events take the long way.
    if (!redoing && queue.has_member()) {
      if (queue.full_since_ns == 0) queue.full_since_ns = now_ns | 1;
      if (now_ns - queue.full_since_ns < full_ring_grace_ns) return false;
    }
  }
  return backlog_ready(queue, bytes, redoing);
}

bool Exchange::backlog_ready(Queue& queue, std::uint64_t bytes, bool redoing) {
  Overflow policy = queue.options.overflow;
  if (policy == Overflow::automatic) policy = queue.at_most_once() ? Overflow::drop_oldest : Overflow::block;
  touch(queue);
  if (queue.dropping) return true;
  const bool over = queue.block.backlog_events >= queue.options.max_events ||
                    queue.block.backlog_bytes + bytes > queue.options.max_bytes;
  // A redo never blocks: other sinks hold the event already.
  if (over && policy == Overflow::block && !redoing) return false;
  const bool reserved = !(over && policy == Overflow::drop_newest) && queue.backlog.reserve(bytes);
  if (reserved) return true;
  if (policy == Overflow::block) return false;
  queue.dropping = true;
  return true;
}

std::byte* Exchange::place(Queue& queue, std::uint64_t bytes) {
  if (!queue.to_backlog && queue.has_credit()) [[likely]] {
    touch_ring(queue);
    std::byte* to = queue.ring.claim(bytes);
    if (to != nullptr) [[likely]] {
      queue.ring.advance(bytes);
      queue.ends[queue.entries & queue.slot_mask] = static_cast<std::uint32_t>(queue.ring.position());
      ++queue.entries;
      ++queue.block.ring_of_n;
      return to;
    }
  }
  touch_backlog(queue);
  queue.to_backlog = true;
  ++queue.block.backlog_of_n;
  ++queue.block.backlog_events;
  queue.block.backlog_bytes += bytes;
  return queue.backlog.append(bytes);
}

void Exchange::put(Queue& queue, const shm::RecordHeader& header, const std::byte* body) {
  touch(queue);
  const bool skip = header.sequence <= queue.skip_through;
  if (too_large(queue, header.bytes)) [[unlikely]] {
    if (!skip) ++queue.block.matched;
    if (header.sequence > queue.counted_through) ++queue.block.dropped_too_large;
    queue.block.sequence_of_n = header.sequence;
    return;
  }
  queue.block.sequence_of_n = header.sequence;
  if (skip) [[unlikely]] return;
  ++queue.block.matched;
  if (queue.dropping) [[unlikely]] {
    ++queue.block.dropped_newest;
    return;
  }
  std::byte* to = place(queue, header.bytes);
  shm::RecordHeader own = header;
  own.delivery = queue.block.matched;
  shm::shared_copy(to, &own, sizeof own);
  copy_body(to + sizeof own, body, header.bytes - sizeof own);
}

void Exchange::keep_limits(Queue& queue) {
  const bool drop_oldest = queue.options.overflow == Overflow::drop_oldest ||
                           (queue.options.overflow == Overflow::automatic && queue.at_most_once());
  if (!drop_oldest) return;
  shm::SubscriptionBlock& block = queue.block;
  std::uint64_t head = block.backlog_head;
  while (block.backlog_events > queue.options.max_events || block.backlog_bytes > queue.options.max_bytes) {
    const shm::RecordHeader* record = queue.backlog.at(head);
    if (record == nullptr) break;
    head = log::SegmentLog::next(head, *record);
    --block.backlog_events;
    block.backlog_bytes -= record->bytes;
    ++block.dropped_oldest;
    block.backlog_head = head;
  }
}

}  // namespace ackring::exchange
