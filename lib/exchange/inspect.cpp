#include "lib/exchange/inspect.hpp"

#include <algorithm>
#include <queue>
#include <vector>

#include "lib/exchange/attempt.hpp"
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

using shm::DeliveryState;
using shm::LaterState;

namespace {

ring::EventParts parts_of(const shm::RecordHeader& record) noexcept {
  return ring::parts(reinterpret_cast<const std::byte*>(&record));
}

// Calls `each` with the events of a log from `from` on, until it answers false: then `from` is the record that it refused.
// Records can only be told from payloads from the start of a segment on, and `from` may come from a client: the walk begins
// where its segment does, and passes over what is before it.
template <class Each>
bool walk_log(const log::SegmentLog& log, std::uint64_t head, std::uint64_t& from, const Each& each) {
  std::uint64_t position = std::max(head, (from >> 32 << 32) + shm::log_data_offset);
  while (const shm::RecordHeader* record = log.at(position)) {
    if (position >= from && !each(parts_of(*record))) {
      from = position;
      return false;
    }
    position = log::SegmentLog::next(position, *record);
  }
  return true;
}

std::vector<const Lane*> lanes_of(const Queue& queue) {
  std::vector<const Lane*> lanes;
  queue.each_lane([&lanes](const Lane& lane) {
    if (lane.has_ring) lanes.push_back(&lane);
  });
  return lanes;
}

// Is this open entry still to be handed out?
bool is_untaken(const Lane& lane, std::uint64_t entry) noexcept {
  return static_cast<std::int64_t>(entry - lane.taken) >= 0 || lane.is_returned(entry);
}

class Peek {
 public:
  Peek(const Queue& queue, const InspectCursor& from, const InspectBounds& bounds,
       const std::function<void(const ring::EventParts&)>& each)
      : queue_(queue), cursor_(from), bounds_(bounds), each_(each) {}

  InspectCursor run() {
    for (; cursor_.stage < InspectCursor::end; cursor_ = {cursor_.stage + 1, 0, 0, 0}) {
      if (!stage()) return cursor_;
    }
    return {InspectCursor::end, 0, 0, 0};
  }

 private:
  // False: a bound was reached, and the cursor says where.
  bool stage() {
    switch (cursor_.stage) {
      case InspectCursor::rings:
        return rings();
      case InspectCursor::parked:
        return parked();
      case InspectCursor::backlog:
        return walk_log(queue_.backlog, queue_.block.backlog_head, cursor_.position,
                        [this](const ring::EventParts& event) { return look() && show(event); });
      case InspectCursor::retry:  // of those, what is delayed
        return walk_log(queue_.retry, queue_.block.retry_head, cursor_.position, [this](const ring::EventParts& event) {
          if (!look()) return false;
          const bool delayed = later_state_of(event) == LaterState::waiting && exchange::is_untaken(event) &&
                               event.later != nullptr && event.later->due_ns != 0;
          return !delayed || show(event);
        });
      default:
        return true;
    }
  }

  // The next one of each member, then the one behind it of each, …. With one ring the position is the entry, which stays
  // right when the member takes some meanwhile.
  bool rings() {
    const std::vector<const Lane*> lanes = lanes_of(queue_);
    const bool one = !queue_.dispatched() && lanes.size() == 1;
    std::uint64_t round = cursor_.position;
    if (one) {
      const std::uint64_t first = first_of(*lanes[0]);
      round = cursor_.position - first < lanes[0]->entries - first ? cursor_.position - first : 0;
    }
    std::uint64_t rounds = 0;
    for (const Lane* lane : lanes) rounds = std::max(rounds, lane->entries - first_of(*lane));
    for (; round < rounds; ++round) {
      for (; cursor_.lane < lanes.size(); ++cursor_.lane) {
        const Lane& lane = *lanes[cursor_.lane];
        const std::uint64_t entry = first_of(lane) + round;
        const bool open = round < lane.entries - first_of(lane) && lane.state_of(entry) == 0 && is_untaken(lane, entry);
        if (look() && (!open || show(ring::parts(lane.record_of(entry))))) continue;
        cursor_.position = one ? entry : round;
        return false;
      }
      cursor_.lane = 0;
    }
    return true;
  }

  // The first entry that may be still to be handed out: what was taken back may stand before what was not taken.
  static std::uint64_t first_of(const Lane& lane) noexcept {
    const bool revoked = static_cast<std::int64_t>(lane.revoked_to - lane.floor_entry) > 0;
    return revoked ? lane.floor_entry : lane.taken;
  }

  // Those of all slots, in the order of deliveries. The position is the smallest number still to be shown.
  bool parked() {
    using Positions = std::map<std::uint64_t, std::uint64_t>;
    struct Slot {
      Positions::const_iterator next;
      Positions::const_iterator end;
      bool operator<(const Slot& other) const { return next->first > other.next->first; }
    };
    std::vector<Slot> slots;
    for (const auto& [slot, positions] : queue_.parked) {
      const auto next = positions.lower_bound(cursor_.position);
      if (next != positions.end()) slots.push_back({next, positions.end()});
    }
    std::priority_queue<Slot> order(std::less<Slot>{}, std::move(slots));
    while (!order.empty()) {
      Slot slot = order.top();
      order.pop();
      std::uint64_t position = slot.next->second;
      const shm::RecordHeader* record = position < queue_.block.retry_head ? nullptr : queue_.retry.at(position);
      const bool waiting = record != nullptr && later_state_of(parts_of(*record)) == LaterState::waiting;
      if (!look() || (waiting && !show(parts_of(*record)))) {
        cursor_.position = slot.next->first;
        return false;
      }
      if (++slot.next != slot.end) order.push(slot);
    }
    return true;
  }

