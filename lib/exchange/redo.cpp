// Redo: finishes the one transaction that a dead exchange may have left open. It looks at what each sink holds of it, brings
// the counters up to that, and decides again only for what is missing, behind it. Doing it twice, or dying in it, changes
// nothing: what is held stays held, what is counted is marked as counted.
#include <algorithm>
#include <array>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::TransactionKind;

namespace {

// What [base, tail) of a queue's sinks holds.
struct Held {
  std::uint64_t ring = 0;
  std::uint64_t backlog = 0;
  std::uint64_t uncounted_bytes = 0;  // of backlog records that the counters don't know yet
  bool backlog_expires = false;       // some of them have a time of their own
  std::uint64_t retry = 0;
  std::uint64_t retry_bytes = 0;    // of those that the counters don't know yet, as all below
  std::uint64_t delayed = 0;        // … that wait for no new attempt
  std::uint64_t delayed_bytes = 0;  // of these
  std::uint64_t dead = 0;
  std::uint64_t dead_bytes = 0;
  std::array<std::uint64_t, shm::dead_reason_slots> dead_reasons{};  // of those that are not counted by reason yet
  std::uint64_t last_sequence = 0;
  std::uint64_t last_delivery = 0;
  [[nodiscard]] bool any() const { return ring + backlog + retry + dead != 0; }
};

Held find_held(Queue& queue, std::uint64_t n) {
  Held held;
  queue.each_lane([&](const Lane& lane) {
    // acquire(sink.n): base belongs to n
    if (!lane.has_ring || lane.ring_page->sink.n.load(std::memory_order_acquire) != n) return;
    const std::uint64_t base = lane.ring_page->sink.base.load(std::memory_order_relaxed);  // relaxed: after n
    ring::RingReader reader(lane.ring.data(), lane.ring.ring_bytes(), &lane.ring_page->tail, base);
    while (const std::byte* record = reader.peek()) {
      const auto* header = reinterpret_cast<const RecordHeader*>(record);
      ++held.ring;
      held.last_sequence = std::max(held.last_sequence, header->sequence);
      held.last_delivery = std::max(held.last_delivery, header->delivery);
      reader.advance(header->bytes);
    }
  });
  // acquire(sink.n): base belongs to n
  if (queue.state->backlog.n.load(std::memory_order_acquire) == n) {
    const std::uint64_t counted = queue.block.n == n ? queue.block.backlog_of_n : 0;
    std::uint64_t position = queue.state->backlog.base.load(std::memory_order_relaxed);  // relaxed: after n
    position = std::max(position, queue.block.backlog_head);  // what was dropped from the head is gone, and counted
    while (const RecordHeader* header = queue.backlog.at(position)) {
      ++held.backlog;
      if (held.backlog > counted) held.uncounted_bytes += header->bytes;
      held.backlog_expires = held.backlog_expires || (header->flags & shm::flag_timing) != 0;
      held.last_sequence = std::max(held.last_sequence, header->sequence);
      held.last_delivery = std::max(held.last_delivery, header->delivery);
      position = log::SegmentLog::next(position, *header);
    }
  }
  const std::uint64_t reasons_counted = queue.dead_reasons.n == n ? queue.dead_reasons.dead_of_n : 0;
  const auto find_in_log = [&](const shm::Sink& sink, const log::SegmentLog& log, std::uint64_t head,
                               std::uint64_t counted, std::uint64_t& count, std::uint64_t& bytes, bool is_retry) {
    if (sink.n.load(std::memory_order_acquire) != n) return;  // acquire(sink.n): base belongs to n
    // relaxed: after n. What has left the log since is counted.
    std::uint64_t position = std::max(sink.base.load(std::memory_order_relaxed), head);
    while (const RecordHeader* header = log.at(position)) {
      held.last_sequence = std::max(held.last_sequence, header->sequence);
      held.last_delivery = std::max(held.last_delivery, header->delivery);
      const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(header));
      ++count;
      if (!is_retry && count > reasons_counted) {
        ++held.dead_reasons[static_cast<std::size_t>(dead_reason(reason_of(event)))];
      }
      if (count > counted) {
        bytes += header->bytes;
        if (is_retry && is_untaken(event)) {
          ++held.delayed;
          held.delayed_bytes += header->bytes;
        }
      }
      position = log::SegmentLog::next(position, *header);
    }
  };
  const bool known = queue.block.n == n;
  find_in_log(queue.state->retry, queue.retry, queue.block.retry_head, known ? queue.block.retry_of_n : 0, held.retry,
              held.retry_bytes, true);
  find_in_log(queue.state->dead, queue.dead, queue.block.dead_head, known ? queue.block.dead_of_n : 0, held.dead,
              held.dead_bytes, false);
  return held;
}

