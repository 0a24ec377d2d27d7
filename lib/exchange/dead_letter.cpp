// Dead-letter: what was rejected, or failed too often, waits in the dead-letter log for people: whole, with the reason and
// its attempts, until it is requeued or purged. A full log holds deliveries where they are; it never drops (F35).
#include <algorithm>

#include "ackring/error.hpp"
#include "lib/exchange/attempt.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/shm/probe.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using shm::LaterState;
using shm::TransactionKind;

/// Room for one more dead letter of so many bytes; where there is none, it is counted that something is held.
bool Exchange::dead_ready(Queue& queue, std::uint64_t bytes) {
  const bool ready = queue.block.dead_bytes + bytes <= queue.options.max_dead_bytes && queue.dead.reserve(bytes);
  if (!ready) ++queue.dead_held;
  return ready;
}

shm::DeadReason dead_reason(std::string_view text) noexcept {
  const std::string_view word = text.substr(0, text.find(':'));
  if (word == "rejected") return shm::DeadReason::rejected;
  if (word == "expired") return shm::DeadReason::expired;
  if (word == "overflow") return shm::DeadReason::overflow;
  if (word == "removed") return shm::DeadReason::removed;
  return shm::DeadReason::max_deliveries;
}

void write_dead_reasons(Queue& queue, std::uint64_t n, std::uint64_t dead_of_n) {
  queue.dead_reasons.n = n;
  queue.dead_reasons.dead_of_n = dead_of_n;
  shm::Environment::at(shm::CrashPoint::dead_reasons);
  shm::write_block(queue.state->dead_version, queue.state->dead_reasons, queue.dead_reasons);
}

void Exchange::append_dead(Queue& queue, const ring::EventParts& event, const Attempt& attempt, const Later& later) {
  touch_log(queue, queue.state->dead, queue.dead, Queue::dead_log);
  shm::Environment::at(shm::CrashPoint::dead_append);
  ACKRING_PROBE_DEAD_LETTER(queue.id, event.header->delivery, attempt.info.attempt, later.reason.data(),
                            later.reason.size());
  const std::uint64_t bytes = rewritten_bytes(event, attempt, &later);
  rewrite(queue.dead.append(bytes), event, attempt, &later);
  ++queue.block.dead_of_n;
  ++queue.block.dead_events;
  ++queue.block.dead_lettered;
  ++queue.dead_reasons.counts[static_cast<std::size_t>(dead_reason(later.reason))];
  queue.block.dead_bytes += bytes;
}

bool Exchange::bury(Lane& lane, std::uint64_t entry, const Failure& failure, const ring::EventParts& event,
                    const Attempt& attempt) {
  Queue& queue = *lane.queue;
  std::string reason = "max_deliveries";
  if (failure.cause == shm::DeliveryState::rejected) {
    reason = failure.reason.empty() ? "rejected" : "rejected: " + failure.reason;
  } else if (failure.cause == shm::DeliveryState::nacked && !failure.reason.empty()) {
    reason += ": " + failure.reason;  // of the last attempt
  } else if (!failure.reason.empty()) {
    reason = failure.reason;
  }
  Later later;
  later.dead_unix_ns = unix_now_ns();
  later.entry = entry;
  later.ring = lane.ring_incarnation;
  later.untaken = failure.cause == shm::DeliveryState::returned;
  later.reason = reason;
  if (!dead_ready(queue, rewritten_bytes(event, attempt, &later))) return false;
  begin(TransactionKind::bury, queue.id, entry, moved_to(lane, failure.state_byte()));
  append_dead(queue, event, attempt, later);
  commit_sinks();
  set_state(lane, entry, failure.cause, failure.let_go);
  return true;
}

// The head of the backlog, which nobody has taken, becomes a dead letter. False: there is no room for it.
bool Exchange::give_up(Queue& queue, std::string_view reason) {
  shm::SubscriptionBlock& block = queue.block;
  std::uint64_t head = block.backlog_head;
  const shm::RecordHeader* record = queue.backlog.at(head);
  if (record == nullptr) return false;
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
  const Attempt attempt = attempt_of(event);
  Later later;
  later.dead_unix_ns = unix_now_ns();
  later.untaken = true;
  later.reason = reason;
  if (!dead_ready(queue, rewritten_bytes(event, attempt, &later))) return false;
  begin(TransactionKind::give_up, queue.id, block.backlog_head, 0);
  append_dead(queue, event, attempt, later);
  --block.backlog_events;
  block.backlog_bytes -= record->bytes;
  block.backlog_head = log::SegmentLog::next(head, *record);
  commit_sinks();
  queue.backlog.release_below(block.backlog_head);
  return true;
}

// A record of the retry log does.
bool Exchange::give_up_later(Queue& queue, std::uint64_t position, const shm::RecordHeader& record,
                             std::string_view reason) {
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  const Attempt attempt = attempt_of(event);
  Later later;
  later.dead_unix_ns = unix_now_ns();
  later.untaken = is_untaken(event);
  later.reason = reason;
  if (!dead_ready(queue, rewritten_bytes(event, attempt, &later))) return false;
  begin(TransactionKind::give_up_later, queue.id, position, 0);
  append_dead(queue, event, attempt, later);
  count_source(queue, TransactionKind::give_up_later, record);
  commit_sinks();
  mark(record, LaterState::removed);
  return true;
}

