// What of the model compares.
#include <algorithm>

#include "tests/model/model.hpp"

namespace ackring::test::model {

namespace {

constexpr std::size_t kept_causes = 16;
constexpr std::uint64_t before_causes = 48 + 32;  // of a redelivery's record

}  // namespace

// A record keeps the latest 16 causes, or as many as leave room for the event in a quarter of the ring.
void Subscription::compare_causes(Id id, const Event& event, const std::vector<std::uint32_t>& seen) const {
  const std::vector<std::uint32_t>& all = event.causes;
  const std::uint64_t quarter = options.ring_bytes / 4;
  const std::uint64_t used = before_causes + event.bytes + 16;
  const std::uint64_t room = quarter > used ? (quarter - used) / 16 : 0;
  const std::size_t least = std::min<std::size_t>({all.size(), kept_causes, room});
  const std::size_t most = std::min(all.size(), kept_causes);
  const bool end_of_all =
      seen.size() <= most && std::equal(seen.begin(), seen.end(), all.end() - static_cast<std::ptrdiff_t>(seen.size()));
  if (seen.size() >= least && end_of_all) return;
  std::string text = "causes";
  for (const std::uint32_t cause : seen) text += " " + std::to_string(cause);
  text += " instead of";
  for (const std::uint32_t cause : all) text += " " + std::to_string(cause);
  complain(id, text);
}

void Subscription::compare(Id id, const Event& event, const Kept& kept) const {
  if (kept.attempt != event.attempt) {
    complain(id, "keeps attempt " + std::to_string(kept.attempt) + " instead of " + std::to_string(event.attempt));
  }
  if (event.delivery != 0 && kept.delivery != event.delivery) complain(id, "keeps another delivery number");
  compare_causes(id, event, kept.causes);
}

// What was set aside has not been taken: it is the same attempt as before.
void Subscription::compare_aside(Id id, Event& event, const Logs& logs) const {
  const auto aside = logs.aside.find(id);
  if (aside == logs.aside.end()) return;
  if (event.place != Place::queued) {
    complain(id, "was set aside, but its place is " + std::to_string(static_cast<int>(event.place)));
  }
  compare(id, event, aside->second);
  event.entered = false;
}

// `released_until`: what was due until then may have left, and after a tick must have; otherwise nothing has.
void Subscription::compare_logs(const Logs& logs, std::optional<std::uint64_t> released_until, std::uint64_t epoch,
                                bool ticked) {
  for (auto& [id, event] : events_) {
    const auto waiting = logs.waiting.find(id);
    const auto dead = logs.dead.find(id);
    if (event.place == Place::dead) {
      if (dead == logs.dead.end()) complain(id, "is no dead letter any more");
      compare(id, event, dead->second);
      if (dead->second.reason != event.reason) complain(id, "is dead for '" + dead->second.reason + "'");
    } else if (dead != logs.dead.end()) {
      complain(id, "is a dead letter, but its place is " + std::to_string(static_cast<int>(event.place)));
    }
    if (event.place != Place::waiting) {
      if (waiting != logs.waiting.end()) {
        complain(id, "waits, but its place is " + std::to_string(static_cast<int>(event.place)));
      }
      compare_aside(id, event, logs);
      compare_delayed(id, event, logs, released_until, epoch, ticked);
      continue;
    }
    if (waiting != logs.waiting.end()) {
      compare(id, event, waiting->second);
      const std::uint64_t due = waiting->second.due_ns;
      if (due < event.due_low || due > event.due_high) {
        complain(id, "is due at " + std::to_string(due) + ", not from " + std::to_string(event.due_low) + " to " +
                         std::to_string(event.due_high));
      }
      event.due_low = event.due_high = due;
      event.due_known = true;
      const bool must_go = ticked && due <= *released_until && !dispatched() && !paused;
      if (must_go && !may_be_held(*released_until)) complain(id, "is due, but still waits");
      continue;
    }
    if (!released_until || event.due_low > *released_until || paused) {
      complain(id, "waits no more, but was not due: early or lost");
    }
    event.place = Place::queued;
    event.epoch = epoch;
    event.acked_by.reset();
    ++event.attempt;
    ++counters_["redelivered"];
    compare_aside(id, event, logs);
  }
  if (logs.dead_bytes > options.max_dead_bytes) throw Complaint(options.name + ": more dead letters than it may keep");
}

namespace {

std::uint64_t at(const Counters& counters, const std::string& name) {
  const auto found = counters.find(name);
  return found == counters.end() ? 0 : found->second;
}

}  // namespace

void Subscription::check(const Counters& seen) {
  const std::uint64_t dropped = at(seen, "dropped.drop-newest") + at(seen, "dropped.drop-oldest");
  const std::uint64_t expired = at(seen, "expired");
  std::map<Place, std::uint64_t> places;
  for (const auto& [id, event] : events_) ++places[event.place];
  Counters want = counters_;
  want["in_flight"] = places[Place::in_flight];
  want["retry_waiting"] = places[Place::waiting];
  want["dlq_size"] = places[Place::dead];
  want["acked"] = places[Place::acked];
  want["queued"] = places[Place::queued] + lost() - dropped - expired;
  want["last"] = counters_["matched"];
  want["members"] = members_.size();
  for (const char* name : {"nacked", "rejected", "timed_out", "late_acks", "redelivered", "requeued", "delivered",
                           "dead_lettered", "dlq_removed", "dropped.too-large", "purged"}) {
    want[name] += 0;
  }
  std::string wrong;
  for (const auto& [name, value] : want) {
    if (at(seen, name) == value) continue;
    wrong += (wrong.empty() ? " " : ", ") + name + " is " + std::to_string(at(seen, name)) + ", should be " +
             std::to_string(value);
  }
  if (!wrong.empty()) throw Complaint(options.name + ":" + wrong);
  if (dropped < dropped_ || expired < expired_ || dropped + expired < lost()) {
    throw Complaint(options.name + ": lost more than it says it dropped, or was too late");
  }
  count_settled(seen, dropped + expired);
}

// `committed` is the number before that of the oldest event that is not settled. What was not taken yet has one of those
// that were given in its epoch; what was lost is known only when it was passed over.
void Subscription::count_settled(const Counters& seen, std::uint64_t lost_seen) const {
  const std::uint64_t behind = at(counters_, "matched") + 1;
  std::uint64_t least = behind;
  std::uint64_t most = behind;
  for (const auto& [id, event] : events_) {
    const bool unsettled =
        event.place == Place::queued || event.place == Place::in_flight || event.place == Place::waiting;
    if (!unsettled) continue;
    const Numbers& numbers = numbers_.at(event.routed);
    const std::uint64_t next = dispatched() || event.late ? 0 : last_delivery_ + 1;
    least = std::min(least, event.delivery != 0 ? event.delivery : std::max(numbers.first, next));
    const bool perhaps_lost = event.place == Place::queued && lost_seen != lost();
    if (!perhaps_lost) most = std::min(most, event.delivery != 0 ? event.delivery : numbers.last);
  }
  const std::uint64_t committed = at(seen, "committed");
  const bool exact = !dispatched() && lost_seen == 0 && !in_gaps_ && at(counters_, "dropped.too-large") == 0;
  if (committed + 1 < least || committed + 1 > (exact ? least : most) || committed + at(seen, "lag") + 1 != behind) {
    throw Complaint(options.name + ": committed is " + std::to_string(committed) + ", should be from " +
                    std::to_string(least - 1) + " to " + std::to_string(most - 1));
  }
}

void Subscription::drained() {
  for (auto& [id, event] : events_) {
    if (event.place == Place::queued && (may_drop() || may_have_expired(event))) lose(id, event);
    const bool settled = event.place == Place::acked || event.place == Place::dropped || event.place == Place::dead ||
                         event.place == Place::removed;
    if (!settled) complain(id, "is stuck at place " + std::to_string(static_cast<int>(event.place)));
  }
}

bool Subscription::undecided() const {
  const bool held = std::any_of(members_.begin(), members_.end(),
                                [this](const auto& member) { return !open_entries(member.first).empty(); });
  return held || std::any_of(events_.begin(), events_.end(), [](const auto& item) {
           return item.second.place == Place::in_flight || item.second.place == Place::waiting || item.second.delayed;
         });
}

std::optional<std::uint64_t> Subscription::next_moment(std::uint64_t now_ns) const {
  std::optional<std::uint64_t> next;
  const auto consider = [&](std::uint64_t moment) {
    if (moment > now_ns && (!next || moment < *next)) next = moment;
  };
  for (const auto& [id, event] : events_) {
    if (event.place == Place::waiting && event.due_known) consider(event.due_low);
    if (event.place != Place::queued) continue;
    if (event.times.not_before_ns != 0) consider(event.times.not_before_ns);
    if (event.delayed && event.due_known) consider(event.due_low);
    if (const std::uint64_t until = deadline(id)) consider(until);
  }
  for (const auto& [number, member] : members_) {
    for (const auto& [entry, take] : member.takes) {
      const std::uint64_t ahead_ns = now_ns - served_ns_;  // of the clock of what is taken, if the exchange goes on
      const auto timeout_ns = static_cast<std::uint64_t>(options.ack_timeout.count());
      if (take.open && take.mark_ns) consider(*take.mark_ns + timeout_ns + ahead_ns);
      if (take.open && take.extensions_read != 0) consider(take.deadline_ns + ahead_ns);
    }
  }
  return next;
}

}  // namespace ackring::test::model