// Brings the counters up to what the logs behind the backlog hold.
void count_held(Queue& queue, const Held& held, std::uint64_t n) {
  shm::SubscriptionBlock& block = queue.block;
  if (held.retry > block.retry_of_n) {
    block.retry_events += held.retry - block.retry_of_n;
    block.retry_bytes += held.retry_bytes;
    block.delayed_events += held.delayed;
    block.delayed_bytes += held.delayed_bytes;
    block.retry_of_n = held.retry;
  }
  if (held.dead > block.dead_of_n) {
    block.dead_events += held.dead - block.dead_of_n;
    block.dead_lettered += held.dead - block.dead_of_n;
    block.dead_bytes += held.dead_bytes;
    block.dead_of_n = held.dead;
  }
  if (held.backlog_expires) block.backlog_expires = 1;
  if (held.dead == 0 || (queue.dead_reasons.n == n && queue.dead_reasons.dead_of_n >= held.dead)) return;
  for (std::size_t i = 0; i < held.dead_reasons.size(); ++i) queue.dead_reasons.counts[i] += held.dead_reasons[i];
  write_dead_reasons(queue, n, held.dead);
}

}  // namespace

void Exchange::redo() {
  const shm::Intent& intent = last_intent(*page_, shard_);
  // acquire(intent.n): the record of transaction n
  n_ = std::max(intent.n.load(std::memory_order_acquire), shm::first_n(shard_));
  // relaxed: after n
  const auto kind = static_cast<TransactionKind>(intent.kind.load(std::memory_order_relaxed));
  const std::uint64_t source = intent.source.load(std::memory_order_relaxed);  // relaxed: after n
  const std::uint64_t from = intent.from.load(std::memory_order_relaxed);      // relaxed: after n
  const std::uint64_t to = intent.to.load(std::memory_order_relaxed);          // relaxed: after n
  touched_.clear();
  if (kind == TransactionKind::none) return;  // the first one, or one that only says that those before it are done
  if (kind == TransactionKind::route) {
    redo_route(source, from, to);
    return;
  }
  Queue* queue = find_queue(source);
  if (queue == nullptr || queue->shard != shard_ || kind == TransactionKind::begin_with)
    return;  // it is whole, or was removed by recovery
  if (kind == TransactionKind::pump || kind == TransactionKind::park || kind == TransactionKind::give_up) {
    redo_pump(*queue, from);
  } else if (kind == TransactionKind::clean) {
    redo_clean(*queue);
  } else if (kind == TransactionKind::announce) {
    redo_announce(*queue, from);
  } else {
    redo_move(*queue, kind, from, to);
  }
}

void Exchange::redo_route(std::uint64_t slot, std::uint64_t from, std::uint64_t to) {
  Ingress* ingress = slot < publishers_.size() ? publishers_[slot].get() : nullptr;
  if (ingress == nullptr || ingress->ring_page == nullptr || ingress->block.n == n_ ||
      ingress->reader.position() != from) {
    return;  // the source has moved: the transaction is whole
  }
  std::uint64_t events = 0;
  for (const auto& entry : queues_) {
    if (!entry || entry->shard != shard_) continue;
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
    count_held(queue, held, n_);
    block.ring_of_n = held.ring;
    block.matched = std::max(block.matched, held.last_delivery);
    // What waits before the backlog is known only after the redo.
    queue.to_backlog = queue.goes_to_backlog() || block.delayed_events != 0;
    events += held.ring + held.backlog + held.retry + held.dead;
  }
  shm::Environment::at(shm::CrashPoint::redo_route);
  if (touched_.empty()) return;  // nothing was exposed: the next step routes it as if it were new
  commit_sinks();
  drain(*ingress, 0, to, true);
  for (Queue* queue : touched_) queue->skip_through = queue->counted_through = 0;
  report_.push_back({Notice::Level::info,
                     "recovery.redo",
                     "redo: routing of publisher " + ingress->name + " finished behind " + std::to_string(events) +
                         " deliveries that were there",
                     {{"publisher", ingress->name}, {"deliveries", events}}});
}

