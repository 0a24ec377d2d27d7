#include "tests/model/model.hpp"

#include <algorithm>
#include <cmath>

namespace ackring::test::model {

namespace {

constexpr std::uint64_t longest_gap_ns = 20'000'000;
constexpr std::size_t kept_causes = 16;
constexpr std::uint64_t record_overhead = 48 + 48 + 32 + 16;  // more than any record has besides payload and causes

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == '.') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

bool words_match(const std::vector<std::string>& pattern, std::size_t p, const std::vector<std::string>& topic,
                 std::size_t t) {
  if (p == pattern.size()) return t == topic.size();
  if (pattern[p] == "#") {
    return words_match(pattern, p + 1, topic, t) || (t < topic.size() && words_match(pattern, p, topic, t + 1));
  }
  return t < topic.size() && (pattern[p] == "*" || pattern[p] == topic[t]) && words_match(pattern, p + 1, topic, t + 1);
}

}  // namespace

std::string payload_of(Id id, std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) {
    text[i] = static_cast<char>(id.publisher * 31 + id.sequence * 7 + (id.sequence >> 5) + i * 13);
  }
  return text;
}

bool topic_matches(const std::string& pattern, const std::string& topic) {
  return words_match(words_of(pattern), 0, words_of(topic), 0);
}

bool Subscription::matches(const std::string& topic) const {
  return std::any_of(options.patterns.begin(), options.patterns.end(),
                     [&topic](const std::string& pattern) { return topic_matches(pattern, topic); });
}

void Subscription::complain(Id id, const std::string& what) const {
  throw Complaint(options.name + ": " + std::to_string(id.publisher) + "/" + std::to_string(id.sequence) + ": " + what);
}

void Subscription::route(Id id, std::size_t bytes, std::uint64_t epoch) {
  Event event;
  event.bytes = bytes;
  event.epoch = epoch;
  ++counters_["matched"];
  if (bytes > options.ring_bytes / 4) {
    event.place = Place::dropped;
    ++counters_["dropped.too-large"];
  }
  if (!events_.emplace(id, event).second) complain(id, "routed twice");
}

// ----------------------------------------------------------------------------------------------------------- the member

// The entries of a new member begin where those of the last one ended.
void Subscription::join() { through_ = released_ = last_entry_; }

void Subscription::take(const Taken& seen, std::uint64_t now_ns) {
  const auto found = events_.find(seen.id);
  if (found == events_.end()) complain(seen.id, "taken, but never matched");
  Event& event = found->second;
  if (seen.entry < last_entry_) complain(seen.id, "entry " + std::to_string(seen.entry) + " taken twice");
  if (event.place == Place::waiting && now_ns < event.due_low) complain(seen.id, "taken before it was due");
  if (event.place != Place::queued) {
    complain(seen.id, "taken, but its place is " + std::to_string(static_cast<int>(event.place)));
  }
  if (seen.attempt != event.attempt) {
    complain(seen.id, "attempt " + std::to_string(seen.attempt) + " instead of " + std::to_string(event.attempt));
  }
  if (event.delivery != 0 && seen.delivery != event.delivery) complain(seen.id, "another delivery number");
  if (event.attempt == 1) {
    if (seen.delivery <= last_delivery_) complain(seen.id, "first deliveries are not in order");
    last_delivery_ = seen.delivery;
  } else if (now_ns < event.due_low) {
    complain(seen.id, "taken before it was due");
  }
  compare_causes(seen.id, event, seen.causes);
  if (seen.payload != payload_of(seen.id, event.bytes)) complain(seen.id, "another payload");
  pass_over(seen.id, event);
  event.delivery = seen.delivery;
  ++counters_["delivered"];
  last_entry_ = seen.entry + 1;
  if (options.guarantee == Guarantee::at_most_once) {
    event.place = Place::acked;
    return;
  }
  event.place = Place::in_flight;
  Take take;
  take.id = seen.id;
  takes_[seen.entry] = take;
}

// What stood before a taken event in the queue and was not taken can only have been dropped.
void Subscription::pass_over(Id id, const Event& event) {
  for (auto& [other, before] : events_) {
    if (before.place != Place::queued || other == id) continue;
    bool earlier = before.epoch < event.epoch;
    if (before.epoch == event.epoch) {
      const bool both_first = before.attempt == 1 && event.attempt == 1;
      const bool both_due = before.due_known && event.due_known;
      earlier = (both_first && other.publisher == id.publisher && other.sequence < id.sequence) ||
                (both_due && before.due_low < event.due_low);
    }
    if (!earlier) continue;
    if (!may_drop()) complain(other, "was passed over by " + std::to_string(id.sequence) + ": lost, or out of order");
    drop(other, before);
  }
}

