// Operate: what people do to a subscription: pause it, resume it, purge it, remove it. What is in a member's ring and was
// not taken is taken back first (revoke): it is set aside in the retry log, from where it goes out again before everything
// else, or it is purged.
#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

using shm::DeliveryState;
using shm::LaterState;
using shm::TransactionKind;

void Exchange::pause(Queue& queue) {
  if (queue.shard != shard_) return owner_of(queue).pause(queue);
  set_flags(queue, true, queue.ending, queue.burying);
  queue.to_backlog = true;
  queue.each_lane([this](Lane& lane) {
    if (lane.has_member() && lane.taken != lane.entries) revoke(lane);
  });
  queue.has_orphans = true;
  activate(queue);
  bring_back(queue);
}

void Exchange::resume(Queue& queue) {
  if (queue.shard != shard_) return owner_of(queue).resume(queue);
  set_flags(queue, false, queue.ending, queue.burying);
  activate(queue);
}

void Exchange::set_flags(Queue& queue, bool paused, bool ending, bool burying) {
  const bool was_paused = queue.paused;
  const bool was_ending = queue.ending;
  const bool was_burying = queue.burying;
  queue.paused = paused;
  queue.ending = ending;
  queue.burying = burying;
  try {
    save_definition(queue);
  } catch (const Error&) {
    queue.paused = was_paused;
    queue.ending = was_ending;
    queue.burying = was_burying;
    throw;
  }
}

// What was taken back leaves its ring. False: there is no room for all of it; the next tick goes on.
bool Exchange::bring_back(Queue& queue) {
  bool all = true;
  queue.each_lane([&](Lane& lane) {
    const bool nobodys = lane.has_ring && !lane.has_member() && !lane.leaving;
    const bool gone = nobodys && (queue.dispatched() || queue.paused);
    for (std::uint64_t entry = lane.floor_entry; all && entry != lane.entries; ++entry) {
      if (lane.state_of(entry) == 0 && (gone || lane.is_returned(entry)))
        all = set_aside(lane, entry, !lane.has_member());
    }
  });
  return all;
}

// Its attempt counts as not begun. It goes before the backlog, or, with `due_ns`, comes when that time has come.
bool Exchange::set_aside(Lane& lane, std::uint64_t entry, bool let_go, std::uint64_t due_ns) {
  Queue& queue = *lane.queue;
  const ring::EventParts event = ring::parts(lane.record_of(entry));
  const Attempt attempt = attempt_of(event);
  Later later;
  later.untaken = true;
  later.due_ns = due_ns;
  if (!queue.retry.reserve(rewritten_bytes(event, attempt, &later))) return false;
  Failure back;
  back.cause = DeliveryState::returned;
  back.let_go = let_go;
  shm::Environment::at(shm::CrashPoint::pause_set_aside);
  begin(TransactionKind::set_aside, queue.id, entry, moved_to(lane, back.state_byte()));
  const std::uint64_t position = append_retry(queue, event, attempt, later);
  commit_sinks();
  set_state(lane, entry, back.cause, back.let_go);
  if (due_ns != 0) {
    queue.due.push({due_ns, position});
  } else {
    wait_first(queue, *event.header, position);
  }
  return true;
}

// What waits for the ring of its member, by slot of its key, in the order of deliveries: it goes before the backlog. Where
// one delivery is open at a time, what comes back goes first, then what is delayed no more.
void Exchange::wait_first(Queue& queue, const shm::RecordHeader& record, std::uint64_t position) {
  const auto slot = queue.keys ? KeySlots::of(record) : std::nullopt;
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  const bool delayed = event.later != nullptr && event.later->due_ns != 0;
  const std::uint64_t turn = !queue.options.ordered ? 0 : delayed ? 1 : event.attempt == nullptr ? 2 : 0;
  queue.parked[slot.value_or(shm::key_slots)][turn << 62 | record.delivery] = position;
  ++queue.parked_events;
  queue.to_backlog = true;
}

/// Everything that is not in flight goes for good. Answers how many events that were.
std::uint64_t Exchange::purge(Queue& queue, std::uint64_t now_ns) {
  if (queue.shard != shard_) return owner_of(queue).purge(queue, now_ns);
  sweep(queue, now_ns);
  const std::uint64_t before = queue.block.purged;
  queue.each_lane([this](Lane& lane) {
    if (lane.has_member() && lane.taken != lane.entries) revoke(lane);
    for (std::uint64_t entry = lane.floor_entry; entry != lane.entries; ++entry) {
      const bool untaken = !lane.has_member() && !lane.leaving;
      if (lane.state_of(entry) != 0 || !(untaken || lane.is_returned(entry))) continue;
      shm::Environment::at(shm::CrashPoint::purge_discard);
      begin(TransactionKind::discard, lane.queue->id, entry,
            moved_to(lane, static_cast<std::uint64_t>(DeliveryState::returned) | (untaken ? shm::let_go_bit : 0)));
      touch(*lane.queue);
      ++lane.queue->block.purged;
      commit_sinks();
      set_state(lane, entry, DeliveryState::returned, untaken);
    }
    if (lane.has_ring && !lane.has_member() && !lane.leaving) pass_decided(lane, lane.entries);
  });
  std::uint64_t position = queue.block.retry_head;
  while (const shm::RecordHeader* record = queue.retry.at(position)) {
    if (later_state(*record) == LaterState::waiting) {
      shm::Environment::at(shm::CrashPoint::purge_forget);
      begin(TransactionKind::forget, queue.id, position, 0);
      touch(queue);
      count_source(queue, TransactionKind::forget, *record);
      commit_sinks();
      mark(*record, LaterState::removed);
    }
    position = log::SegmentLog::next(position, *record);
  }
  queue.due = {};
  queue.parked.clear();
  queue.parked_events = 0;
  queue.each_lane([](Lane& lane) { lane.waiting.clear(); });
  shorten(queue, queue.retry, queue.block.retry_head);
  if (queue.block.backlog_events != 0) {
    // The counters are one store, and all there is to it.
    shm::Environment::at(shm::CrashPoint::purge_backlog);
    begin(TransactionKind::discard, queue.id, 0, 0);
    touch(queue);
    queue.block.purged += queue.block.backlog_events;
    queue.block.backlog_events = queue.block.backlog_bytes = 0;
    queue.block.backlog_head = queue.backlog.tail();
    commit_sinks();
    queue.backlog.release_below(queue.block.backlog_head);
  }
  activate(queue);
  return queue.block.purged - before;
}

void Exchange::end_subscription(Queue& queue, bool bury) {
  if (queue.shard != shard_) return owner_of(queue).end_subscription(queue, bury);
  const std::vector<std::string> patterns = queue.options.patterns;
  queue.options.patterns.clear();
  try {
    set_flags(queue, queue.paused, true, queue.burying || bury);
  } catch (const Error&) {
    queue.options.patterns = patterns;
    throw;
  }
  change_routes(queue, patterns, false);
  activate(queue);
}

/// Events that have been delivered to nobody, or not for the last time.
std::uint64_t Exchange::pending(const Queue& queue) {
  std::uint64_t events = queue.block.backlog_events + queue.block.retry_events;
  queue.each_lane([&events](const Lane& lane) { events += lane.open_entries(); });
  return events;
}

}  // namespace ackring::exchange
