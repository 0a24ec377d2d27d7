#include "tests/chaos/books.hpp"

#include <algorithm>
#include <set>

#include "tests/chaos/causes.hpp"

namespace ackring::chaos {

void Findings::tell(std::string line) {
  constexpr std::size_t enough = 40;
  if (lines.size() < enough) lines.push_back(std::move(line));
}

void Findings::add(const Findings& other) {
  deliveries += other.deliveries;
  lost += other.lost;
  without_cause += other.without_cause;
  broken += other.broken;
  for (const auto& [cause, count] : other.duplicated) duplicated[cause] += count;
  for (const std::string& line : other.lines) tell(line);
}

std::vector<Letter> letters_of(const std::string& json) {
  std::vector<Letter> letters;
  for (const Json& row : Json::parse(json)) {
    Letter letter;
    letter.publisher = publisher_number(row.at("publisher").get<std::string>());
    letter.sequence = row.at("sequence");
    letter.delivery = row.at("delivery");
    letter.reason = row.at("reason");
    letter.large = letter.publisher < publishers && row.at("topic") == topics[3];
    for (const Json& attempt : row.at("attempts")) letter.causes.push_back(attempt.at("cause"));
    letters.push_back(std::move(letter));
  }
  return letters;
}

namespace {

std::uint64_t grown(const SubscriptionFacts& facts, const char* field) {
  return facts.after.at(field).get<std::uint64_t>() - facts.before.at(field).get<std::uint64_t>();
}
std::uint64_t dropped(const Json& row) {
  std::uint64_t sum = 0;
  for (const auto& [reason, count] : row.at("dropped").items()) sum += count.get<std::uint64_t>();
  return sum;
}

std::string id_of(std::size_t publisher, std::uint64_t sequence) {
  return publisher_name(publisher) + "/" + std::to_string(sequence);
}

class Subscription {
 public:
  Subscription(const Round& round, const SubscriptionFacts& facts) : round_(round), facts_(facts), role_(*facts.role) {}

  Findings check() {
    findings_.deliveries = facts_.notes.size();
    check_bytes();
    check_attempts();
    check_order();
    check_letters();
    check_completeness();
    return std::move(findings_);
  }

 private:
  void broken(const std::string& what) {
    ++findings_.broken;
    findings_.tell(role_.options.name + ": " + what);
  }

  void check_bytes() {
    for (const Note& note : facts_.notes) {
      if (note.publisher >= publishers) {
        broken("delivery " + std::to_string(note.delivery) + " is of a publisher that nobody knows");
        continue;
      }
      if (note.wrong == 0) continue;
      const char* what = (note.wrong & wrong_bytes) != 0   ? "topic, key or payload are another event's"
                         : (note.wrong & wrong_time) != 0  ? "came before its delay was over"
                         : (note.wrong & wrong_later) != 0 ? "its bytes changed while it was held"
                                                           : "its first verdict was refused";
      broken(describe(note) + ": " + what);
    }
  }

  // Each (delivery, attempt) once, each delivery of one event, each event by one delivery; a cause for each attempt.
  void check_attempts() {
    std::map<std::pair<std::size_t, std::uint64_t>, std::uint64_t> delivery_of;
    for (const Note& note : facts_.notes) {
      by_delivery_[note.delivery].push_back(&note);
      const auto [at, fresh] = delivery_of.try_emplace({note.publisher, note.sequence}, note.delivery);
      if (!fresh && at->second != note.delivery) {
        ++findings_.without_cause;
        findings_.tell(role_.options.name + ": " + describe(note) + " is delivery " + std::to_string(at->second) +
                       ", too");
      }
    }
    Causes causes(round_, facts_, findings_);
    for (auto& [delivery, notes] : by_delivery_) {
      std::stable_sort(notes.begin(), notes.end(),
                       [](const Note* a, const Note* b) { return a->attempt < b->attempt; });
      const Note* previous = nullptr;
      for (const Note* note : notes) {
        causes.explain(previous, *note);
        previous = note;
      }
    }
    causes.finish();
  }

