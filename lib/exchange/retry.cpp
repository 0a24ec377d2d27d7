// Retry: a delivery that failed waits in the retry log until it is due, then it goes back into ring or backlog with the
// next attempt. What is waiting, and until when, is in shared memory; the order of due times is X's own and is built
// again by a successor.
#include <algorithm>
#include <cmath>

#include "lib/exchange/attempt.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/probe.hpp"

namespace ackring::exchange {

using shm::DeliveryState;
using shm::LaterState;
using shm::TransactionKind;

// The delay before the attempt that follows `used` ones: initial * multiplier^(used - 1), at most the maximum, and of
// that 1 - jitter to 1 + jitter, so that what failed together does not come back together (F37).
std::uint64_t Exchange::back_off_ns(const SubscriptionOptions& options, std::uint32_t used) {
  if (!options.retry_delays.empty()) {
    const std::size_t at = std::min<std::size_t>(used > 0 ? used - 1 : 0, options.retry_delays.size() - 1);
    return static_cast<std::uint64_t>(options.retry_delays[at].count());
  }
  if (options.backoff_initial.count() == 0) return 0;  // zero times what has grown beyond all bounds is no number
  const double initial = static_cast<double>(options.backoff_initial.count());
  const double longest = static_cast<double>(options.backoff_max.count());
  const double nominal = std::min(longest, initial * std::pow(options.backoff_multiplier, used > 0 ? used - 1 : 0));
  // xorshift64 (Marsaglia, "Xorshift RNGs", 2003): spread is all that is asked of it.
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const double spread = static_cast<double>(random_ >> 11) / static_cast<double>(std::uint64_t{1} << 53);
  return static_cast<std::uint64_t>(nominal * (1 + options.jitter * (2 * spread - 1)));
}

// An attempt has ended without an ack: later, now or never again. False: there is no room for where it has to go, and
// the delivery stays as it is; the next tick tries again.
bool Exchange::fail(Lane& lane, std::uint64_t entry, const Failure& failure, std::uint64_t now_ns) {
  Queue& queue = *lane.queue;
  const auto due_after = [this, now_ns](std::uint64_t delay_ns) {
    const bool counts_from_now = delay_ns != 0 && retry_clock_ != nullptr;
    return delay_ns + (counts_from_now ? std::max(now_ns, retry_clock_()) : now_ns);
  };
  if (failure.cause == DeliveryState::returned) {  // given back; where there is an order to keep, it is the next again
    const bool at_once = failure.delay_ns == 0 || queue.options.ordered || queue.options.ordered_by_key;
    return set_aside(lane, entry, failure.let_go, at_once ? 0 : due_after(failure.delay_ns));
  }
  const ring::EventParts event = ring::parts(lane.record_of(entry));
  Attempt attempt = attempt_of(event);
  end_attempt(attempt, failure.cause, now_ns);
  if (failure.cause == DeliveryState::rejected) return bury(lane, entry, failure, event, attempt);
  if (attempt.used() >= queue.options.max_deliveries) {
    if (bury(lane, entry, failure, event, attempt)) return true;
    // What a dead member held can't stay in its ring: without room for dead letters it goes round once more.
    if (failure.cause != DeliveryState::member_died) return false;
  }
  // Of a dispatched subscription, what comes back goes to a member that has room, as the retry log's events do.
  if (failure.cause == DeliveryState::member_died && !queue.dispatched()) {
    return redeliver(lane, entry, failure, event, attempt);
  }

  Later later;
  const std::uint64_t delay_ns =
      failure.delay_ns == default_delay ? back_off_ns(queue.options, attempt.used()) : failure.delay_ns;
  later.due_ns = due_after(delay_ns);
  later.entry = entry;
  later.ring = lane.ring_incarnation;
  const std::uint64_t bytes = rewritten_bytes(event, attempt, &later);
  if (!queue.retry.reserve(bytes)) return false;
  begin(TransactionKind::retry, queue.id, entry, moved_to(lane, failure.state_byte()));
  const std::uint64_t position = append_retry(queue, event, attempt, later);
  commit_sinks();
  set_state(lane, entry, failure.cause, failure.let_go);
  queue.due.push({later.due_ns, position});
  if (queue.keys) count_slot(queue, *event.header, 0, +1);
  if (!failure.let_go) lane.waiting[entry] = position;
  return true;
}

std::uint64_t Exchange::append_retry(Queue& queue, const ring::EventParts& event, const Attempt& attempt,
                                     const Later& later) {
  touch_log(queue, queue.state->retry, queue.retry, Queue::retry_log);
  shm::Environment::at(shm::CrashPoint::retry_append);
  ACKRING_PROBE_RETRY(queue.id, event.header->delivery, attempt.info.attempt, later.due_ns);
  const std::uint64_t bytes = rewritten_bytes(event, attempt, &later);
  rewrite(queue.retry.append(bytes), event, attempt, &later);
  ++queue.block.retry_of_n;
  ++queue.block.retry_events;
  queue.block.retry_bytes += bytes;
  if (later.untaken || !attempt.written()) {
    ++queue.block.delayed_events;
    queue.block.delayed_bytes += bytes;
  }
  return queue.retry.tail() - bytes;
}

// A member died: what it had taken is delivered again at once.
bool Exchange::redeliver(Lane& lane, std::uint64_t entry, const Failure& failure, const ring::EventParts& event,
                         Attempt attempt) {
  Queue& queue = *lane.queue;
  ++attempt.info.attempt;
  shorten_history(attempt, event, queue.options.ring_bytes / 4);
  const std::uint64_t bytes = rewritten_bytes(event, attempt, nullptr);
  Lane* into = place_ready(queue, *event.header, bytes);
  if (into == nullptr) return false;
  shm::Environment::at(shm::CrashPoint::retry_redeliver);
  begin(TransactionKind::redeliver, queue.id, entry, moved_to(lane, failure.state_byte()));
  rewrite(place(*into, bytes), event, attempt, nullptr);
  ++queue.block.redelivered;
  commit_sinks();
  set_state(lane, entry, failure.cause, failure.let_go);
  wake_members();
  return true;
}

// The lane whose ring, or else whose subscription's backlog, has room for a delivery that comes back. nullptr: none.
Lane* Exchange::place_ready(Queue& queue, const shm::RecordHeader& record, std::uint64_t bytes) {
  if (queue.dispatched()) return may_dispatch(queue, &record) ? member_for(queue, record, bytes) : nullptr;
  const bool into_ring = !queue.to_backlog && queue.lane.has_credit() && queue.lane.ring.fits(bytes);
  return into_ring || queue.backlog.reserve(bytes) ? &queue.lane : nullptr;
}

// What is due goes back into ring or backlog; at most so much at a time (F37).
void Exchange::release_due(Queue& queue, std::uint64_t now_ns) {
  if (queue.paused) return;
  std::vector<Due> held_up;
  for (std::uint64_t released = 0; released < batch_events && !queue.due.empty(); ++released) {
    const Due next = queue.due.top();
    if (next.due_ns > now_ns) break;
    std::uint64_t position = next.position;
    const shm::RecordHeader* record = position < queue.block.retry_head ? nullptr : queue.retry.at(position);
    if (record == nullptr || later_state(*record) != LaterState::waiting) {
      queue.due.pop();
      continue;
    }
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    const bool first = is_untaken(event);
    if (first && expired(queue, event, now_ns)) {
      if (!expire_later(queue, position, *record)) break;
      queue.due.pop();
      continue;
    }
    Attempt attempt = attempt_of(event);
    if (!first) ++attempt.info.attempt;
    shorten_history(attempt, event, queue.options.ring_bytes / 4);
    const std::uint64_t bytes = rewritten_bytes(event, attempt, nullptr);
    Lane* into = first && goes_behind(queue, *record) ? nullptr : place_ready(queue, *record, bytes);
    if (into == nullptr && first && queue.options.ordered) {  // its turn comes before that of the backlog
      queue.due.pop();
      wait_first(queue, *record, position);
      continue;
    }
    if (into == nullptr && !queue.keys) break;
    if (into == nullptr) {  // its slot is busy; those of others need not be
      held_up.push_back(next);
      queue.due.pop();
      continue;
    }
    queue.due.pop();
    shm::Environment::at(shm::CrashPoint::retry_release);
    begin(TransactionKind::release, queue.id, position, 0);
    release(queue, *record, attempt, *into, bytes);
  }
  for (const Due& due : held_up) queue.due.push(due);
  shorten(queue, queue.retry, queue.block.retry_head);
}

void Exchange::release(Queue& queue, const shm::RecordHeader& record, const Attempt& attempt, Lane& into,
                       std::uint64_t bytes) {
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  // What was taken back goes before the backlog, what failed behind it.
  std::byte* to = is_untaken(event) && event.later->due_ns == 0 ? place_in_ring(into, bytes) : place(into, bytes);
  rewrite(to, event, attempt, nullptr);
  if (event.timing != nullptr) queue.block.backlog_expires = 1;
  count_source(queue, TransactionKind::release, record);
  if (queue.keys) count_slot(queue, record, +1, 0);
  if (Lane* from = queue.find_lane(event.later->ring)) from->waiting.erase(event.later->entry);
  commit_sinks();
  mark(record, LaterState::released);
  wake_members();
}

// An ack that came while its delivery was waiting in the retry log completes the event (F29).
bool Exchange::complete_late(Lane& lane, std::uint64_t entry) {
  Queue& queue = *lane.queue;
  const auto found = lane.waiting.find(entry);
  if (found == lane.waiting.end()) return false;
  std::uint64_t position = found->second;
  lane.waiting.erase(found);
  const shm::RecordHeader* record = queue.retry.at(position);
  if (record == nullptr || later_state(*record) != LaterState::waiting) return false;
  shm::Environment::at(shm::CrashPoint::retry_late_ack);
  begin(TransactionKind::complete, queue.id, position, 0);
  touch(queue);
  count_source(queue, TransactionKind::complete, *record);
  commit_sinks();
  mark(*record, LaterState::acked);
  return true;
}

// Records that have left a log give back their space, from the head on. The head in shared memory may lag behind within a
// segment: a successor passes over what has left. The head does not go beyond `until`.
void Exchange::shorten(Queue& queue, log::SegmentLog& log, std::uint64_t& head, std::uint64_t until) {
  const std::uint64_t before = head;
  std::uint64_t position = head;
  const shm::RecordHeader* record = log.at(position);
  while (record != nullptr && position < until && later_state(*record) != LaterState::waiting) {
    head = position = log::SegmentLog::next(position, *record);
    record = log.at(position);
  }
  if (head == before || (head >> 32 == before >> 32 && head != log.tail())) return;
  shm::Environment::at(shm::CrashPoint::retry_head);
  write_counters(queue);
  log.release_below(head);
}

// After a restart: the order of due times, and which deliveries can still be acked.
void Exchange::index_retries(Queue& queue) {
  queue.due = {};
  queue.parked.clear();
  queue.parked_events = 0;
  std::uint64_t position = queue.block.retry_head;
  while (const shm::RecordHeader* record = queue.retry.at(position)) {
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    if (event.later == nullptr) break;
    if (later_state(*record) == LaterState::waiting) {
      const bool first = is_untaken(event);
      if (first && event.later->due_ns == 0) {
        wait_first(queue, *record, position);
      } else {
        queue.due.push({event.later->due_ns, position});
        if (queue.keys && !first) count_slot(queue, *record, 0, +1);
      }
      const std::uint64_t entry = event.later->entry;
      Lane* lane = queue.find_lane(event.later->ring);
      if (lane != nullptr && lane->is_open(entry) && (lane->state_of(entry) & shm::let_go_bit) == 0) {
        lane->waiting[entry] = position;
      }
    }
    position = log::SegmentLog::next(position, *record);
  }
}

}  // namespace ackring::exchange
