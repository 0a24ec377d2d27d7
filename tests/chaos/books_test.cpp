// The checker of the chaos run can fail: each thing that it must see is put into books that are otherwise in order.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/chaos/books.hpp"

using namespace ackring;
using namespace ackring::chaos;

namespace {

constexpr std::int64_t ms = 1'000'000;
constexpr std::uint64_t events = 60;

const std::vector<Role>& all_roles() {
  static const std::vector<Role> roles_of_run = roles();
  return roles_of_run;
}
const Role& role_of(const std::string& name) {
  return *std::find_if(all_roles().begin(), all_roles().end(),
                       [&](const Role& role) { return role.options.name == name; });
}

Json row(std::uint64_t matched, std::uint64_t acked) {
  return {{"matched", matched}, {"acked", acked},   {"purged", 0},
          {"expired", 0},       {"dlq_removed", 0}, {"dropped", Json::object()}};
}

// Publisher p0's events, each delivered once and acked a millisecond later.
struct Books {
  Round round{.seed = 7};
  SubscriptionFacts facts;

  explicit Books(const std::string& role) {
    facts.role = &role_of(role);
    round.numbers[0] = {0, events};
    for (std::uint64_t number = 1; number <= events; ++number) {
      if (!facts.role->matches(event_of(round.seed, 0, number))) continue;
      const std::int64_t at = static_cast<std::int64_t>(number) * 10 * ms;
      facts.notes.push_back({.before_ns = at,
                             .taken_ns = at,
                             .decided_ns = at + ms,
                             .done_ns = at + ms,
                             .delivery = facts.notes.size() + 1,
                             .sequence = number,
                             .attempt = 1,
                             .verdict = Verdict::ack});
    }
    facts.before = row(0, 0);
    facts.after = row(facts.notes.size(), facts.notes.size());
  }
  Note& note(std::size_t at) { return facts.notes.at(at); }
  // One more attempt of the first delivery, `after` its first one.
  Note& again(std::int64_t after) {
    Note copy = note(0);
    copy.attempt = 2;
    copy.verdict = Verdict::ack;
    copy.before_ns = copy.taken_ns = note(0).taken_ns + after;
    copy.decided_ns = copy.done_ns = copy.taken_ns + ms;
    facts.notes.push_back(copy);
    return facts.notes.back();
  }
  [[nodiscard]] Findings check() const { return check_subscription(round, facts); }
};

}  // namespace

TEST_CASE("books that are in order have no findings, with repetitions that have a cause") {
  for (const Role& role : all_roles()) {
    CAPTURE(role.options.name);
    CHECK(Books(role.options.name).check().clean());
  }
  Books nacked("group");
  nacked.note(0).verdict = Verdict::nack;
  nacked.again(5 * ms);
  CHECK(nacked.check().clean());
  CHECK(nacked.check().duplicated.at("nack") == 1);
  Books timed_out("group");
  timed_out.note(0).done_ns = 0;
  timed_out.again(260 * ms);
  CHECK(timed_out.check().clean());
  CHECK(timed_out.check().duplicated.at("timeout") == 1);
  Books died("group");
  died.note(0).done_ns = 0;
  died.facts.deaths.push_back({.slot = 0, .life = 0, .ended_ns = 12 * ms});
  died.again(5 * ms);
  CHECK(died.check().clean());
  CHECK(died.check().duplicated.at("member_death") == 1);
}

TEST_CASE("lost: nobody acked it; it never matched; it counts as acked, and nobody did") {
  Books forgotten("plain");
  forgotten.facts.notes.erase(forgotten.facts.notes.begin() + 3);
  CHECK(forgotten.check().lost == 1);
  Books unmatched("plain");
  unmatched.facts.after["matched"] = events - 1;
  CHECK(unmatched.check().lost == 1);
  Books undecided("plain");
  undecided.note(3).verdict = Verdict::none;
  CHECK(undecided.check().lost == 1);
  // What is purged is not lost, but not one event more.
  undecided.facts.after["purged"] = 1;
  undecided.facts.after["acked"] = events - 1;
  CHECK(undecided.check().lost == 0);
  undecided.note(4).verdict = Verdict::none;
  CHECK(undecided.check().lost == 1);
  Books once("once");
  once.facts.notes.pop_back();
  CHECK(once.check().lost == 1);
}

