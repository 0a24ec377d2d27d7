// Every move of events is a transaction: an intent names it, each sink remembers where its part begins, one store per sink
// makes that part count, then the counters, then the source. After a crash redo.cpp finishes it from what the sinks hold.
#include "lib/exchange/exchange.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

void Exchange::begin(shm::TransactionKind kind, std::uint64_t source, std::uint64_t from, std::uint64_t to) {
  ++n_;
  // Two records take turns: the one of transaction n - 1 stays whole until n is stored.
  shm::Intent& intent = intents_[n_ & 1];
  shm::Environment::at(shm::CrashPoint::transaction_intent);
  // relaxed: X's thread is the only writer; `n` publishes them.
  intent.kind.store(static_cast<std::uint32_t>(kind), std::memory_order_relaxed);
  intent.source.store(source, std::memory_order_relaxed);  // relaxed: published by n
  intent.from.store(from, std::memory_order_relaxed);      // relaxed: published by n
  intent.to.store(to, std::memory_order_relaxed);          // relaxed: published by n
  intent.n.store(n_, std::memory_order_release);           // release(intent.n): the record of transaction n
  touched_.clear();
  touched_members_.clear();
}

void Exchange::touch(Queue& queue) {
  if (queue.touched_n == n_) return;
  queue.touched_n = n_;
  queue.touched_logs = 0;
  queue.dropping = false;
  queue.stage = Stage::placed;
  queue.lane.counted_entries = queue.lane.entries;
  if (queue.block.n != n_) {
    queue.block.n = n_;
    queue.block.ring_of_n = 0;
    queue.block.backlog_of_n = 0;
    queue.block.retry_of_n = 0;
    queue.block.dead_of_n = 0;
    queue.block.sequence_of_n = 0;
  }
  touched_.push_back(&queue);
}

// What an entry of a ring becomes, as the `to` of an intent.
std::uint64_t moved_to(const Lane& lane, std::uint64_t state_byte) noexcept {
  return lane.ring_incarnation << 8 | state_byte;
}

// "[base, tail) of this sink belongs to transaction n"; in a redo it says so already.
void touch_sink(shm::Sink& sink, std::uint64_t n, std::uint64_t tail) {
  if (sink.n.load(std::memory_order_relaxed) == n) return;  // relaxed: X's thread is the only writer
  shm::Environment::at(shm::CrashPoint::transaction_sink);
  sink.base.store(tail, std::memory_order_relaxed);  // relaxed: published by n
  sink.n.store(n, std::memory_order_release);        // release(sink.n): base belongs to n
}

void Exchange::touch_ring(Lane& lane) {
  Queue& queue = *lane.queue;
  touch(queue);
  if (lane.touched_n == n_) return;
  lane.touched_n = n_;
  if (queue.dispatched()) touched_members_.push_back(&lane);
  touch_sink(lane.ring_page->sink, n_, lane.ring.position());
}

void Exchange::touch_log(Queue& queue, shm::Sink& sink, const log::SegmentLog& log, std::uint8_t which) {
  touch(queue);
  if ((queue.touched_logs & which) != 0) return;
  queue.touched_logs |= which;
  touch_sink(sink, n_, log.tail());
}

void Exchange::touch_backlog(Queue& queue) {
  touch_log(queue, queue.state->backlog, queue.backlog, Queue::backlog_log);
}

// What a move takes from where it came from, in the counters: its source is a record of the retry or dead-letter log.
void Exchange::count_source(Queue& queue, shm::TransactionKind kind, const shm::RecordHeader& record) {
  shm::SubscriptionBlock& block = queue.block;
  if (kind == shm::TransactionKind::release || kind == shm::TransactionKind::complete ||
      kind == shm::TransactionKind::forget || kind == shm::TransactionKind::expire ||
      kind == shm::TransactionKind::give_up_later) {
    const bool first = is_untaken(ring::parts(reinterpret_cast<const std::byte*>(&record)));
    --block.retry_events;
    block.retry_bytes -= record.bytes;
    if (first) --block.delayed_events;
    if (first) block.delayed_bytes -= record.bytes;
    if (queue.keys && !first) count_slot(queue, record, 0, -1);
    if (kind == shm::TransactionKind::release && !first) ++block.redelivered;
    if (kind == shm::TransactionKind::forget) ++block.purged;
    if (kind == shm::TransactionKind::expire) ++block.expired;
    if (kind == shm::TransactionKind::complete) ++block.totals[static_cast<std::size_t>(shm::DeliveryState::acked)];
  } else if (kind == shm::TransactionKind::requeue || kind == shm::TransactionKind::remove) {
    --block.dead_events;
    block.dead_bytes -= record.bytes;
    if (kind == shm::TransactionKind::requeue) ++block.requeued;
    if (kind == shm::TransactionKind::remove) ++block.dead_removed;
  }
}

