// Timing: events that may not be delivered yet, or not any more. A delayed one waits in the retry log. One that expires is
// looked at when it is routed, and whenever it leaves backlog or retry log, until it has entered a member's ring; in a
// backlog that is not moving, when it is the oldest.
#include <algorithm>
#include <limits>

#include "lib/exchange/deliver.hpp"
#include "lib/exchange/snapshot.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::TimingInfo;
using shm::TransactionKind;

namespace {

// Expired events that go in one transaction: nobody waits long for it (F37).
constexpr std::uint64_t expired_at_once = 4096;

// The parts of an event of an ingress ring, whose header has been validated. What the client wrote behind it may still
// change: whatever it says then is as good as what it said before.
ring::EventParts parts_of(const RecordHeader& header, const std::byte* body) noexcept {
  ring::EventParts event{};
  event.header = &header;
  if ((header.flags & shm::flag_timing) != 0) {
    event.timing = reinterpret_cast<const TimingInfo*>(body);
    body += sizeof(TimingInfo);
  }
  event.payload = body;
  event.key = event.payload + header.payload_bytes;
  event.headers = event.key + header.key_bytes;
  return event;
}

}  // namespace

/// Is it too late to deliver this event for the first time? Its times come from its publisher: they may be any numbers.
bool expired(const Queue& queue, const ring::EventParts& event, std::uint64_t now_ns) {
  if (event.attempt != nullptr) return false;
  const auto ttl = static_cast<std::uint64_t>(queue.options.ttl.count());
  std::uint64_t from = event.header->published_ns;
  if (event.timing != nullptr) {
    if (event.timing->expires_ns != 0 && now_ns >= event.timing->expires_ns) return true;
    from = std::max(from, event.timing->not_before_ns);
  }
  return ttl != 0 && now_ns >= from && now_ns - from >= ttl;
}

/// The way of events that have times, or sinks that have some. False: it can't be routed yet.
bool Exchange::route_timed(const Route& route, RecordHeader header, const std::byte* body, std::uint64_t now_ns,
                           bool redoing) {
  header.topic = route.topic;
  TimingInfo timing{};
  ring::EventParts event = parts_of(header, body);
  if (event.timing != nullptr) {
    timing = *event.timing;  // read once: all sinks decide by the same times
    asm volatile("" ::: "memory");
    event.timing = &timing;
  }
  for (Queue* queue : route.sinks) {
    if (!ready_timed(*queue, event, now_ns, redoing)) return false;
  }
  for (Queue* queue : route.sinks) {
    if (queue->fate == Fate::place) {
      put(*queue, header, body);
    } else {
      put_slowly(*queue, header, body);
    }
  }
  return true;
}

bool Exchange::ready_timed(Queue& queue, const ring::EventParts& event, std::uint64_t now_ns, bool redoing) {
  const std::uint64_t bytes = event.header->bytes;
  touch(queue);
  queue.fate = Fate::place;
  // What put() drops, or what a redo finds in its sink already.
  if (bytes > queue.largest_record || queue.dropping || event.header->sequence <= queue.skip_through) return true;
  // A redo has no time, and neither has who reads the ring of a publisher's earlier run: what may have expired goes where
  // it is looked at again.
  if (now_ns == 0 && (queue.options.ttl.count() != 0 || event.timing != nullptr)) {
    close_window(queue);
    queue.to_backlog = true;
  }
  if (!redoing && expired(queue, event, now_ns)) {
    if (!queue.options.dead_letter_expired) {
      queue.fate = Fate::expire;
      return true;
    }
    queue.fate = Fate::bury;
    return queue.stage <= Stage::dead && dead_ready(queue, bytes + dead_extra_bytes);
  }
  // What is kept for those who come later is kept at once; they will get it when it is time.
  const bool for_members = queue.role == Role::ordinary;
  if (for_members && event.timing != nullptr && event.timing->not_before_ns > now_ns)
    return ready_delayed(queue, bytes, redoing);
  return ready(queue, bytes, now_ns, redoing);
}