bool Subscription::may_drop() const {
  return options.overflow == Overflow::drop_newest || options.overflow == Overflow::drop_oldest ||
         (options.overflow == Overflow::automatic && options.guarantee == Guarantee::at_most_once);
}

void Subscription::drop(Id id, Event& event) {
  if (event.attempt != 1 && options.overflow == Overflow::drop_newest) {
    complain(id, "a redelivery was dropped as the newest");
  }
  event.place = Place::dropped;
  ++dropped_;
}

bool Subscription::verdict(std::uint64_t entry, Word word, std::optional<std::uint64_t> delay_ns,
                           const std::string& reason) {
  const auto found = takes_.find(entry);
  if (found == takes_.end() || found->second.word != Word::none) return false;
  found->second.word = word;
  found->second.delay_ns = delay_ns;
  found->second.reason = reason;
  return true;
}

bool Subscription::extend(std::uint64_t entry, std::uint64_t ns) {
  const auto found = takes_.find(entry);
  if (found == takes_.end() || found->second.word != Word::none) return false;
  ++found->second.extensions;
  found->second.extension_ns = ns;
  return true;
}

void Subscription::ack_through(std::uint64_t entry) { through_ = std::max(through_, entry + 1); }

void Subscription::release() { released_ = last_entry_; }

std::vector<std::uint64_t> Subscription::open_entries() const {
  std::vector<std::uint64_t> entries;
  for (const auto& [entry, take] : takes_) {
    if (entry >= released_ && (entry >= through_ || take.word != Word::none)) entries.push_back(entry);
  }
  return entries;
}

bool Subscription::holds(std::uint64_t entry) const {
  const auto found = takes_.find(entry);
  return found != takes_.end() && entry >= released_ && effective(entry, found->second) == Word::none;
}

Word Subscription::effective(std::uint64_t entry, const Take& take) const {
  if (take.word != Word::none) return take.word;
  return entry < through_ ? Word::ack : Word::none;
}

// --------------------------------------------------------------------------------------------------------- the exchange

void Subscription::read_verdicts(std::uint64_t from_ns, std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch) {
  for (auto at = takes_.begin(); at != takes_.end();) {
    auto& [entry, take] = *at;
    Event& event = events_.at(take.id);
    const Word word = effective(entry, take);
    bool through = word != Word::none;
    if (!take.open && word == Word::ack) {
      ++counters_["late_acks"];
      if (event.place == Place::waiting && event.acked_by == entry) {
        event.place = Place::acked;
      }
    } else if (take.open && word == Word::ack) {
      event.place = Place::acked;
    } else if (take.open && word != Word::none) {
      through = fail(entry, take, word == Word::nack ? nacked : rejected, from_ns, now_ns, logs, epoch);
    } else if (take.open && take.extensions != take.extensions_read) {
      take.extensions_read = take.extensions;
      take.deadline_ns = now_ns + take.extension_ns;
    }
    at = through ? takes_.erase(at) : std::next(at);
  }
}

void Subscription::watch_time(std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch, bool again) {
  const auto timeout_ns = static_cast<std::uint64_t>(options.ack_timeout.count());
  for (auto& [entry, take] : takes_) {
    if (!take.open || take.word != Word::none) continue;
    const bool passed = take.mark_ns && now_ns - *take.mark_ns >= timeout_ns;
    const bool extended = take.extensions_read != 0;
    bool over = extended ? take.mark_passed && now_ns >= take.deadline_ns : passed;
    if (extended && passed) take.mark_passed = true;
    if (over && again) {  // it may have been seen by the one that died
      const Event& event = events_.at(take.id);
      const auto waiting = logs.waiting.find(take.id);
      over = (waiting != logs.waiting.end() && waiting->second.attempt == event.attempt) || logs.dead.contains(take.id);
    }
    if (over && fail(entry, take, timed_out, now_ns, now_ns, logs, epoch)) continue;
    if (!take.mark_ns || again) take.mark_ns = now_ns;
    if (again) {
      take.mark_passed = false;
      if (extended) take.deadline_ns = now_ns + take.extension_ns;
    }
  }
}

void Subscription::tick(std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch, bool again) {
  if (last_tick_ns_ != 0 && now_ns > last_tick_ns_ + longest_gap_ns) {
    const std::uint64_t excess = now_ns - last_tick_ns_ - longest_gap_ns;
    for (auto& [entry, take] : takes_) {
      if (take.mark_ns) *take.mark_ns += excess;
      take.deadline_ns += excess;
    }
  }
  last_tick_ns_ = now_ns;
  read_verdicts(now_ns, now_ns, logs, epoch);
  watch_time(now_ns, logs, epoch, again);
  compare_logs(logs, now_ns, epoch);
}

