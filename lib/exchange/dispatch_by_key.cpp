// Dispatch by key: a key belongs to one member until that goes, and its events reach it in order. Keys are hashed into
// slots. An event at the head of the backlog whose member has no room, or whose slot has something open in an ordered
// subscription, is parked in the retry log, so that the keys behind it do not wait; what comes later of its slot, too.
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

namespace {

// Events parked at most: beyond, the head of the backlog waits, and with it the limits of the backlog hold again.
constexpr std::uint64_t most_parked = 65'536;

}  // namespace

void Exchange::count_slot(Queue& queue, const shm::RecordHeader& record, int in_rings, int waiting) {
  const auto slot = queue.options.ordered ? KeySlots::of(record) : std::nullopt;
  if (!slot) return;
  queue.keys->in_rings[*slot] += static_cast<std::uint32_t>(in_rings);
  queue.keys->waiting[*slot] += static_cast<std::uint32_t>(waiting);
}

// The floor is about to pass entries that were acked without a state byte.
void Exchange::settle_slots(Lane& lane, std::uint64_t until) {
  if (!lane.queue->options.ordered) return;
  for (std::uint64_t entry = lane.floor_entry; entry != until; ++entry) {
    if (lane.state_of(entry) != 0) continue;
    count_slot(*lane.queue, *reinterpret_cast<const shm::RecordHeader*>(lane.record_of(entry)), -1, 0);
  }
}

/// The member that gets an event; nullptr: it has no room, or nobody has.
Lane* Exchange::member_for(Queue& queue, const shm::RecordHeader& record, std::uint64_t bytes) {
  const auto slot = queue.keys ? KeySlots::of(record) : std::nullopt;
  if (!slot) return member_with_room(queue, bytes);
  shm::Word16& owner = queue.state->slot_owners[*slot];
  const std::uint16_t number = owner.load(std::memory_order_relaxed);  // relaxed: X's own word
  Lane* lane = number != 0 ? queue.find_member(number) : nullptr;
  if (lane != nullptr && lane->has_member()) {
    // What lies untaken in the ring of one that is leaving goes before what comes now: the slot waits until it has left.
    return !lane->leaving && lane->has_credit() && lane->ring.fits(bytes) ? lane : nullptr;
  }
  lane = member_with_room(queue, bytes);
  if (lane != nullptr) owner.store(lane->number, std::memory_order_relaxed);  // relaxed: X's own word
  return lane;
}

void Exchange::free_slots(Queue& queue, std::uint64_t number) {
  for (shm::Word16& owner : queue.state->slot_owners) {
    // relaxed: X's own words
    if (owner.load(std::memory_order_relaxed) == number) owner.store(0, std::memory_order_relaxed);
  }
}

// After a restart: owners that are there no more, and what is open in the rings. index_retries() counts what is waiting.
void Exchange::recover_slots(Queue& queue) {
  if (!queue.options.ordered_by_key) return;
  queue.keys = std::make_unique<KeySlots>();
  for (shm::Word16& owner : queue.state->slot_owners) {
    const std::uint16_t number = owner.load(std::memory_order_relaxed);  // relaxed: X's own word
    if (number != 0 && queue.find_member(number) == nullptr) {
      owner.store(0, std::memory_order_relaxed);  // relaxed: as above
    }
  }
  queue.each_lane([&](const Lane& lane) {
    for (std::uint64_t entry = lane.floor_entry; entry != lane.entries; ++entry) {
      if (lane.state_of(entry) != 0) continue;
      count_slot(queue, *reinterpret_cast<const shm::RecordHeader*>(lane.record_of(entry)), +1, 0);
    }
  });
}

bool Exchange::dispatch_by_key(Queue& queue) {
  bool moved = false;
  KeySlots& keys = *queue.keys;
  for (std::uint64_t events = 0; events < batch_events; ++events) {
    if (!head_in_time(queue)) break;
    std::uint64_t head = queue.block.backlog_head;
    const shm::RecordHeader* record = queue.backlog.at(head);
    if (record == nullptr) break;
    const auto slot = KeySlots::of(*record);
    const bool behind = slot && queue.parked.contains(*slot);
    const bool busy = slot && queue.options.ordered && keys.in_rings[*slot] + keys.waiting[*slot] != 0;
    Lane* lane = behind || busy ? nullptr : member_for(queue, *record, record->bytes);
    if (lane != nullptr) {
      pump_into(*lane, 1);
    } else if (!slot || member_with_room(queue, record->bytes) == nullptr || !park(queue, *record, head)) {
      break;  // it would do nobody any good
    }
    moved = true;
  }
  return moved;
}

// The head of the backlog makes room for the events of other keys. False: there is no room for it.
bool Exchange::park(Queue& queue, const shm::RecordHeader& record, std::uint64_t at) {
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  const Attempt attempt = attempt_of(event);
  Later later;
  later.untaken = true;
  shm::SubscriptionBlock& block = queue.block;
  const std::uint64_t bytes = rewritten_bytes(event, attempt, &later);
  if (queue.parked_events >= most_parked || !queue.retry.reserve(bytes)) return false;
  shm::Environment::at(shm::CrashPoint::group_park);
  begin(shm::TransactionKind::park, queue.id, block.backlog_head, 0);
  const std::uint64_t position = append_retry(queue, event, attempt, later);
  --block.backlog_events;
  block.backlog_bytes -= record.bytes;
  block.backlog_head = log::SegmentLog::next(at, record);
  commit_sinks();
  wait_first(queue, record, position);
  queue.backlog.release_below(block.backlog_head);
  return true;
}

}  // namespace ackring::exchange