// Room in the retry log for an event that is not to be delivered yet; the limits of the backlog hold for it, too.
bool Exchange::ready_delayed(Queue& queue, std::uint64_t bytes, bool redoing) {
  if (queue.stage > Stage::retry) return false;
  queue.fate = Fate::delay;
  const Overflow policy = queue.overflow();
  const bool over = !redoing && over_limits(queue, bytes);
  if (over && policy == Overflow::dead_letter) return overflow_ready(queue, bytes);
  if (!over && queue.retry.reserve(bytes + sizeof(shm::LaterInfo))) return true;
  if (policy == Overflow::block || policy == Overflow::dead_letter) return false;
  queue.fate = Fate::drop;  // there is no oldest one that could make room
  return true;
}

// An event that goes neither into the ring nor into the backlog. What comes behind it in this transaction may not be
// committed before it: the window is closed already, and ready_slowly() ends the batch.
void Exchange::put_aside(Queue& queue, const RecordHeader& header, const std::byte* body) {
  RecordHeader own = header;
  own.delivery = queue.block.matched;
  const ring::EventParts event = parts_of(own, body);
  Later later;
  later.untaken = true;
  switch (queue.fate) {
    case Fate::place:
      return;
    case Fate::delay:
      queue.stage = Stage::retry;
      later.due_ns = std::max<std::uint64_t>(event.timing->not_before_ns, 1);
      queue.due.push({later.due_ns, append_retry(queue, event, attempt_of(event), later)});
      return;
    case Fate::expire:
      queue.stage = Stage::counted;
      ++queue.block.expired;
      return;
    case Fate::drop:
      queue.stage = Stage::counted;
      ++queue.block.dropped_newest;
      return;
    case Fate::bury:
    case Fate::overflow:
      queue.stage = Stage::dead;
      later.dead_unix_ns = unix_now_ns();
      later.reason = queue.fate == Fate::bury ? "expired" : "overflow";
      append_dead(queue, event, attempt_of(event), later);
      return;
  }
}

/// Takes what has expired from the head of the backlog, some of it at a time. True: the head may be delivered.
bool Exchange::head_in_time(Queue& queue) {
  if (!queue.may_expire()) {
    if (queue.block.backlog_events == 0) queue.block.backlog_expires = 0;
    return true;
  }
  shm::SubscriptionBlock& block = queue.block;
  std::uint64_t head = block.backlog_head;
  std::uint64_t gone = 0;
  const auto too_late = [&](const RecordHeader* record) {
    return record != nullptr && expired(queue, ring::parts(reinterpret_cast<const std::byte*>(record)), clock_ns_);
  };
  const RecordHeader* record = queue.backlog.at(head);
  while (gone < expired_at_once && too_late(record)) {
    ++gone;
    if (queue.options.dead_letter_expired) {
      if (!give_up(queue, "expired")) return false;
      head = block.backlog_head;
    } else {
      // The counters are one store, and all there is to it.
      if (gone == 1) begin(TransactionKind::discard, queue.id, 0, 0);
      touch(queue);
      ++block.expired;
      --block.backlog_events;
      block.backlog_bytes -= record->bytes;
      head = log::SegmentLog::next(head, *record);
      block.backlog_head = head;
    }
    record = queue.backlog.at(head);
  }
  if (gone != 0 && !queue.options.dead_letter_expired) {
    commit_sinks();
    queue.backlog.release_below(block.backlog_head);
  }
  return record != nullptr && !too_late(record);
}

/// What waits in the retry log for its first delivery, and has expired there. False: dead letters have no room.
bool Exchange::expire_later(Queue& queue, std::uint64_t position, const RecordHeader& record) {
  if (queue.options.dead_letter_expired) return give_up_later(queue, position, record, "expired");
  shm::Environment::at(shm::CrashPoint::expire_later);
  begin(TransactionKind::expire, queue.id, position, 0);
  touch(queue);
  count_source(queue, TransactionKind::expire, record);
  commit_sinks();
  mark(record, shm::LaterState::expired);
  return true;
}

}  // namespace ackring::exchange