void Subscription::leave(std::uint64_t last_tick_ns, std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch) {
  read_verdicts(last_tick_ns, now_ns, logs, epoch);
  for (auto& [entry, take] : takes_) {
    if (take.open) (void)fail(entry, take, member_died, last_tick_ns, now_ns, logs, epoch);
  }
  takes_.clear();
  for (auto& [id, event] : events_) event.acked_by.reset();
  compare_logs(logs, std::nullopt, epoch);
}

void Subscription::restart() {
  last_tick_ns_ = 0;
  for (auto& [entry, take] : takes_) {
    take.mark_ns.reset();
    take.mark_passed = false;
    take.extensions_read = 0;
  }
}

bool Subscription::fail(std::uint64_t entry, Take& take, Cause cause, std::uint64_t from_ns, std::uint64_t now_ns,
                        const Logs& logs, std::uint64_t epoch) {
  Event& event = events_.at(take.id);
  const bool exhausted = event.attempt - event.budget_from >= options.max_deliveries;
  const std::string rejection = take.reason.empty() ? "rejected" : "rejected: " + take.reason;
  const bool dies = cause == rejected || exhausted;
  const bool buried = dies && bury(take.id, event, cause, cause == rejected ? rejection : "max_deliveries", logs);
  if (dies && !buried && cause != member_died) return false;
  if (cause == nacked) ++counters_["nacked"];
  if (cause == rejected) ++counters_["rejected"];
  if (cause == timed_out) ++counters_["timed_out"];
  take.open = false;
  if (buried) return true;
  event.causes.push_back(cause);
  if (cause == member_died) {
    event.place = Place::queued;
    event.epoch = epoch;
    event.due_known = false;
    event.due_low = from_ns;
    ++event.attempt;
    ++counters_["redelivered"];
    return true;
  }
  wait(event, cause == nacked ? take.delay_ns : std::nullopt, from_ns, now_ns);
  if (cause == timed_out) event.acked_by = entry;
  return true;
}

void Subscription::wait(Event& event, std::optional<std::uint64_t> delay_ns, std::uint64_t from_ns,
                        std::uint64_t now_ns) const {
  event.place = Place::waiting;
  event.due_known = false;
  event.acked_by.reset();
  if (delay_ns) {
    event.due_low = from_ns + *delay_ns;
    event.due_high = now_ns + *delay_ns;
    return;
  }
  const auto initial = static_cast<double>(options.backoff_initial.count());
  double nominal = initial;
  for (std::uint32_t i = 1; i < event.attempt - event.budget_from && nominal != 0; ++i) {
    nominal *= options.backoff_multiplier;
    if (nominal > static_cast<double>(options.backoff_max.count())) break;
  }
  nominal = std::min(nominal, static_cast<double>(options.backoff_max.count()));
  const auto low = static_cast<std::uint64_t>(nominal * (1 - options.jitter));
  const auto high = static_cast<std::uint64_t>(std::ceil(nominal * (1 + options.jitter)));
  event.due_low = from_ns + (low > 1 ? low - 1 : 0);  // a nanosecond for rounding
  event.due_high = now_ns + high + 1;
}

bool Subscription::bury(Id id, Event& event, Cause cause, const std::string& reason, const Logs& logs) {
  const auto found = logs.dead.find(id);
  if (found == logs.dead.end() || found->second.reason != reason) {
    const std::uint64_t most = record_overhead + event.bytes + reason.size() + kept_causes * 16;
    if (logs.dead_bytes + most <= options.max_dead_bytes) complain(id, "not among the dead letters");
    return false;
  }
  event.causes.push_back(cause);
  event.place = Place::dead;
  event.reason = reason;
  ++counters_["dead_lettered"];
  return true;
}

void Subscription::requeue(const std::vector<Id>& ids, std::uint64_t now_ns, const Logs& logs) {
  for (const Id id : ids) {
    Event& event = events_.at(id);
    if (event.place != Place::dead) complain(id, "requeued, but was no dead letter");
    event.budget_from = event.attempt;
    wait(event, 0, now_ns, now_ns);
    ++counters_["requeued"];
  }
  compare_logs(logs, std::nullopt, 0);
}

void Subscription::purge(const std::vector<Id>& ids, const Logs& logs) {
  for (const Id id : ids) {
    Event& event = events_.at(id);
    if (event.place != Place::dead) complain(id, "purged, but was no dead letter");
    event.place = Place::removed;
    ++counters_["dlq_removed"];
  }
  compare_logs(logs, std::nullopt, 0);
}

}  // namespace ackring::test::model
