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
  if (kept.delivery != event.delivery) complain(id, "keeps another delivery number");
  compare_causes(id, event, kept.causes);
}

// `released_until`: what was due until then has left; otherwise nothing has.
void Subscription::compare_logs(const Logs& logs, std::optional<std::uint64_t> released_until, std::uint64_t epoch) {
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
      if (released_until && due <= *released_until) complain(id, "is due, but still waits");
      continue;
    }
    if (!released_until || event.due_low > *released_until)
      complain(id, "waits no more, but was not due: early or lost");
    event.place = Place::queued;
    event.epoch = epoch;
    event.acked_by.reset();
    ++event.attempt;
    ++counters_["redelivered"];
  }
  if (logs.dead_bytes > options.max_dead_bytes) throw Complaint(options.name + ": more dead letters than it may keep");
}

void Subscription::check(const Counters& seen) {
  const auto at = [&seen](const std::string& name) {
    const auto found = seen.find(name);
    return found == seen.end() ? 0 : found->second;
  };
  const std::uint64_t dropped = at("dropped.drop-newest") + at("dropped.drop-oldest");
  std::map<Place, std::uint64_t> places;
  std::uint64_t oldest = counters_["matched"] + 1;  // of what is not settled
  std::uint64_t oldest_at_least = oldest;           // where what was dropped may have had the numbers before it
  for (const auto& [id, event] : events_) {
    ++places[event.place];
    const bool unsettled =
        event.place == Place::queued || event.place == Place::in_flight || event.place == Place::waiting;
    if (!unsettled) continue;
    const bool perhaps_dropped = event.place == Place::queued && dropped != dropped_;
    if (event.delivery != 0 && !perhaps_dropped) oldest = std::min(oldest, event.delivery);
    oldest_at_least = std::min(oldest_at_least, event.delivery != 0 ? event.delivery : last_delivery_ + 1);
  }
  Counters want = counters_;
  want["in_flight"] = places[Place::in_flight];
  want["retry_waiting"] = places[Place::waiting];
  want["dlq_size"] = places[Place::dead];
  want["acked"] = places[Place::acked];
  want["queued"] = places[Place::queued] + dropped_ - dropped;
  want["last"] = counters_["matched"];
  const std::uint64_t committed = at("committed");
  const bool nothing_dropped = dropped == 0 && counters_["dropped.too-large"] == 0;
  if (committed + 1 < oldest_at_least || committed >= oldest || (nothing_dropped && committed + 1 != oldest_at_least) ||
      committed + at("lag") != want["last"]) {
    throw Complaint(options.name + ": committed is " + std::to_string(committed) + ", should be from " +
                    std::to_string(oldest_at_least - 1) + " to " + std::to_string(oldest - 1));
  }
  for (const char* name : {"nacked", "rejected", "timed_out", "late_acks", "redelivered", "requeued", "delivered",
                           "dead_lettered", "dlq_removed", "dropped.too-large", "expired", "purged"}) {
    want[name] += 0;
  }
  for (const auto& [name, value] : want) {
    if (at(name) != value) {
      throw Complaint(options.name + ": " + name + " is " + std::to_string(at(name)) + ", should be " +
                      std::to_string(value));
    }
  }
  if (dropped < dropped_) throw Complaint(options.name + ": lost more than it says it dropped");
}

void Subscription::drops(std::uint64_t newest, std::uint64_t oldest) {
  if (newest + oldest == dropped_seen_) return;
  dropped_seen_ = newest + oldest;
  if (!may_drop() || (options.overflow == Overflow::drop_newest ? oldest : newest) != 0) {
    throw Complaint(options.name + ": dropped against its policy");
  }
  std::uint64_t queued = dropped_ - dropped_seen_;  // below zero, but the queued ones make up for it
  for (const auto& [id, event] : events_) queued += event.place == Place::queued ? 1 : 0;
  if (queued < options.max_events) throw Complaint(options.name + ": dropped without need");
}

void Subscription::drained() {
  for (auto& [id, event] : events_) {
    if (event.place == Place::queued && may_drop()) drop(id, event);
    const bool settled = event.place == Place::acked || event.place == Place::dropped || event.place == Place::dead ||
                         event.place == Place::removed;
    if (!settled) complain(id, "is stuck at place " + std::to_string(static_cast<int>(event.place)));
  }
}

bool Subscription::undecided() const {
  if (!open_entries().empty()) return true;  // or the member has not let go of it
  return std::any_of(events_.begin(), events_.end(), [](const auto& item) {
    return item.second.place == Place::in_flight || item.second.place == Place::waiting;
  });
}

}  // namespace ackring::test::model
