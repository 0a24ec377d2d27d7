#include "tests/model/model.hpp"

#include <algorithm>
#include <cmath>

namespace ackring::test::model {

namespace {

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

void Subscription::route(Id id, std::size_t bytes, const std::string& key, const Times& times, std::uint64_t epoch) {
  Event event;
  event.bytes = bytes;
  event.key = key;
  event.times = times;
  event.late = event.loose = times.not_before_ns != 0;
  any_late_ = any_late_ || event.late;
  in_gaps_ = in_gaps_ || event.late;
  event.routed = event.epoch = epoch;
  const std::uint64_t number = ++counters_["matched"];
  numbers_.try_emplace(epoch, Numbers{number, number}).first->second.last = number;
  if (bytes > options.ring_bytes / 4) {
    event.place = Place::dropped;
    ++counters_["dropped.too-large"];
  }
  if (!events_.emplace(id, event).second) complain(id, "routed twice");
}

// ------------------------------------------------------------------------------------------------------------- verdicts

bool Subscription::verdict(std::uint64_t member, std::uint64_t entry, Word word, std::optional<std::uint64_t> delay_ns,
                           const std::string& reason) {
  auto& takes = members_.at(member).takes;
  const auto found = takes.find(entry);
  if (found == takes.end() || found->second.word != Word::none) return false;
  found->second.word = word;
  found->second.delay_ns = delay_ns;
  found->second.reason = reason;
  return true;
}

bool Subscription::extend(std::uint64_t member, std::uint64_t entry, std::uint64_t ns) {
  auto& takes = members_.at(member).takes;
  const auto found = takes.find(entry);
  if (found == takes.end() || found->second.word != Word::none) return false;
  ++found->second.extensions;
  found->second.extension_ns = ns;
  return true;
}

void Subscription::ack_through(std::uint64_t member, std::uint64_t entry) {
  members_.at(member).through = std::max(members_.at(member).through, entry + 1);
}

void Subscription::release(std::uint64_t member) { members_.at(member).released = members_.at(member).next_entry; }

std::vector<std::uint64_t> Subscription::open_entries(std::uint64_t member) const {
  const Member& of = members_.at(member);
  std::vector<std::uint64_t> entries;
  for (const auto& [entry, take] : of.takes) {
    if (entry >= of.released && (entry >= of.through || take.word != Word::none)) entries.push_back(entry);
  }
  return entries;
}

bool Subscription::holds(std::uint64_t member, std::uint64_t entry) const {
  const Member& of = members_.at(member);
  const auto found = of.takes.find(entry);
  return found != of.takes.end() && entry >= of.released && effective(of, entry, found->second) == Word::none;
}

Word Subscription::effective(const Member& member, std::uint64_t entry, const Take& take) {
  if (take.word != Word::none) return take.word;
  return entry < member.through ? Word::ack : Word::none;
}

// --------------------------------------------------------------------------------------------------------- the exchange

void Subscription::read_verdicts(std::uint64_t number, std::uint64_t from_ns, std::uint64_t now_ns, const Logs& logs,
                                 std::uint64_t epoch) {
  Member& member = members_.at(number);
  for (auto at = member.takes.begin(); at != member.takes.end();) {
    auto& [entry, take] = *at;
    Event& event = events_.at(take.id);
    const Word word = effective(member, entry, take);
    bool through = word != Word::none;
    if (!take.open && word == Word::ack) {
      ++counters_["late_acks"];
      if (event.place == Place::waiting && event.acked_by == Entry{number, entry}) {
        event.place = Place::acked;
      }
    } else if (take.open && word == Word::ack) {
      event.place = Place::acked;
    } else if (take.open && word == Word::give_back) {
      go_back(take, from_ns, now_ns, epoch);
    } else if (take.open && word != Word::none) {
      through = fail({number, entry}, take, word == Word::nack ? nacked : rejected, from_ns, now_ns, logs, epoch);
    } else if (take.open && take.extensions != take.extensions_read) {
      take.extensions_read = take.extensions;
      take.deadline_ns = (served_ns_ + take.extension_ns + 15) / 16 * 16;  // as it is kept
    }
    at = through ? member.takes.erase(at) : std::next(at);
  }
}

void Subscription::watch_time(std::uint64_t number, std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch,
                              std::uint64_t served_ns, bool again) {
  const auto timeout_ns = static_cast<std::uint64_t>(options.ack_timeout.count());
  for (auto& [entry, take] : members_.at(number).takes) {
    if (!take.open || take.word != Word::none) continue;
    const bool passed = take.mark_ns && served_ns - *take.mark_ns >= timeout_ns;
    const bool extended = take.extensions_read != 0;
    if (extended && passed && again &&
        !take.mark_passed) {  // the mark may have passed with the one that died, the extension with its successor
      const Event& event = events_.at(take.id);
      const auto waiting = logs.waiting.find(take.id);
      take.mark_passed =
          (waiting != logs.waiting.end() && waiting->second.attempt == event.attempt) || logs.dead.contains(take.id);
    }
    const bool over = extended ? take.mark_passed && served_ns >= take.deadline_ns : passed;
    if (extended && passed) take.mark_passed = true;
    if (over && fail({number, entry}, take, timed_out, now_ns, now_ns, logs, epoch)) continue;
    if (!take.mark_ns) take.mark_ns = served_ns;
  }
}

void Subscription::tick(std::uint64_t now_ns, std::uint64_t served_ns, const Logs& logs, std::uint64_t epoch,
                        bool again) {
  served_ns_ = served_ns;
  for (const auto& item : members_) {
    read_verdicts(item.first, now_ns, now_ns, logs, epoch);
    watch_time(item.first, now_ns, logs, epoch, served_ns, again);
  }
  find_buried(logs, now_ns);
  compare_logs(logs, now_ns, epoch, true);
}

void Subscription::look(const Logs& logs, std::uint64_t last_tick_ns, std::uint64_t epoch) {
  find_buried(logs, now_ns_);
  compare_logs(logs, last_tick_ns, epoch);
}

void Subscription::leave(std::uint64_t member, std::uint64_t last_tick_ns, std::uint64_t now_ns, const Logs& logs,
                         std::uint64_t epoch) {
  read_verdicts(member, last_tick_ns, now_ns, logs, epoch);
  for (auto& [entry, take] : members_.at(member).takes) {
    if (take.open) (void)fail({member, entry}, take, member_died, last_tick_ns, now_ns, logs, epoch);
  }
  members_.erase(member);
  for (auto& [id, event] : events_) {
    if (event.acked_by && event.acked_by->first == member) event.acked_by.reset();
  }
  std::erase_if(owners_, [member](const auto& owner) { return owner.second == member; });
  find_buried(logs, now_ns);
  compare_logs(logs, std::nullopt, epoch);
}

bool Subscription::fail(Entry which, Take& take, Cause cause, std::uint64_t from_ns, std::uint64_t now_ns,
                        const Logs& logs, std::uint64_t epoch) {
  Event& event = events_.at(take.id);
  const bool exhausted = event.attempt - event.budget_from >= options.max_deliveries;
  std::string reason = cause == rejected ? "rejected" : "max_deliveries";
  if ((cause == rejected || cause == nacked) && !take.reason.empty()) reason += ": " + take.reason;
  const bool dies = cause == rejected || exhausted;
  const bool buried = dies && bury(take.id, event, cause, reason, logs);
  if (dies && !buried && cause != member_died) return false;
  if (cause == nacked) ++counters_["nacked"];
  if (cause == rejected) ++counters_["rejected"];
  if (cause == timed_out) ++counters_["timed_out"];
  take.open = false;
  if (buried) return true;
  event.causes.push_back(cause);
  event.requeued = false;
  if (cause == member_died && dispatched()) {  // it comes to another one by way of the retry log
    wait(event, 0, from_ns, now_ns);
    return true;
  }
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
  if (cause == timed_out) event.acked_by = which;
  return true;
}

// It is as if it had not been taken, but for its place in the queue, if that has no order.
void Subscription::go_back(Take& take, std::uint64_t from_ns, std::uint64_t now_ns, std::uint64_t epoch) {
  Event& event = events_.at(take.id);
  const std::uint64_t delay_ns = options.ordered || options.ordered_by_key ? 0 : take.delay_ns.value_or(0);
  take.open = false;
  event.place = Place::queued;
  event.epoch = epoch;
  event.entered = false;
  event.had_place = event.had_place || !event.late;
  event.given_back = event.late = event.loose = true;
  event.delayed = delay_ns != 0;
  event.due_known = false;
  event.due_low = from_ns + delay_ns;
  event.due_high = now_ns + delay_ns;
  --counters_["delivered"];
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
  if (!options.retry_delays.empty()) {
    const std::size_t at =
        std::min<std::size_t>(event.attempt - event.budget_from - 1, options.retry_delays.size() - 1);
    const auto exactly = static_cast<std::uint64_t>(options.retry_delays[at].count());
    event.due_low = from_ns + exactly;
    event.due_high = now_ns + exactly;
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
  event.untaken = false;
  event.reason = reason;
  ++counters_["dead_lettered"];
  return true;
}

void Subscription::requeue(const std::vector<Id>& ids, std::uint64_t now_ns, const Logs& logs) {
  for (const Id id : ids) {
    Event& event = events_.at(id);
    if (event.place != Place::dead) complain(id, "requeued, but was no dead letter");
    event.budget_from = event.attempt - (event.untaken ? 1 : 0);
    event.was_dead = event.requeued = true;
    wait(event, 0, now_ns, now_ns);
    if (event.untaken) {
      event.place = Place::queued;
      event.late = event.loose = true;
      any_late_ = in_gaps_ = true;
    }
    ++counters_["requeued"];
  }
  compare_logs(logs, std::nullopt, 0);
}

void Subscription::purge_dead(const std::vector<Id>& ids, const Logs& logs) {
  for (const Id id : ids) {
    Event& event = events_.at(id);
    if (event.place != Place::dead) complain(id, "purged, but was no dead letter");
    event.place = Place::removed;
    ++counters_["dlq_removed"];
  }
  compare_logs(logs, std::nullopt, 0);
}

}  // namespace ackring::test::model
