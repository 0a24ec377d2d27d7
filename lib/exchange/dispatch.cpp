// Dispatch: which member of a subscription gets an event, and when, where that is not plain: groups, whose members compete
// by credit, and ordered subscriptions, of which one delivery is open at a time.
//
// All events of such a subscription go through its backlog, in order. From its head they go to the member that has the
// most credit left, a few at a time; before them go deliveries that come back (release_due), and what a member that is
// gone, or does not move, had not taken.
#include <algorithm>
#include <vector>

#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

namespace {

// Events for one member before the next one's turn: with few events each gets some, with many a transaction pays.
constexpr std::uint64_t most_at_once = 64;
// Groups of at most so many members are looked at each time for who has acked what; of larger ones the tick knows.
constexpr std::size_t few_members = 16;

}  // namespace

/// Is nothing open that has to be settled before the next event may go out?
bool may_dispatch(const Queue& queue, const shm::RecordHeader* record) {
  if (!queue.options.ordered) return true;
  if (queue.keys) {
    const auto slot = record != nullptr ? KeySlots::of(*record) : std::nullopt;
    return !slot || queue.keys->in_rings[*slot] == 0;
  }
  std::uint64_t open = 0;
  queue.each_lane([&open](const Lane& lane) { open += lane.open_entries(); });
  return open == 0;
}

/// Does a delivery that failed, and comes back, go before this one, which has not been delivered yet?
bool waits_for_retry(const Queue& queue, const shm::RecordHeader& record) {
  if (!queue.options.ordered) return false;
  if (!queue.keys) return queue.block.retry_events != queue.block.delayed_events;
  const auto slot = KeySlots::of(record);
  return slot && queue.keys->waiting[*slot] != 0;
}

/// … or one that comes back and was taken back from its member by a pause, or is delayed no more?
bool goes_behind(const Queue& queue, const shm::RecordHeader& record) {
  if (!queue.options.ordered) return false;
  const auto slot = queue.keys ? KeySlots::of(record) : std::nullopt;
  return waits_for_retry(queue, record) || queue.parked.contains(slot.value_or(shm::key_slots));
}

/// The member with the most credit, of those with room; those with the same in turn. nullptr: none has room.
Lane* member_with_room(Queue& queue, std::uint64_t bytes) {
  Lane* best = nullptr;
  std::uint64_t most = 0;
  const std::size_t count = queue.members.size();
  for (std::size_t i = 0; i < count; ++i) {
    Lane& lane = *queue.members[(queue.turn + i) % count];
    if (!lane.has_member() || lane.leaving || lane.revoked() || !lane.has_credit() || !lane.ring.fits(bytes)) continue;
    const std::uint64_t credit = lane.slots() - (lane.entries - lane.floor_entry);
    if (best != nullptr && credit <= most) continue;
    best = &lane;
    most = credit;
  }
  if (best != nullptr) ++queue.turn;
  return best;
}

bool Exchange::dispatch(Queue& queue) {
  if (queue.paused || (queue.block.backlog_events == 0 && !queue.has_orphans && queue.parked_events == 0)) return false;
  const auto settle_all = [&] { queue.each_lane([this](Lane& lane) { settle(lane); }); };
  if (queue.members.size() <= few_members) settle_all();
  bool moved = false;
  // What was taken comes before what was not. Where one delivery of a key is open at a time there are not both, unless a
  // dead letter was requeued; that one waits until what was not taken is through.
  if (queue.has_orphans && queue.keys && !queue.options.ordered) {
    release_due(queue, now_ns_);
    if (!queue.due.empty() && queue.due.top().due_ns <= now_ns_) return moved;
  }
  if (queue.has_orphans && !hand_over(queue, moved)) return moved;
  // What comes back goes first, where order is asked for.
  moved = unpark(queue) || moved;
  if (queue.keys) return dispatch_by_key(queue) || moved;
  if (queue.parked_events != 0) return moved;
  if (queue.options.ordered && queue.block.retry_events != queue.block.delayed_events) return moved;
  bool looked = queue.members.size() <= few_members;
  for (std::uint64_t events = 0; events < batch_events && may_dispatch(queue, nullptr);) {
    if (!head_in_time(queue)) break;
    std::uint64_t head = queue.block.backlog_head;
    const shm::RecordHeader* record = queue.backlog.at(head);
    if (record == nullptr) break;
    Lane* lane = member_with_room(queue, record->bytes);
    if (lane == nullptr && !looked) {
      looked = true;
      settle_all();
      lane = member_with_room(queue, record->bytes);
    }
    if (lane == nullptr) break;
    const std::uint64_t share = queue.block.backlog_events / (2 * queue.members.size());
    events += pump_into(*lane, queue.options.ordered ? 1 : std::clamp<std::uint64_t>(share, 1, most_at_once));
    moved = true;
  }
  return moved;
}

// What waits for a ring goes into it, slot by slot, as far as there is room.
bool Exchange::unpark(Queue& queue) {
  std::uint64_t events = 0;
  for (auto at = queue.parked.begin(); at != queue.parked.end() && events < batch_events;) {
    auto& positions = at->second;
    while (!positions.empty() && events < batch_events) {
      std::uint64_t position = positions.begin()->second;
      const shm::RecordHeader* record = position < queue.block.retry_head ? nullptr : queue.retry.at(position);
      if (record != nullptr && later_state(*record) == shm::LaterState::waiting) {
        const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
        if (expired(queue, event, clock_ns_)) {
          if (!expire_later(queue, position, *record)) break;
          ++events;
          positions.erase(positions.begin());
          --queue.parked_events;
          continue;
        }
        const Attempt attempt = attempt_of(event);
        const std::uint64_t bytes = rewritten_bytes(event, attempt, nullptr);
        Lane* into = nullptr;
        if (!queue.dispatched()) {
          if (queue.lane.has_member() && queue.lane.has_credit() && queue.lane.ring.fits(bytes)) into = &queue.lane;
        } else if (!waits_for_retry(queue, *record) && may_dispatch(queue, record)) {
          into = member_for(queue, *record, bytes);
        }
        if (into == nullptr) break;
        begin(shm::TransactionKind::release, queue.id, position, 0);
        release(queue, *record, attempt, *into, bytes);
        ++events;
      }
      positions.erase(positions.begin());
      --queue.parked_events;
    }
    at = positions.empty() ? queue.parked.erase(at) : std::next(at);
  }
  if (events != 0) shorten(queue, queue.retry, queue.block.retry_head);
  return events != 0;
}

