// What of the model knows of time and room: events that wait for their time, that are too late, that a full queue loses.
#include <algorithm>
#include <utility>

#include "tests/model/model.hpp"

namespace ackring::test::model {

std::uint64_t Subscription::deadline(Id id) const {
  const auto found = events_.find(id);
  if (found == events_.end()) return 0;
  const Event& event = found->second;
  if (event.place != Place::queued || event.attempt != 1 || event.was_dead || event.entered) return 0;
  const auto ttl = static_cast<std::uint64_t>(options.ttl.count());
  const std::uint64_t by_ttl = ttl == 0 ? 0 : std::max(event.times.published_ns, event.times.not_before_ns) + ttl;
  if (event.times.expires_ns == 0 || by_ttl == 0) return event.times.expires_ns + by_ttl;
  return std::min(event.times.expires_ns, by_ttl);
}

// What was dead has no times any more.
std::uint64_t Subscription::not_before(Id id) const {
  const auto found = events_.find(id);
  return found == events_.end() || found->second.was_dead ? 0 : found->second.times.not_before_ns;
}

bool Subscription::too_late(const Event& event, std::uint64_t now_ns) const {
  if (event.attempt != 1 || event.was_dead) return false;
  const auto ttl = static_cast<std::uint64_t>(options.ttl.count());
  const std::uint64_t from = std::max(event.times.published_ns, event.times.not_before_ns);
  return (event.times.expires_ns != 0 && now_ns >= event.times.expires_ns) || (ttl != 0 && now_ns >= from + ttl);
}

// What is in a ring has made it, unless it is taken back from there.
bool Subscription::may_have_expired(const Event& event) const {
  if (options.dead_letter_expired || (event.entered && !event.moved)) return false;
  return event.place == Place::queued && too_late(event, now_ns_);
}

void Subscription::enter(Id id, std::uint64_t now_ns) {
  Event& event = events_.at(id);
  const bool first = event.place == Place::queued && event.attempt == 1 && !event.was_dead && !event.entered;
  event.entered = true;
  if (!first) return;
  if (too_late(event, now_ns)) complain(id, "comes to a member, but its time was over");
  if (now_ns < event.times.not_before_ns) complain(id, "comes to a member before its time");
}

void Subscription::compare_delayed(Id id, Event& event, const Logs& logs, std::optional<std::uint64_t> released_until,
                                   std::uint64_t epoch, bool ticked) {
  const auto found = logs.delayed.find(id);
  if (found == logs.delayed.end()) {
    if (!event.delayed || event.place != Place::queued) return;
    if (!released_until || event.due_low > *released_until || paused) complain(id, "is delayed no more: early or lost");
    event.delayed = event.loose = false;
    event.epoch = epoch;
    return;
  }
  if (event.place != Place::queued || !event.late) {
    complain(id, "is delayed, but its place is " + std::to_string(static_cast<int>(event.place)));
  }
  compare(id, event, found->second);
  const std::uint64_t due = event.given_back || event.was_dead ? found->second.due_ns : event.times.not_before_ns;
  const bool in_time = event.due_low <= due && due <= event.due_high;
  if (found->second.due_ns != due || ((event.given_back || event.was_dead) && !in_time))
    complain(id, "is delayed until " + std::to_string(found->second.due_ns));
  event.delayed = event.due_known = true;
  event.due_low = event.due_high = due;
  event.delivery = found->second.delivery;
  const bool must_go = ticked && due <= *released_until && !dispatched() && !paused;
  if (must_go && !may_be_held(*released_until)) complain(id, "may be delivered, but is still delayed");
}

// Where what is too late has to become a dead letter, and finds no room, what is due behind it waits.
bool Subscription::may_be_held(std::uint64_t until_ns) const {
  return options.dead_letter_expired && std::any_of(events_.begin(), events_.end(), [&](const auto& item) {
           return item.second.delayed && item.second.due_low <= until_ns && too_late(item.second, until_ns);
         });
}

// ---------------------------------------------------------------------------------------------------- without a verdict

bool Subscription::may_bury() const {
  return burying || options.dead_letter_expired || options.overflow == Overflow::dead_letter;
}

std::uint64_t Subscription::queued() const {
  return static_cast<std::uint64_t>(std::count_if(events_.begin(), events_.end(),
                                                  [](const auto& item) { return item.second.place == Place::queued; }));
}

// What became a dead letter without having been taken. An overflow needs a queue that is full without it.
void Subscription::find_buried(const Logs& logs, std::uint64_t now_ns) {
  if (!may_bury()) return;
  const auto before = static_cast<std::uint64_t>(std::count_if(events_.begin(), events_.end(), [&](const auto& item) {
    const bool goes_back = item.second.place == Place::waiting && item.second.due_low <= now_ns;
    return item.second.place == Place::queued || goes_back;
  }));
  std::uint64_t too_many = 0;
  for (const auto& [id, kept] : logs.dead) {
    const auto found = events_.find(id);
    if (found == events_.end()) complain(id, "is a dead letter, but never matched");
    Event& event = found->second;
    if (event.place != Place::queued && event.place != Place::waiting) continue;
    buried(id, event, kept, now_ns);
    if (event.reason == "overflow") ++too_many;
  }
  if (too_many != 0 && before - too_many < options.max_events) {
    throw Complaint(options.name + ": buried without need");
  }
}

void Subscription::buried(Id id, Event& event, const Kept& kept, std::uint64_t now_ns) {
  const bool waited = event.place == Place::waiting;
  if (waited && kept.untaken) {  // it had just gone back
    if (!event.due_known && event.due_low > now_ns) complain(id, "was buried before it was due");
    ++event.attempt;
    ++counters_["redelivered"];
  }
  const bool first = !waited && event.attempt == 1 && !event.was_dead;
  const bool expired = kept.reason == "expired" && options.dead_letter_expired && first && too_late(event, now_ns);
  const bool overflowed = kept.reason == "overflow" && options.overflow == Overflow::dead_letter && first;
  const bool removed = kept.reason == "removed" && burying;
  if (!expired && !overflowed && !removed) complain(id, "is dead for '" + kept.reason + "'");
  if (!waited && !kept.untaken) complain(id, "is dead as if it had been taken");
  event.place = Place::dead;
  event.reason = kept.reason;
  event.untaken = kept.untaken;
  event.delayed = event.entered = false;
  event.acked_by.reset();
  in_gaps_ = true;
  ++buried_;
  ++counters_["dead_lettered"];
}

// ---------------------------------------------------------------------------------------------------------------- lost

void Subscription::losses(std::uint64_t newest, std::uint64_t oldest, std::uint64_t expired, std::uint64_t now_ns) {
  now_ns_ = now_ns;
  const std::uint64_t before = queued() + std::exchange(buried_, 0);
  if (newest + oldest != dropped_seen_) {
    // What is delayed can make no other one go: it goes itself, and what is routed with it.
    const bool right_end = options.overflow == Overflow::drop_newest ? oldest == 0 : newest == 0 || any_late_;
    if (!may_drop() || !right_end) throw Complaint(options.name + ": dropped against its policy");
    // Below zero it may be, but the queued ones make up for it.
    if (before + lost() - newest - oldest - expired_seen_ < options.max_events) {
      throw Complaint(options.name + ": dropped without need");
    }
    dropped_seen_ = newest + oldest;
  }
  if (expired == expired_seen_) return;
  expired_seen_ = expired;
  std::uint64_t most = expired_ + lost_;
  for (const auto& [id, event] : events_) most += may_have_expired(event) ? 1 : 0;
  if (expired > most) throw Complaint(options.name + ": expired what was in time");
}

}  // namespace ackring::test::model
