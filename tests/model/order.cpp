// What a member may take now: in which order, and from whom.
#include <algorithm>

#include "tests/model/model.hpp"

namespace ackring::test::model {

void Subscription::join(std::uint64_t member, std::uint64_t entry, std::uint64_t now_ns) {
  Member& joined = members_[member];
  joined.through = joined.released = joined.next_entry = entry;
  joined.last_taken_ns = now_ns;
}

void Subscription::take(const Taken& seen, std::uint64_t now_ns) {
  const auto found = events_.find(seen.id);
  if (found == events_.end()) complain(seen.id, "taken, but never matched");
  Event& event = found->second;
  Member& member = members_.at(seen.member);
  if (paused) complain(seen.id, "taken while paused");
  if (seen.entry < member.next_entry) complain(seen.id, "entry " + std::to_string(seen.entry) + " taken twice");
  if (event.place == Place::waiting && now_ns < event.due_low) complain(seen.id, "taken before it was due");
  if (now_ns < not_before(seen.id)) complain(seen.id, "taken before its time");
  if (event.place != Place::queued) {
    complain(seen.id, "taken, but its place is " + std::to_string(static_cast<int>(event.place)));
  }
  if (seen.attempt != event.attempt) {
    complain(seen.id, "attempt " + std::to_string(seen.attempt) + " instead of " + std::to_string(event.attempt));
  }
  if ((event.attempt != 1 || event.delayed) && now_ns < event.due_low) complain(seen.id, "taken before it was due");
  const Numbers& numbers = numbers_.at(event.routed);
  const bool other = event.delivery != 0 && seen.delivery != event.delivery;
  if (other || seen.delivery < numbers.first || seen.delivery > numbers.last) {
    complain(seen.id, "another delivery number: " + std::to_string(seen.delivery));
  }
  compare_causes(seen.id, event, seen.causes);
  if (seen.payload != payload_of(seen.id, event.bytes)) complain(seen.id, "another payload");
  if (seen.key != event.key) complain(seen.id, "another key");
  keep_order(seen, event, member);
  pass_over(seen.id, event);
  event.delivery = seen.delivery;
  event.delayed = event.given_back = false;
  ++counters_["delivered"];
  member.next_entry = seen.entry + 1;
  member.last_taken_ns = now_ns;
  if (options.guarantee == Guarantee::at_most_once) {
    event.place = Place::acked;
    return;
  }
  event.place = Place::in_flight;
  Take take;
  take.id = seen.id;
  member.takes[seen.entry] = take;
}

std::uint64_t Subscription::owner_of(const std::string& key) const {
  const auto owner = owners_.find(key);
  return owner == owners_.end() ? 0 : owner->second;
}

void Subscription::keep_order(const Taken& seen, const Event& event, Member& member) {
  if (options.ordered) one_open(seen, event);
  const bool keyed = options.ordered_by_key && !event.key.empty();
  if (keyed) {
    const auto [owner, fresh] = owners_.try_emplace(event.key, seen.member);
    if (!fresh && owner->second != seen.member) complain(seen.id, "its key belongs to another member");
  }
  if (event.attempt != 1 || event.late) return;
  if (keyed || options.ordered || !options.group) {
    if (options.ordered_by_key && !keyed) return;
    std::uint64_t& last = keyed ? key_orders_[event.key] : last_delivery_;
    if (seen.delivery <= last) complain(seen.id, "first deliveries are not in order");
    last = seen.delivery;
  } else if (!options.ordered_by_key) {
    if (!event.moved && seen.delivery < member.last_delivery) complain(seen.id, "not in the order of its member");
    member.last_delivery = std::max(member.last_delivery, seen.delivery);
  }
}

// Of what is ordered, nothing else is open: neither taken and not acked, nor waiting for its retry, nor on the way to it.
// What an operator brought back comes in between.
void Subscription::one_open(const Taken& seen, const Event& event) const {
  for (const auto& [number, member] : members_) {
    for (const auto& [entry, take] : member.takes) {
      if (!take.open || take.id == seen.id || !same_order(events_.at(take.id), event)) continue;
      if (effective(member, entry, take) != Word::ack) complain(seen.id, "is open beside another one");
    }
  }
  if (event.requeued) return;
  for (const auto& [id, other] : events_) {
    if (id == seen.id || other.requeued || !same_order(other, event)) continue;
    // Two that come back: the dead letter that was one of them came in between.
    if (event.attempt != 1 && (event.was_dead || other.was_dead)) continue;
    const bool returns = other.place == Place::waiting || (other.place == Place::queued && other.attempt != 1);
    if (returns) complain(seen.id, "overtakes the retry of " + std::to_string(id.sequence));
    const bool stands_first =
        other.given_back && other.had_place && other.place == Place::queued && !may_have_expired(other);
    if (stands_first && event.attempt == 1 && !event.late) {
      complain(seen.id, "overtakes " + std::to_string(id.sequence) + ", which was given back");
    }
  }
}

bool Subscription::same_order(const Event& one, const Event& other) const {
  if (options.ordered_by_key) return !one.key.empty() && one.key == other.key;
  return options.ordered || !options.group;
}

bool Subscription::stands_before(Id other, const Event& before, Id id, const Event& event) const {
  const bool both_first = before.attempt == 1 && event.attempt == 1 && !before.late && !event.late;
  if (!same_order(before, event) || (dispatched() && !both_first)) return false;
  if (!both_first && (before.loose || event.loose)) return false;
  if (before.epoch != event.epoch) return before.epoch < event.epoch;
  const bool both_due = before.due_known && event.due_known;
  return (both_first && other.publisher == id.publisher && other.sequence < id.sequence) ||
         (both_due && before.due_low < event.due_low);
}

// What stood before a taken event in the queue and was not taken can only have been dropped, or have expired.
void Subscription::pass_over(Id id, const Event& event) {
  for (auto& [other, before] : events_) {
    if (before.place != Place::queued || other == id || !stands_before(other, before, id, event)) continue;
    if (!may_drop() && !may_have_expired(before)) {
      complain(other, "was passed over by " + std::to_string(id.sequence) + ": lost, or out of order");
    }
    lose(other, before);
  }
}

bool Subscription::may_drop() const {
  return options.overflow == Overflow::drop_newest || options.overflow == Overflow::drop_oldest ||
         (options.overflow == Overflow::automatic && options.guarantee == Guarantee::at_most_once);
}

void Subscription::lose(Id id, Event& event) {
  if (event.attempt != 1 && options.overflow == Overflow::drop_newest) {
    complain(id, "a redelivery was dropped as the newest");
  }
  ++(!may_have_expired(event) ? dropped_ : may_drop() ? lost_ : expired_);
  event.place = Place::dropped;
}

// ------------------------------------------------------------------------------------------------------- out of the way

void Subscription::move(const std::vector<Id>& ids) {
  for (const Id id : ids) events_.at(id).moved = true;
}

void Subscription::take_back(std::uint64_t member, std::uint64_t now_ns) const {
  if (paused) return;
  const bool idle =
      now_ns - members_.at(member).last_taken_ns >= static_cast<std::uint64_t>(options.ack_timeout.count());
  if (!options.group || members_.size() < 2 || options.ordered_by_key || !idle) {
    throw Complaint(options.name + ": took back what a member had yet to take");
  }
}

void Subscription::pause() {
  paused = true;
  for (auto& [id, event] : events_) {
    if (event.place != Place::queued) continue;
    event.loose = event.loose || event.attempt != 1 || event.late;
    event.entered = false;  // what is not taken is taken back
  }
}

void Subscription::purge(std::uint64_t purged, std::uint64_t released, std::uint64_t now_ns, const Logs& logs) {
  find_buried(logs, now_ns);
  std::uint64_t gone = 0;
  std::uint64_t due = 0;
  for (auto& [id, event] : events_) {
    if (event.place != Place::queued && event.place != Place::waiting) continue;
    if (event.place == Place::waiting && event.due_low <= now_ns) ++due;
    event.place = Place::removed;
    ++gone;
  }
  const std::uint64_t before = dropped_seen_ + expired_seen_ - lost();  // of them
  if (purged + before != gone || released > due) {
    throw Complaint(options.name + ": " + std::to_string(purged) + " events were purged instead of " +
                    std::to_string(gone - before));
  }
  dropped_ = dropped_seen_;
  expired_ = expired_seen_;
  lost_ = 0;
  counters_["purged"] += purged;
  counters_["redelivered"] += released;
  last_delivery_ = counters_["matched"];
}

}  // namespace ackring::test::model