TEST_CASE("without cause: acked in time and again, too early, the same attempt, another delivery, at most once") {
  Books acked("group");
  acked.again(300 * ms);
  CHECK(acked.check().without_cause == 1);
  Books early("group");
  early.note(0).done_ns = 0;
  early.again(200 * ms);
  CHECK(early.check().without_cause == 1);
  Books same("group");
  same.again(5 * ms).attempt = 1;
  CHECK(same.check().without_cause == 1);
  Books twice("group");
  Note& second = twice.again(5 * ms);
  second.attempt = 1;
  second.delivery = 1'000;
  CHECK(twice.check().without_cause == 1);
  Books once("once");
  once.again(5 * ms);
  CHECK(once.check().without_cause == 1);
  Books unseen("group");
  unseen.note(0).attempt = 2;
  CHECK(unseen.check().without_cause == 1);
  Books too_many("plain");
  too_many.facts.after["matched"] = events + 1;
  CHECK(too_many.check().without_cause == 1);
}

TEST_CASE("broken: bytes, order, due times, recorded causes, dead letters") {
  Books bytes("plain");
  bytes.note(5).wrong = wrong_bytes;
  CHECK(bytes.check().broken == 1);
  Books order("plain");
  std::swap(order.note(5), order.note(6));
  CHECK(order.check().broken == 1);
  Books strict("strict");
  strict.note(0).verdict = Verdict::nack;
  Note late = strict.again(50 * ms);
  late.before_ns = late.taken_ns = static_cast<std::int64_t>(events) * 20 * ms;
  strict.facts.notes.back() = late;
  CHECK(strict.check().broken == 1);
  Books due("group");
  due.note(0).verdict = Verdict::nack;
  due.note(0).nack_ns = 20 * ms;
  due.again(15 * ms);
  CHECK(due.check().broken == 1);
  Books false_death("group");
  false_death.note(0).verdict = Verdict::nack;
  false_death.again(5 * ms).cause = 6;  // the exchange says: its member died
  CHECK(false_death.check().broken == 1);
  Books budget("failing");
  budget.note(0).attempt = 4;
  budget.facts.deaths.push_back({});
  CHECK(budget.check().without_cause == 2);  // three attempts that nobody noted, one death
  Books letter("letters");
  letter.round.numbers[0] = {0, 0};
  letter.round.numbers[3] = {0, 200};
  letter.facts.notes.clear();
  std::uint64_t large = 1;
  while (event_of(letter.round.seed, 3, large).topic != 3) ++large;
  letter.facts.letters = {{.publisher = 3, .sequence = large, .delivery = 1, .reason = "rejected: chaos"}};
  CHECK(letter.check().broken == 1);
}

TEST_CASE("publishers: lost, too many, repeated without being told") {
  Round round{.seed = 7};
  round.numbers[0] = round.numbers[1] = {10, 20};
  const auto row_with = [](std::uint64_t routed, std::uint64_t duplicates) {
    return Json{{"routed", routed}, {"unroutable", 0}, {"duplicates", duplicates}, {"discarded", 0}, {"in_ring", 0}};
  };
  CHECK(check_publisher(round, 0, 0, row_with(10, 0), row_with(20, 0)).clean());
  CHECK(check_publisher(round, 0, 0, row_with(10, 0), row_with(19, 0)).lost == 1);
  CHECK(check_publisher(round, 0, 0, row_with(10, 0), row_with(21, 0)).without_cause == 1);
  CHECK(check_publisher(round, 0, 0, row_with(10, 0), row_with(20, 1)).broken == 1);
  CHECK(check_publisher(round, 1, 2, row_with(10, 0), row_with(20, 2)).clean());
  CHECK(check_publisher(round, 1, 2, row_with(10, 0), row_with(20, 1)).broken == 1);
}

TEST_CASE("leaks: a file, a mapping, a descriptor, bytes; stat that does not balance") {
  const Holdings before{.descriptors = 8, .mappings = 20, .bytes = 4096, .files = {"exchange", "sub.1.json"}};
  CHECK(leaks(before, before).empty());
  Holdings now = before;
  now.files.insert("client.7.lock");
  CHECK(leaks(before, now).size() == 1);
  now = before;
  now.descriptors = 9;
  now.mappings = 21;
  now.bytes = 8192;
  CHECK(leaks(before, now).size() == 3);
  now = before;
  now.files.insert({"sub.1.retry.00000001", "sub.1.retry.00000002"});
  CHECK(leaks(before, now).size() == 1);
  now = before;  // one more who is anonymous, and was so while the others were: his totals are kept
  now.files.insert("pub.7.cursor.100");
  now.descriptors += 1;
  now.mappings += 1;
  now.bytes += 8192;
  CHECK(leaks(before, now).empty());
  now.descriptors += 1;
  CHECK(leaks(before, now).size() == 1);
  now.descriptors -= 1;
  for (int slot = 10; slot < 30; ++slot) now.files.insert("pub." + std::to_string(slot) + ".cursor.1");
  CHECK(leaks(before, now).size() == 1);
}