// A redo that has stopped before an event which some sink holds is not through: what the others lack has no room. If it
// counted as done, that sink would get the event again. Throws Error (no_space): nobody serves the bus until there is room.
void Exchange::check_redone(const Ingress& ingress, const char* damage) const {
  if (damage != nullptr) return;  // its publisher is not read any more
  for (const Queue* queue : touched_) {
    if (queue->skip_through <= ingress.block.sequence) continue;
    throw Error(ErrorCode::no_space, "publisher '" + ingress.name + "'",
                "the exchange before this one died while it routed its events, and there is no room to go on",
                "make room in the file system of the bus, or raise the descriptor limit, and start it again");
  }
}

void Exchange::redo_pump(Queue& queue, std::uint64_t from) {
  if (queue.block.n == n_ || queue.block.backlog_head != from) return;
  const Held held = find_held(queue, n_);
  const std::uint64_t left = held.ring + held.retry + held.dead;
  if (left == 0) return;
  shm::Environment::at(shm::CrashPoint::redo_pump);
  touch(queue);
  std::uint64_t head = from;
  for (std::uint64_t i = 0; i < left; ++i) {
    const RecordHeader* record = queue.backlog.at(head);
    if (record == nullptr) break;
    --queue.block.backlog_events;
    queue.block.backlog_bytes -= record->bytes;
    head = log::SegmentLog::next(head, *record);
  }
  queue.block.ring_of_n = held.ring;
  count_held(queue, held, n_);
  queue.block.backlog_head = head;
  commit_sinks();
  queue.backlog.release_below(head);
  report_.push_back(
      {Notice::Level::info,
       "recovery.redo",
       "redo: " + std::to_string(left) + " events of subscription " + queue.options.name + " had left its backlog",
       {{"subscription", queue.options.name}, {"events", std::uint64_t{left}}}});
}

// A move of one event: its sinks, then the counters, then the mark at its source, which alone says that it has left.
void Exchange::redo_move(Queue& queue, TransactionKind kind, std::uint64_t from, std::uint64_t state) {
  const bool from_ring = kind == TransactionKind::redeliver || kind == TransactionKind::retry ||
                         kind == TransactionKind::bury || kind == TransactionKind::hand ||
                         kind == TransactionKind::set_aside || kind == TransactionKind::discard;
  const bool from_dead = kind == TransactionKind::requeue || kind == TransactionKind::remove;
  const RecordHeader* record = nullptr;
  if (!from_ring) {
    std::uint64_t position = from;
    const std::uint64_t head = from_dead ? queue.block.dead_head : queue.block.retry_head;
    record = position < head ? nullptr : (from_dead ? queue.dead : queue.retry).at(position);
  }
  if (queue.block.n != n_) {
    const Held held = find_held(queue, n_);
    if (!held.any()) return;  // nothing was exposed: it is decided again
    shm::Environment::at(shm::CrashPoint::redo_move);
    touch(queue);
    shm::SubscriptionBlock& block = queue.block;
    block.ring_of_n = held.ring;
    block.backlog_of_n = held.backlog;
    block.backlog_events += held.backlog;
    block.backlog_bytes += held.uncounted_bytes;
    count_held(queue, held, n_);
    if (kind == TransactionKind::redeliver) ++block.redelivered;
    if (record != nullptr) count_source(queue, kind, *record);
    commit_sinks();
  }
  shm::Environment::at(shm::CrashPoint::redo_source);
  if (from_ring) {
    Lane* lane = queue.find_lane(state >> 8);
    if (lane != nullptr && lane->is_open(from) && lane->state_of(from) == 0) {
      set_state(*lane, from, static_cast<shm::DeliveryState>(state & 0x7f), (state & shm::let_go_bit) != 0);
    }
  } else if (record != nullptr && later_state(*record) == shm::LaterState::waiting) {
    mark(*record, kind == TransactionKind::release    ? shm::LaterState::released
                  : kind == TransactionKind::complete ? shm::LaterState::acked
                  : kind == TransactionKind::requeue  ? shm::LaterState::requeued
                  : kind == TransactionKind::expire   ? shm::LaterState::expired
                                                      : shm::LaterState::removed);
  }
  report_.push_back({Notice::Level::info,
                     "recovery.redo",
                     "redo: a move of subscription " + queue.options.name + " finished",
                     {{"subscription", queue.options.name}}});
}

}  // namespace ackring::exchange