  void check_order() {
    std::vector<const Note*> notes;
    for (const Note& note : facts_.notes) notes.push_back(&note);
    if (role_.members > 1) {
      std::stable_sort(notes.begin(), notes.end(),
                       [](const Note* a, const Note* b) { return a->taken_ns < b->taken_ns; });
    }
    std::map<std::string, const Note*> last;
    for (const Note* note : notes) {
      if (note->publisher >= publishers) continue;
      const Event event = event_of(round_.seed, note->publisher, note->sequence);
      std::string line = publisher_name(note->publisher);
      switch (role_.order) {
        case Order::none:
          continue;
        case Order::strict:
          line.clear();
          break;
        case Order::keys:
          if (event.key.empty()) continue;
          line += "/" + event.key;
          [[fallthrough]];
        case Order::first:
          if (note->attempt != 1 || event.delay.count() != 0) continue;
      }
      const Note*& before = last[line];
      const bool fine = before == nullptr || (role_.order == Order::strict ? note->delivery >= before->delivery
                                                                           : note->sequence > before->sequence);
      if (!fine) broken(describe(*note) + " came after " + describe(*before));
      before = note;
    }
  }

  // What is dead was rejected or has used up its attempts, and is nothing else at the same time.
  void check_letters() {
    std::set<std::uint64_t> seen;
    for (const Letter& letter : facts_.letters) {
      const std::string name = "dead letter " + id_of(letter.publisher, letter.sequence);
      if (!seen.insert(letter.delivery).second) broken(name + " is there twice");
      const auto found = by_delivery_.find(letter.delivery);
      const Note* last = found == by_delivery_.end() ? nullptr : found->second.back();
      bool rejected = false;
      if (found != by_delivery_.end()) {
        for (const Note* note : found->second) rejected = rejected || note->verdict == Verdict::reject;
      }
      if (letter.reason.starts_with("rejected")) {
        if (!rejected) broken(name + ": nobody has rejected it");
      } else if (letter.reason != "max_deliveries") {
        broken(name + ": for the reason '" + letter.reason + "'");
      } else if (letter.causes.size() < role_.options.max_deliveries && !letter.large) {
        broken(name + ": after " + std::to_string(letter.causes.size()) + " attempts");
      }
      if (last != nullptr && settled_in_time(role_, *last) && last->verdict == Verdict::ack) {
        broken(name + " was acked in time: " + describe(*last));
      }
    }
    letters_ = std::move(seen);
  }