  bool look() noexcept { return looked_at_++ < bounds_.looked_at; }
  bool show(const ring::EventParts& event) {
    if (done_ == bounds_.events || (done_ != 0 && bytes_ + event.header->bytes > bounds_.bytes)) return false;
    ++done_;
    bytes_ += event.header->bytes;
    each_(event);
    return true;
  }

  const Queue& queue_;
  InspectCursor cursor_;
  const InspectBounds bounds_;
  const std::function<void(const ring::EventParts&)>& each_;
  std::uint64_t done_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t looked_at_ = 0;
};

class Search {
 public:
  Search(const Queue& queue, const Wanted& wanted, const InspectCursor& from, const InspectBounds& bounds)
      : queue_(queue), wanted_(wanted), cursor_(from), left_(bounds.looked_at) {}

  Found run() {
    bool through = true;
    for (; through && cursor_.stage < InspectCursor::end;) {
      through = stage();
      if (through) cursor_ = {cursor_.stage + 1, 0, 0, 0};
    }
    if (found_.where == Found::Where::nowhere) found_.next = cursor_;
    return found_;
  }

 private:
  // False: it was found, or a bound was reached, and the cursor says where.
  bool stage() {
    switch (cursor_.stage) {
      case InspectCursor::rings:
        return rings();
      case InspectCursor::backlog:
        return walk_log(queue_.backlog, queue_.block.backlog_head, cursor_.position, [this](const auto& event) {
          return look() && !is_it(event, Found::Where::backlog) && ++cursor_.passed != 0;
        });
      case InspectCursor::retry:
        return walk_log(queue_.retry, queue_.block.retry_head, cursor_.position,
                        [this](const auto& event) { return look() && !is_it(event, Found::Where::retry); });
      case InspectCursor::dead:
        return walk_log(queue_.dead, queue_.block.dead_head, cursor_.position,
                        [this](const auto& event) { return look() && !is_it(event, Found::Where::dead); });
      default:
        return true;  // parked is in the retry log
    }
  }

  bool rings() {
    const std::vector<const Lane*> lanes = lanes_of(queue_);
    for (; cursor_.lane < lanes.size(); cursor_ = {InspectCursor::rings, cursor_.lane + 1, 0, 0}) {
      const Lane& lane = *lanes[cursor_.lane];
      std::uint64_t entry = lane.is_open(cursor_.position) ? cursor_.position : lane.floor_entry;
      if (entry == lane.floor_entry) cursor_.passed = 0;
      for (; entry != lane.entries; ++entry) {
        cursor_.position = entry;
        if (!look()) return false;
        const ring::EventParts event = ring::parts(lane.record_of(entry));
        const auto state = static_cast<DeliveryState>(lane.state_of(entry) & shm::state_mask);
        const bool here = state == DeliveryState::pending || state == DeliveryState::acked;
        if (here && is_it(event, Found::Where::ring)) {
          found_.lane = &lane;
          found_.entry = entry;
          return false;
        }
        if (state == DeliveryState::pending && is_untaken(lane, entry)) ++cursor_.passed;
      }
    }
    return true;
  }

  // A record that has left a log for another place is not the event any more.
  bool is_it(const ring::EventParts& event, Found::Where where) noexcept {
    if (!wanted_.is(*event.header)) return false;
    if (where == Found::Where::retry || where == Found::Where::dead) {
      const LaterState left = later_state_of(event);
      if (event.later == nullptr || left == LaterState::released || left == LaterState::requeued) return false;
    }
    found_.where = where;
    found_.event = event;
    found_.before = cursor_.passed;
    return true;
  }

  bool look() noexcept { return left_ != 0 && left_-- != 0; }

  const Queue& queue_;
  const Wanted wanted_;
  InspectCursor cursor_;
  std::uint64_t left_;
  Found found_;
};

}  // namespace

LaterState later_state_of(const ring::EventParts& event) noexcept {
  // acquire(later.state): where the event went
  return event.later == nullptr ? LaterState::removed
                                : static_cast<LaterState>(event.later->state.load(std::memory_order_acquire));
}

std::uint16_t publisher_slot(const Exchange& exchange, std::string_view name) {
  for (const auto& ingress : exchange.publishers()) {
    if (ingress && ingress->name == name) return ingress->slot;
  }
  return no_publisher;
}

InspectCursor peek(const Queue& queue, const InspectCursor& from, const InspectBounds& bounds,
                   const std::function<void(const ring::EventParts&)>& each) {
  return Peek(queue, from, bounds, each).run();
}

Found find(const Queue& queue, const Wanted& wanted, const InspectCursor& from, const InspectBounds& bounds) {
  return Search(queue, wanted, from, bounds).run();
}

}  // namespace ackring::exchange