// What was put into the ring of a member that is gone or does not move, and was not taken, goes to the others, before
// anything else, in the order of deliveries: events of a key may lie in two such rings, if a member died that had been
// given some of them like this. Where nobody has room it is set aside: it may be what takes the room, when every ring holds
// some that was taken back. False: some of it is left, as nobody is there.
bool Exchange::hand_over(Queue& queue, bool& moved) {
  struct Orphan {
    std::uint64_t delivery;
    std::uint64_t entry;
    Lane* lane;
  };
  std::vector<Orphan> orphans;
  const auto gone = [](const Lane& lane) { return !lane.has_member() && !lane.leaving; };
  for (const std::unique_ptr<Lane>& from : queue.members) {
    for (std::uint64_t entry = from->floor_entry; entry != from->entries; ++entry) {
      if (from->state_of(entry) != 0 || !(gone(*from) || from->is_returned(entry))) continue;
      const auto* record = reinterpret_cast<const shm::RecordHeader*>(from->record_of(entry));
      orphans.push_back({record->delivery, entry, from.get()});
    }
  }
  if (!orphans.empty() && !queue.has_member()) return false;
  std::sort(orphans.begin(), orphans.end(),
            [](const Orphan& left, const Orphan& right) { return left.delivery < right.delivery; });
  for (const auto& [delivery, entry, from] : orphans) {
    const auto* record = reinterpret_cast<const shm::RecordHeader*>(from->record_of(entry));
    const auto slot = queue.keys ? KeySlots::of(*record) : std::nullopt;
    const bool behind = queue.parked.contains(slot.value_or(shm::key_slots));
    Lane* to = behind ? nullptr : member_for(queue, *record, record->bytes);
    if (to != nullptr) {
      hand(*from, entry, *to);
    } else if (!set_aside(*from, entry, !from->has_member())) {
      return false;
    }
    moved = true;
  }
  for (std::size_t i = 0; i < queue.members.size();) {
    Lane& from = *queue.members[i];
    if (!gone(from)) {
      ++i;
      continue;
    }
    pass_decided(from, from.entries);
    if (!retire_ring(from)) {
      ++i;  // it is empty; the next exchange retires it
      continue;
    }
    queue.members.erase(queue.members.begin() + static_cast<std::ptrdiff_t>(i));
  }
  queue.has_orphans = false;
  return true;
}

// The same attempt at another member: it was not taken.
void Exchange::hand(Lane& from, std::uint64_t entry, Lane& to) {
  const auto* record = reinterpret_cast<const shm::RecordHeader*>(from.record_of(entry));
  const bool let_go = !from.has_member();
  const std::uint64_t state = static_cast<std::uint64_t>(shm::DeliveryState::returned) | (let_go ? shm::let_go_bit : 0);
  shm::Environment::at(shm::CrashPoint::group_hand);
  begin(shm::TransactionKind::hand, from.queue->id, entry, moved_to(from, state));
  shm::shared_copy(place_in_ring(to, record->bytes), record, record->bytes);
  if (from.queue->keys) count_slot(*from.queue, *record, +1, 0);
  commit_sinks();
  set_state(from, entry, shm::DeliveryState::returned, let_go);
  wake_members();
}

// Takes back what a member has not taken: from here on it is X's, whatever the member does (its `taken` is stored before
// it looks at `revoked`).
void Exchange::revoke(Lane& lane) {
  shm::Environment::at(shm::CrashPoint::group_revoke);
  lane.ring_page->revoked.store(lane.entries, std::memory_order_relaxed);  // relaxed: ordered by the barrier below
  shm::barrier_for_parker();
  settle(lane);
  lane.revoked_from = lane.taken;
  lane.revoked_to = lane.entries;
}

// A member of a group that has taken nothing for as long as a delivery may take leaves the rest to the others.
void Exchange::revoke_idle(Queue& queue, std::uint64_t served_ns) {
  const auto there = std::count_if(queue.members.begin(), queue.members.end(),
                                   [](const std::unique_ptr<Lane>& lane) { return lane->has_member(); });
  if (there < 2 || queue.keys) return;  // a key stays with its member until that goes
  for (const std::unique_ptr<Lane>& lane : queue.members) {
    if (lane->taken != lane->idle_taken || lane->taken == lane->entries || lane->idle_since_ns == 0) {
      lane->idle_taken = lane->taken;
      lane->idle_since_ns = served_ns;
      // relaxed: X's own words; a time without its `taken` begins anew
      lane->ring_page->idle_since_ns.store(served_ns, std::memory_order_relaxed);
      lane->ring_page->idle_taken.store(lane->taken, std::memory_order_relaxed);
    }
    const bool idle = served_ns - lane->idle_since_ns >= static_cast<std::uint64_t>(queue.options.ack_timeout.count());
    if (!idle || !lane->has_member() || lane->leaving || lane->revoked()) continue;
    revoke(*lane);
    queue.has_orphans = true;
  }
}

}  // namespace ackring::exchange
