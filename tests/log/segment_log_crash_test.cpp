// Death before every store of a writer (F3, F4): built with the test environment, where a hook can end the process
// model at the n-th store. What was committed must be there after open(), and nothing else.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/log/segment_log.hpp"
#include "lib/shm/environment.hpp"
#include "tests/log/log_records.hpp"

using namespace log_test;

namespace {

struct Death {};

struct KillBefore final : EnvironmentHook {
  explicit KillBefore(std::uint64_t nth) : left(nth) { Environment::hook = this; }
  ~KillBefore() override { Environment::hook = nullptr; }
  KillBefore(const KillBefore&) = delete;
  KillBefore& operator=(const KillBefore&) = delete;
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {
    if (left-- == 0) throw Death{};
  }
  std::uint64_t now_ns() override { return 0; }
  std::uint64_t left;
};

// What the owner keeps beside the log, and what it did: transactions of five records, and the oldest ones consumed.
struct Owner {
  std::uint64_t head = first_position;
  std::uint64_t tail = first_position;
  std::uint64_t first = 1;      // sequence of the record at the head
  std::uint64_t committed = 0;  // sequence of the last record before the tail

  void work(Directory& directory, int transactions) {
    SegmentLog log(directory, prefix, 1, small);
    log.open(head, tail);
    check(log);
    for (int i = 0; i < transactions; ++i) {
      std::uint64_t sequence = committed;
      for (int n = 0; n < 5; ++n) {
        ++sequence;
        const bool added = add(log, sequence % 11 == 0 ? 2 * small : 16 * (3 + sequence * 13 % 60), sequence);
        REQUIRE(added);  // not around the call: the framework would take a Death for a failure
      }
      if (i % 4 == 3) {
        log.truncate(tail);
        continue;
      }
      tail = log.tail();
      committed = sequence;
      while (first + 12 < committed) {
        skip_record(log, head);
        ++first;
      }
      log.release_below(head);
    }
    check(log);
  }

  void check(const SegmentLog& log) const {
    std::vector<std::uint64_t> expected;
    for (std::uint64_t sequence = first; sequence <= committed; ++sequence) expected.push_back(sequence);
    REQUIRE(sequences(log, head) == expected);
  }
};

}  // namespace

TEST_CASE("a log survives a death before any store, and a second one before any store after it") {
  std::uint64_t deaths = 0;
  bool first_died = true;
  for (std::uint64_t n = 0; first_died; ++n) {
    CAPTURE(n);
    auto directory = std::make_shared<MemoryDirectory>();
    Owner owner;
    first_died = false;
    try {
      const KillBefore kill(n);
      owner.work(*directory, 12);
    } catch (const Death&) {
      first_died = true;
      ++deaths;
    }
    bool second_died = true;
    for (std::uint64_t m = 0; second_died; m += 5) {
      auto copy = directory->clone();
      Owner next = owner;
      second_died = false;
      try {
        const KillBefore kill(m);
        next.work(*copy, 4);
      } catch (const Death&) {
        second_died = true;
        ++deaths;
      }
      next.work(*copy, 2);
    }
  }
  CHECK(deaths > 500);
}