// Of a subscription that is going, and has no member: all that it holds becomes dead letters, some of it at a time. Where
// they have no room it stays, and the next tick tries again.
void Exchange::bury_pending(Queue& queue) {
  std::uint64_t left = batch_events;
  bool room = true;
  queue.each_lane([&](Lane& lane) {
    if (lane.has_member() || lane.leaving) return;
    Failure gone;
    gone.cause = shm::DeliveryState::returned;
    gone.reason = "removed";
    for (std::uint64_t entry = lane.floor_entry; room && left != 0 && entry != lane.entries; ++entry) {
      if (lane.state_of(entry) != 0) continue;
      const ring::EventParts event = ring::parts(lane.record_of(entry));
      room = bury(lane, entry, gone, event, attempt_of(event));
      --left;
    }
    pass_decided(lane, lane.entries);
  });
  std::uint64_t position = queue.block.retry_head;
  for (const shm::RecordHeader* record = queue.retry.at(position); record != nullptr && room && left != 0;
       record = queue.retry.at(position)) {
    if (later_state(*record) == LaterState::waiting) {
      room = give_up_later(queue, position, *record, "removed");
      --left;
    }
    position = log::SegmentLog::next(position, *record);
  }
  shorten(queue, queue.retry, queue.block.retry_head);
  for (; room && left != 0 && queue.block.backlog_events != 0; --left) room = give_up(queue, "removed");
  if (pending(queue) != 0) return;
  try {
    set_flags(queue, queue.paused, queue.ending, false);  // what is requeued from now on is to be delivered
  } catch (const Error&) {
    // Without room for its definition it goes on like this; the next tick tries again.
  }
}

// Records can only be told from payloads from the start of a segment on, and `from` may come from a client: the walk
// begins where its segment does, and passes over what is before it.
DeadLetterResult Exchange::walk_dead(const Queue& queue, const DeadLetterFilter& filter,
                                     const std::function<bool(std::uint64_t, const ring::EventParts&)>& each) {
  DeadLetterResult result;
  const std::uint64_t until = std::min(filter.until, queue.dead.tail());
  std::uint64_t position = std::max(queue.block.dead_head, (filter.from >> 32 << 32) + shm::log_data_offset);
  std::uint64_t looked_at = 0;
  std::uint64_t bytes = 0;
  while (filter.from < until) {
    const shm::RecordHeader* record = queue.dead.at(position);
    if (record == nullptr || position >= until) break;
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    if (event.later == nullptr) break;
    if (position >= filter.from) {
      result.next = position;
      const bool meant = later_state(*record) == LaterState::waiting && filter.matches(event);
      const bool full =
          result.done == filter.at_most || (result.done != 0 && bytes + record->bytes > filter.at_most_bytes);
      if (looked_at++ == filter.at_most_looked_at || (meant && full)) {
        result.more = true;
        break;
      }
      if (meant && !each(position, event)) {
        result.no_room = true;
        break;
      }
      if (meant) {
        ++result.done;
        bytes += record->bytes;
      }
    }
    position = log::SegmentLog::next(position, *record);
  }
  return result;
}

DeadLetterResult Exchange::requeue_dead(Queue& queue, const DeadLetterFilter& filter, std::uint64_t now_ns) {
  if (queue.shard != shard_) return owner_of(queue).requeue_dead(queue, filter, now_ns);
  if (queue.burying) bury_pending(queue);
  const DeadLetterResult result = walk_dead(queue, filter, [&](std::uint64_t position, const ring::EventParts& event) {
    Attempt attempt = attempt_of(event);
    Later later;
    later.due_ns = now_ns;
    later.untaken = is_untaken(event);
    // A new budget; the number goes on.
    attempt.info.budget_from = attempt.info.attempt - (later.untaken ? 1 : 0);
    ++attempt.info.requeued;
    if (!queue.retry.reserve(rewritten_bytes(event, attempt, &later))) return false;
    shm::Environment::at(shm::CrashPoint::dead_requeue);
    begin(TransactionKind::requeue, queue.id, position, 0);
    const std::uint64_t waiting = append_retry(queue, event, attempt, later);
    count_source(queue, TransactionKind::requeue, *event.header);
    commit_sinks();
    mark(*event.header, LaterState::requeued);
    queue.due.push({now_ns, waiting});
    if (queue.keys && !later.untaken) count_slot(queue, *event.header, 0, +1);
    return true;
  });
  shorten_dead(queue);
  if (result.done != 0) activate(queue);
  return result;
}

DeadLetterResult Exchange::purge_dead(Queue& queue, const DeadLetterFilter& filter) {
  if (queue.shard != shard_) return owner_of(queue).purge_dead(queue, filter);
  const DeadLetterResult result = walk_dead(queue, filter, [&](std::uint64_t position, const ring::EventParts& event) {
    shm::Environment::at(shm::CrashPoint::dead_purge);
    begin(TransactionKind::remove, queue.id, position, 0);
    touch(queue);
    count_source(queue, TransactionKind::remove, *event.header);
    commit_sinks();
    mark(*event.header, LaterState::removed);
    return true;
  });
  shorten_dead(queue);
  if (queue.ending) activate(queue);
  return result;
}

/// Letters that are gone, and that their topic has got, give back their space.
void Exchange::shorten_dead(Queue& queue) {
  const std::uint64_t until = queue.options.dead_letter_topic.empty() ? queue.dead.tail() : queue.block.dead_published;
  shorten(queue, queue.dead, queue.block.dead_head, until);
}

bool DeadLetterFilter::matches(const ring::EventParts& event) const {
  if (delivery != 0 && event.header->delivery != delivery) return false;
  if (sequence != 0 && (event.header->sequence != sequence || event.header->publisher != publisher)) return false;
  if (reason.empty()) return true;
  const std::string_view found = reason_of(event);
  return found == reason || (found.size() > reason.size() && found.starts_with(reason) && found[reason.size()] == ':');
}

}  // namespace ackring::exchange
