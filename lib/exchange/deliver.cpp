// Deliver: one event into the ring of one subscription, or into its backlog when the ring has no room or nobody is there.
// All sinks of an event are made ready before it is copied into any, so that a batch can end before an event.
#include "lib/exchange/deliver.hpp"
#include "lib/shm/probe.hpp"

#include <algorithm>

namespace ackring::exchange {

namespace {

// Does the subscription say itself that events may be lost rather than held up? Then nobody waits for its member.
bool drops_by_choice(const Queue& queue) noexcept {
  return queue.options.overflow == Overflow::drop_newest || queue.options.overflow == Overflow::drop_oldest;
}

}  // namespace

bool Exchange::ready_slowly(Queue& queue, std::uint64_t bytes, std::uint64_t now_ns, bool redoing) {
  queue.fate = Fate::place;
  if (bytes > queue.largest_record) return true;  // put() counts it as dropped
  if (queue.stage != Stage::placed && queue.touched_n == n_) {
    // Behind what was put aside: a batch ends here. A redo can't, as other sinks may hold what comes behind: it makes
    // count what it has so far.
    if (!redoing) return false;
    commit_sinks();
    for (Queue* touched : touched_) touched->stage = Stage::placed;
  }
  if (!queue.to_backlog) {
    if (!redoing && open_window(queue, bytes)) return true;
    settle(queue.lane);
    if (!redoing && open_window(queue, bytes)) {
      queue.lane.full_since_ns = 0;
      return true;
    }
    if (queue.lane.has_credit() && queue.lane.ring.fits(bytes)) {
      queue.lane.full_since_ns = 0;
      return true;
    }
    // A member that merely waits for its turn on the core gets one before its events take the long way.
    if (!redoing && queue.lane.has_member() && !drops_by_choice(queue)) {
      if (queue.lane.full_since_ns == 0) queue.lane.full_since_ns = std::max<std::uint64_t>(now_ns, 1);
      if (now_ns - queue.lane.full_since_ns < full_ring_grace_ns_) return false;
    }
  }
  return backlog_ready(queue, bytes, redoing);
}

// A redo never writes without looking: its sinks may hold the event already.
bool Exchange::open_window(Queue& queue, std::uint64_t bytes) {
  if (!queue.lane.has_credit() || queue.lane.ring.contiguous() < bytes) return false;
  touch_ring(queue.lane);
  if (queue.dropping) return false;
  count_entries(queue);
  queue.lane.window_bytes = queue.lane.ring.contiguous();
  queue.lane.window_entries = queue.lane.slots() - (queue.lane.entries - queue.lane.floor_entry);
  queue.lane.delivery_of_entry = queue.block.matched + 1 - queue.lane.entries;
  return true;
}

// What put() wrote through the window and has not counted one by one.
void Exchange::count_entries(Queue& queue) {
  const std::uint64_t fresh = queue.lane.entries - queue.lane.counted_entries;
  queue.lane.counted_entries = queue.lane.entries;
  queue.block.ring_of_n += fresh;
  queue.block.matched += fresh;
}

void Exchange::close_window(Queue& queue) {
  count_entries(queue);
  queue.lane.window_bytes = queue.lane.window_entries = 0;
}

bool Exchange::backlog_ready(Queue& queue, std::uint64_t bytes, bool redoing) {
  const Overflow policy = queue.overflow();
  touch(queue);
  if (queue.dropping) return true;
  const bool over = over_limits(queue, bytes);
  // A redo never blocks: other sinks hold the event already.
  if (over && policy == Overflow::block && !redoing) return false;
  if (over && policy == Overflow::dead_letter && !redoing) return overflow_ready(queue, bytes);
  const bool reserved = !(over && policy == Overflow::drop_newest) && queue.backlog.reserve(bytes);
  if (reserved) return true;
  if (policy == Overflow::block || policy == Overflow::dead_letter) return false;
  queue.dropping = true;
  return true;
}

/// Would one more event be too much for what waits outside of rings?
bool over_limits(const Queue& queue, std::uint64_t bytes) {
  if (queue.role == Role::last_values) return false;  // they are kept by cleaning (last_values.cpp)
  const shm::SubscriptionBlock& block = queue.block;
  return block.backlog_events + block.delayed_events >= queue.options.max_events ||
         block.backlog_bytes + block.delayed_bytes + bytes > queue.options.max_bytes;
}

// The policy is to make dead letters of what is too much. Where they have no room, either, the publisher waits (F35).
bool Exchange::overflow_ready(Queue& queue, std::uint64_t bytes) {
  if (queue.stage > Stage::dead || !dead_ready(queue, bytes + dead_extra_bytes)) return false;
  queue.fate = Fate::overflow;
  return true;
}

// Room for a record in the ring of a lane, nullptr if there is none.
std::byte* Exchange::place_in_ring(Lane& lane, std::uint64_t bytes) {
  if (!lane.has_credit()) return nullptr;
  touch_ring(lane);
  shm::Environment::at(shm::CrashPoint::deliver_record);
  std::byte* to = lane.ring.claim(bytes);
  if (to == nullptr) return nullptr;
  lane.ring.advance(bytes);
  lane.ends[lane.entries & lane.slot_mask] = static_cast<std::uint32_t>(lane.ring.position());
  lane.counted_entries = ++lane.entries;
  ++lane.queue->block.ring_of_n;
  return to;
}

// … or, behind what waits there already, in the backlog.
std::byte* Exchange::place(Lane& lane, std::uint64_t bytes) {
  Queue& queue = *lane.queue;
  if (queue.dispatched() ? &lane != &queue.lane : !queue.to_backlog) {
    if (std::byte* to = place_in_ring(lane, bytes)) return to;
  }
  touch_backlog(queue);
  shm::Environment::at(shm::CrashPoint::backlog_spill);
  queue.to_backlog = true;
  ++queue.block.backlog_of_n;
  ++queue.block.backlog_events;
  queue.block.backlog_bytes += bytes;
  return queue.backlog.append(bytes);
}

void Exchange::put_slowly(Queue& queue, const shm::RecordHeader& header, const std::byte* body) {
  touch(queue);
  close_window(queue);
  const bool skip = header.sequence <= queue.skip_through;
  // A redo comes by what is counted already, and may die half-way.
  queue.block.sequence_of_n = std::max(queue.block.sequence_of_n, header.sequence);
  if (header.bytes > queue.largest_record) {
    if (!skip) ++queue.block.matched;
    if (header.sequence > queue.counted_through) ++queue.block.dropped_too_large;
    return;
  }
  if (skip) return;
  ++queue.block.matched;
  if (queue.dropping) {
    ++queue.block.dropped_newest;
    return;
  }
  if (queue.fate != Fate::place) {
    put_aside(queue, header, body);
    return;
  }
  std::byte* to = place(queue.lane, header.bytes);
  if (header.flags != 0 && queue.to_backlog) queue.block.backlog_expires = 1;
  ring::write_header(to, header, queue.block.matched);
  ACKRING_PROBE_DELIVER(queue.id, queue.block.matched, header.bytes);
  copy_body(to + sizeof header, body, header.bytes - sizeof header);
}

// True: the head of the backlog has moved, so that segments below it can go once the counters say so.
bool Exchange::keep_limits(Queue& queue) {
  if (queue.overflow() != Overflow::drop_oldest) return false;
  shm::SubscriptionBlock& block = queue.block;
  const std::uint64_t before = block.backlog_head;
  std::uint64_t head = before;
  while (block.backlog_events + block.delayed_events > queue.options.max_events ||
         block.backlog_bytes + block.delayed_bytes > queue.options.max_bytes) {
    const shm::RecordHeader* record = queue.backlog.at(head);
    if (record == nullptr) break;
    head = log::SegmentLog::next(head, *record);
    --block.backlog_events;
    block.backlog_bytes -= record->bytes;
    ++block.dropped_oldest;
    block.backlog_head = head;
  }
  return head != before;
}

}  // namespace ackring::exchange
