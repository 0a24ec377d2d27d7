// Redo: finishes the one transaction that a dead exchange may have left open. It looks at what each sink holds of it, brings
// the counters up to that, and decides again only for what is missing, behind it. Doing it twice, or dying in it, changes
// nothing: what is held stays held, what is counted is marked as counted.
#include <algorithm>

#include "lib/exchange/exchange.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::TransactionKind;

namespace {

// What [base, tail) of a queue's two sinks holds.
struct Held {
  std::uint64_t ring = 0;
  std::uint64_t backlog = 0;
  std::uint64_t uncounted_bytes = 0;  // of backlog records that the counters don't know yet
  std::uint64_t last_sequence = 0;
  std::uint64_t last_delivery = 0;
  [[nodiscard]] bool any() const { return ring + backlog != 0; }
};

Held find_held(Queue& queue, std::uint64_t n) {
  Held held;
  // acquire(sink.n): base belongs to n
  if (queue.has_ring && queue.ring_page->sink.n.load(std::memory_order_acquire) == n) {
    const std::uint64_t base = queue.ring_page->sink.base.load(std::memory_order_relaxed);  // relaxed: after n
    ring::RingReader reader(queue.ring.data(), queue.ring.ring_bytes(), &queue.ring_page->tail, base);
    while (const std::byte* record = reader.peek()) {
      const auto* header = reinterpret_cast<const RecordHeader*>(record);
      ++held.ring;
      held.last_sequence = header->sequence;
      held.last_delivery = header->delivery;
      reader.advance(header->bytes);
    }
  }
  // acquire(sink.n): base belongs to n
  if (queue.state->backlog.n.load(std::memory_order_acquire) == n) {
    const std::uint64_t counted = queue.block.n == n ? queue.block.backlog_of_n : 0;
    std::uint64_t position = queue.state->backlog.base.load(std::memory_order_relaxed);  // relaxed: after n
    position = std::max(position, queue.block.backlog_head);  // what was dropped from the head is gone, and counted
    while (const RecordHeader* header = queue.backlog.at(position)) {
      ++held.backlog;
      if (held.backlog > counted) held.uncounted_bytes += header->bytes;
      held.last_sequence = header->sequence;
      held.last_delivery = header->delivery;
      position = log::SegmentLog::next(position, *header);
    }
  }
  return held;
}

}  // namespace

void Exchange::redo() {
  // acquire(intent.n): the record of transaction n
  const std::uint64_t first = page_->intents[0][0].n.load(std::memory_order_acquire);
  const std::uint64_t second = page_->intents[0][1].n.load(std::memory_order_acquire);  // acquire(intent.n): as above
  n_ = std::max(first, second);
  if (n_ == 0) return;
  const shm::Intent& intent = page_->intents[0][n_ & 1];
  // relaxed: after n
  const auto kind = static_cast<TransactionKind>(intent.kind.load(std::memory_order_relaxed));
  const std::uint64_t source = intent.source.load(std::memory_order_relaxed);  // relaxed: after n
  const std::uint64_t from = intent.from.load(std::memory_order_relaxed);      // relaxed: after n
  const std::uint64_t to = intent.to.load(std::memory_order_relaxed);          // relaxed: after n
  touched_.clear();
  if (kind == TransactionKind::route) {
    redo_route(source, from, to);
    return;
  }
  Queue* queue = find_queue(source);
  if (queue == nullptr) return;
  if (kind == TransactionKind::pump) redo_pump(*queue, from);
  if (kind == TransactionKind::redeliver) redo_redeliver(*queue, from, to);
}

void Exchange::redo_route(std::uint64_t slot, std::uint64_t from, std::uint64_t to) {
  Ingress* ingress = slot < publishers_.size() ? publishers_[slot].get() : nullptr;
  if (ingress == nullptr || ingress->ring_page == nullptr || ingress->block.n == n_ ||
      ingress->reader.position() != from) {
    return;  // the source has moved: the transaction is whole
  }
  std::uint64_t events = 0;
  for (const auto& entry : queues_) {
    if (!entry) continue;
    Queue& queue = *entry;
    const Held held = find_held(queue, n_);
    if (!held.any() && queue.block.n != n_) continue;
    touch(queue);
    shm::SubscriptionBlock& block = queue.block;
    queue.counted_through = block.sequence_of_n;
    queue.skip_through = std::max(block.sequence_of_n, held.last_sequence);
    if (held.backlog > block.backlog_of_n) {
      block.backlog_events += held.backlog - block.backlog_of_n;
      block.backlog_bytes += held.uncounted_bytes;
      block.backlog_of_n = held.backlog;
    }
    block.ring_of_n = held.ring;
    block.matched = std::max(block.matched, held.last_delivery);
    queue.to_backlog = !queue.has_ring || block.backlog_events != 0;
    events += held.ring + held.backlog;
  }
  if (touched_.empty()) return;  // nothing was exposed: the next step routes it as if it were new
  commit_sinks();
  drain(*ingress, 0, to, true);
  for (Queue* queue : touched_) queue->skip_through = queue->counted_through = 0;
  report_.push_back("redo: routing of publisher " + ingress->name + " finished behind " + std::to_string(events) +
                    " deliveries that were there");
}

void Exchange::redo_pump(Queue& queue, std::uint64_t from) {
  if (queue.block.n == n_ || queue.block.backlog_head != from) return;
  const Held held = find_held(queue, n_);
  if (held.ring == 0) return;
  touch(queue);
  std::uint64_t head = from;
  for (std::uint64_t i = 0; i < held.ring; ++i) {
    const RecordHeader* record = queue.backlog.at(head);
    if (record == nullptr) break;
    --queue.block.backlog_events;
    queue.block.backlog_bytes -= record->bytes;
    head = log::SegmentLog::next(head, *record);
  }
  queue.block.ring_of_n = held.ring;
  queue.block.backlog_head = head;
  commit_sinks();
  queue.backlog.release_below(head);
  report_.push_back("redo: " + std::to_string(held.ring) + " events of subscription " + queue.options.name +
                    " had left its backlog");
}

void Exchange::redo_redeliver(Queue& queue, std::uint64_t entry, std::uint64_t cause) {
  const bool counted = queue.block.n == n_;
  if (!counted) {
    const Held held = find_held(queue, n_);
    if (!held.any()) return;  // nothing was exposed: the watchdog decides again
    touch(queue);
    queue.block.ring_of_n = held.ring;
    queue.block.backlog_of_n = held.backlog;
    queue.block.backlog_events += held.backlog;
    queue.block.backlog_bytes += held.uncounted_bytes;
    ++queue.block.redelivered;
    commit_sinks();
  }
  const bool above_floor = queue.has_ring && entry - queue.floor_entry < queue.entries - queue.floor_entry;
  if (above_floor && queue.state_of(entry) == 0) {
    set_state(queue, entry, static_cast<shm::DeliveryState>(cause & 0x7f), (cause & shm::let_go_bit) != 0);
  }
  report_.push_back("redo: redelivery in subscription " + queue.options.name + " settled");
}

}  // namespace ackring::exchange