shm::LaterState later_state(const shm::RecordHeader& record) noexcept {
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  // acquire(later.state): where the event went
  return event.later == nullptr ? shm::LaterState::removed
                                : static_cast<shm::LaterState>(event.later->state.load(std::memory_order_acquire));
}

// The source of a move out of a log: from here on it has left. X wrote the record and maps it writable.
void mark(const shm::RecordHeader& record, shm::LaterState state) {
  auto* later = const_cast<shm::LaterInfo*>(ring::parts(reinterpret_cast<const std::byte*>(&record)).later);
  shm::Environment::at(shm::CrashPoint::retry_mark);
  // release(later.state): the event is where it went, and counted there
  later->state.store(static_cast<std::uint32_t>(state), std::memory_order_release);
}

void Exchange::write_counters(Queue& queue) {
  queue.block.entries = queue.lane.entries;
  shm::Environment::at(shm::CrashPoint::transaction_counters);
  shm::write_block(queue.state->version, queue.state->blocks, queue.block);
}

// True: the backlog got shorter at its head, to keep its limits.
bool Exchange::commit_logs(Queue& queue) {
  bool shortened = false;
  if ((queue.touched_logs & Queue::backlog_log) != 0) {
    // release(backlog.tail): the records before it
    queue.state->backlog_tail.store(queue.backlog.tail(), std::memory_order_release);
    shortened = keep_limits(queue);
  }
  if ((queue.touched_logs & Queue::retry_log) != 0) {
    // release(retry.tail): the records before it
    queue.state->retry_tail.store(queue.retry.tail(), std::memory_order_release);
  }
  if ((queue.touched_logs & Queue::dead_log) != 0) {
    // release(dead.tail): the records before it
    queue.state->dead_tail.store(queue.dead.tail(), std::memory_order_release);
    write_dead_reasons(queue, n_, queue.block.dead_of_n);
  }
  return shortened;
}

void Exchange::commit_sinks() {
  shm::Environment::at(shm::CrashPoint::transaction_commit);
  for (Lane* lane : touched_members_) lane->ring.commit();
  for (Queue* queue : touched_) {
    if (queue->lane.touched_n == n_) queue->lane.ring.commit();
    close_window(*queue);
    const bool shortened = queue->touched_logs != 0 && commit_logs(*queue);
    write_counters(*queue);
    if (shortened) queue->backlog.release_below(queue->block.backlog_head);
    if (!queue->active) activate(*queue);
  }
}

void Exchange::commit_ingress(Ingress& ingress) {
  ingress.block.n = n_;
  shm::Environment::at(shm::CrashPoint::route_source);
  ingress.block.consumed = ingress.reader.position();
  shm::write_block(ingress.cursor->version, ingress.cursor->blocks, ingress.block);
  // release(ingress.consumed): X reads nothing before it any more
  ingress.cursor->consumed.store(ingress.block.consumed, std::memory_order_release);
  shm::fence_for_waker(fence_required_);
  // relaxed: ordered by the park protocol (shm/park.hpp)
  if (ingress.ring_page->parked.load(std::memory_order_relaxed) != 0) of_lead(ingress).bell.ring();
}

void Exchange::wake_members() {
  shm::fence_for_waker(fence_required_);
  for (const Queue* queue : touched_) {
    if (queue->lane.touched_n == n_ && queue->lane.has_member() && queue->lane.acks.parked()) queue->lane.bell.ring();
  }
  for (const Lane* lane : touched_members_) {
    if (lane->has_member() && lane->acks.parked()) lane->bell.ring();
  }
}

}  // namespace ackring::exchange