  void check_completeness() {
    std::uint64_t expected = 0;
    std::uint64_t missing = 0;
    std::uint64_t lasting = 0;  // of the missing, those that can't have expired
    std::string examples;
    std::array<std::vector<bool>, publishers> there;
    for (std::size_t p = 0; p < publishers; ++p) there[p].resize(round_.numbers[p].last - round_.numbers[p].before);
    const auto mark = [&](std::size_t publisher, std::uint64_t sequence) {
      if (publisher >= publishers) return;
      const Numbers& numbers = round_.numbers[publisher];
      if (sequence > numbers.before && sequence <= numbers.last &&
          role_.matches(event_of(round_.seed, publisher, sequence))) {
        there[publisher][sequence - numbers.before - 1] = true;
      } else {
        broken(id_of(publisher, sequence) + " came, which was not published in this round, or to another topic");
      }
    };
    std::uint64_t acked = 0;
    for (const auto& [delivery, notes] : by_delivery_) {
      const bool done = std::any_of(notes.begin(), notes.end(), [this](const Note* note) {
        return role_.at_most_once() || note->verdict == Verdict::ack;
      });
      if (done) mark(notes.front()->publisher, notes.front()->sequence);
      acked += done ? 1 : 0;
    }
    for (const Letter& letter : facts_.letters) mark(letter.publisher, letter.sequence);
    for (std::size_t p = 0; p < publishers; ++p) {
      for (std::uint64_t i = 0; i < there[p].size(); ++i) {
        const Event event = event_of(round_.seed, p, round_.numbers[p].before + 1 + i);
        if (!role_.matches(event)) continue;
        ++expected;
        if (there[p][i]) continue;
        ++missing;
        if (event.ttl.count() == 0) ++lasting;
        if (missing <= 8) examples += " " + id_of(p, round_.numbers[p].before + 1 + i);
      }
    }
    const std::uint64_t matched = grown(facts_, "matched");
    const std::uint64_t gone =
        grown(facts_, "purged") + grown(facts_, "dlq_removed") + dropped(facts_.after) - dropped(facts_.before);
    const std::uint64_t expired = grown(facts_, "expired");
    // Who is killed between taking and noting has taken all the same, which at most once is the end of it.
    const std::uint64_t unnoted = role_.at_most_once() ? facts_.deaths.size() * (role_.views ? 16 : 1) : 0;
    if (matched > expected) {
      findings_.without_cause += matched - expected;
      findings_.tell(role_.options.name + ": matched " + std::to_string(matched) + " events of " +
                     std::to_string(expected));
    }
    const std::uint64_t too_few = expected > matched ? expected - matched : 0;
    const std::uint64_t gone_at_most = gone + unnoted;
    std::uint64_t lost = std::max(too_few, missing > gone_at_most + expired ? missing - gone_at_most - expired : 0);
    lost = std::max(lost, lasting > gone_at_most ? lasting - gone_at_most : 0);
    const std::uint64_t settled = grown(facts_, "acked");
    if (!role_.at_most_once() && settled > acked) lost = std::max(lost, settled - acked);
    if (role_.at_most_once() && acked > settled) broken("more was taken than is counted");
    if (lost == 0) return;
    findings_.lost += lost;
    findings_.tell(role_.options.name + ": " + std::to_string(lost) + " events lost: published " +
                   std::to_string(expected) + ", matched " + std::to_string(matched) + ", acked " +
                   std::to_string(settled) + " and by their members " + std::to_string(acked) + ", dropped or purged " +
                   std::to_string(gone) + ", expired " + std::to_string(expired) + ", dead " +
                   std::to_string(facts_.letters.size()) + "; among those not seen settled:" + examples);
  }

  const Round& round_;
  const SubscriptionFacts& facts_;
  const Role& role_;
  Findings findings_;
  std::map<std::uint64_t, std::vector<const Note*>> by_delivery_;
  std::set<std::uint64_t> letters_;
};

}  // namespace

Findings check_subscription(const Round& round, const SubscriptionFacts& facts) {
  return Subscription(round, facts).check();
}

Findings check_publisher(const Round& round, std::size_t number, std::uint64_t repeated, const Json& before,
                         const Json& after) {
  Findings findings;
  const auto grew = [&](const char* field) {
    return after.at(field).get<std::uint64_t>() - (before.is_null() ? 0 : before.at(field).get<std::uint64_t>());
  };
  const std::uint64_t published = round.numbers[number].last - round.numbers[number].before;
  const std::uint64_t routed = grew("routed") + grew("unroutable");
  const std::string name = publisher_name(number);
  if (routed < published) {
    findings.lost += published - routed;
    findings.tell(name + ": published " + std::to_string(published) + ", routed " + std::to_string(routed));
  } else if (routed > published) {
    findings.without_cause += routed - published;
    findings.tell(name + ": published " + std::to_string(published) + ", routed " + std::to_string(routed));
  }
  const bool repeats = static_cast<Style>(number) == Style::numbered;
  if (repeats ? grew("duplicates") < repeated : grew("duplicates") != 0) {
    ++findings.broken;
    findings.tell(name + ": repeated " + std::to_string(repeated) + ", known as duplicates " +
                  std::to_string(grew("duplicates")));
  }
  if (grew("discarded") != 0 || after.at("in_ring") != 0) {
    ++findings.broken;
    findings.tell(name + ": events were discarded, or are still in its ring: " + after.dump());
  }
  return findings;
}

}  // namespace ackring::chaos
