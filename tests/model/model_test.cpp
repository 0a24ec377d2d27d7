// Random operations on the real exchange against a plain model (model.hpp). ACKRING_MODEL_SEED=N runs one seed and prints
// what it does; ACKRING_MODEL_SEEDS=N runs the first N, ACKRING_MODEL_FROM=N begins elsewhere.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/model/driver.hpp"

using namespace ackring::test::model;

namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}

void print_notes(const Driver& driver, std::size_t most) {
  const std::vector<std::string>& notes = driver.notes();
  for (std::size_t i = notes.size() > most ? notes.size() - most : 0; i < notes.size(); ++i) {
    std::printf("  %s\n", notes[i].c_str());
  }
}

/// What the model complains about; empty: nothing.
std::string complaint_of(Driver& driver) {
  try {
    driver.run();
  } catch (const Complaint& complaint) {
    return complaint.what();
  }
  return {};
}

}  // namespace

TEST_CASE("whatever clients do in whatever order, the exchange does as the model says") {
  const std::uint64_t one = from_environment("ACKRING_MODEL_SEED", 0);
  const std::uint64_t first = one != 0 ? one : from_environment("ACKRING_MODEL_FROM", 1);
  const std::uint64_t count = one != 0 ? 1 : from_environment("ACKRING_MODEL_SEEDS", 5'000);
  int failures = 0;
  Counters happened;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    Driver driver(seed, one != 0 || seed % 64 == 0);
    const std::string complaint = complaint_of(driver);
    for (const auto& [what, times] : driver.happened()) happened[what] += times;
    if (one != 0) print_notes(driver, driver.notes().size());
    if (complaint.empty()) continue;
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), complaint.c_str());
    print_notes(driver, 40);
    FAIL_CHECK("seed " << seed << ": " << complaint << "; replay: ACKRING_MODEL_SEED=" << seed);
    if (++failures == 20) return;
  }
  if (count < 100) return;
  for (const char* what : {"acked",
                           "nacked",
                           "rejected",
                           "timed_out",
                           "late_acks",
                           "redelivered",
                           "requeued",
                           "dead_lettered",
                           "dlq_size",
                           "dlq_removed",
                           "dropped.drop-newest",
                           "dropped.drop-oldest",
                           "dropped.too-large",
                           "blocked",
                           "held",
                           "restarts",
                           "restarts in recovery",
                           "deaths",
                           "purged",
                           "paused",
                           "set aside",
                           "idle",
                           "ended",
                           "expired",
                           "delayed",
                           "given back",
                           "dead: max_deliveries with a reason",
                           "duplicates",
                           "listed delays",
                           "dead: expired",
                           "dead: overflow",
                           "dead: removed"}) {
    const std::string name = what;
    CAPTURE(name);
    // Nothing of it is so rare that it goes untested. What takes many steps comes in clusters: a few hundred runs may be
    // without it.
    if (count >= 1'000 || name != "dead: removed") CHECK(happened[what] > count / 100);
  }
}

TEST_CASE("the model notices every kind of lie") {
  for (const Lie lie :
       {Lie::lost, Lie::duplicated, Lie::reordered, Lie::early, Lie::wrong_attempt, Lie::wrong_cause,
        Lie::wrong_payload, Lie::key_reordered, Lie::wrong_member, Lie::unsettled, Lie::undue, Lie::expired}) {
    std::uint64_t told = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
      Driver driver(seed, false, lie);
      const bool noticed = !complaint_of(driver).empty();
      CAPTURE(static_cast<int>(lie));
      CAPTURE(seed);
      CHECK(noticed == driver.lied());
      told += driver.lied() ? 1 : 0;
    }
    CAPTURE(static_cast<int>(lie));
    CHECK(told > 10);
  }
}
