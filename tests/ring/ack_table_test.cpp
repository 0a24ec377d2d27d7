// The ack table against the rules at the top of ack_table.hpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <thread>
#include <vector>

#include "tests/ring/ack_page.hpp"
#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

TEST_CASE("each verdict and delay arrives, for its entry only") {
  for (const std::uint64_t slots : {1, 2, 8, 1024}) {
    for (const std::uint64_t start : entries_near_wraps(slots)) {
      CAPTURE(slots);
      CAPTURE(start);
      Page page(slots, start);
      AckWriter writer = page.writer();
      const AckReader reader = page.reader();
      for (std::uint64_t n = 0; n < 4 * slots + 8; ++n) {
        const std::uint64_t entry = start + n;
        writer.taken(entry + 1);
        REQUIRE(reader.taken() == entry + 1);
        REQUIRE(reader.verdict(entry) == Verdict::none);
        REQUIRE_FALSE(writer.decided(entry));
        constexpr std::array verdicts{Verdict::ack,      Verdict::nack,      Verdict::reject,
                                      Verdict::returned, Verdict::give_back, Verdict::nack_reason};
        const Verdict verdict = verdicts[n % verdicts.size()];
        const std::uint32_t delay = n % 3 == 0 ? ring::delay_default : static_cast<std::uint32_t>(n & 0xffffff);
        REQUIRE(writer.verdict(entry, verdict, delay));
        REQUIRE(reader.verdict(entry) == verdict);
        const AckSeen seen = reader.seen(entry);
        REQUIRE(seen.verdict == verdict);
        REQUIRE(seen.delay == delay);
        REQUIRE(seen.count == 0);
        REQUIRE(writer.decided(entry));
        REQUIRE(reader.verdict(entry + slots) == Verdict::none);  // the next lap
        REQUIRE(reader.verdict(entry - slots) == Verdict::none);  // the one before
      }
    }
  }
}

TEST_CASE("a second verdict is refused, and the first one stays") {
  for (const std::uint64_t start : entries_near_wraps(4)) {
    Page page(4, start);
    AckWriter writer = page.writer();
    const AckReader reader = page.reader();
    CHECK(writer.verdict(start, Verdict::nack, 250));
    CHECK_FALSE(writer.verdict(start, Verdict::ack));
    CHECK_FALSE(writer.verdict(start, Verdict::nack, 1));
    CHECK(reader.verdict(start) == Verdict::nack);
    CHECK(reader.seen(start).delay == 250);
    CHECK(writer.verdict(start + 4, Verdict::ack));  // the same slot, the next lap
    CHECK_FALSE(writer.verdict(start + 4, Verdict::nack));
    CHECK(reader.verdict(start + 4) == Verdict::ack);
    // A verdict for an entry of the lap before is refused, and does not touch the later one's (F30).
    CHECK_FALSE(writer.verdict(start, Verdict::nack));
    CHECK_FALSE(writer.reject(start, "late"));
    CHECK_FALSE(writer.extend(start, 1));
    CHECK(reader.verdict(start + 4) == Verdict::ack);
  }
}

TEST_CASE("a delay of more than 24 bits does not spoil the word") {
  Page page(2);
  AckWriter writer = page.writer();
  CHECK(writer.verdict(1, Verdict::nack, 0xffffffff));
  CHECK(page.reader().verdict(1) == Verdict::nack);
  CHECK(page.reader().verdict(3) == Verdict::none);
}

TEST_CASE("words with verdicts that nobody defined are none") {
  Page page(8);
  const AckReader reader = page.reader();
  for (std::uint64_t verdict = 0; verdict < 16; ++verdict) {
    page.forge(3, std::uint64_t{5} << 32 | 0x1234560 | verdict);
    const std::uint64_t entry = 5 * 8 + 3;
    const Verdict known = verdict <= 7 ? static_cast<Verdict>(verdict) : Verdict::none;
    CHECK(reader.seen(entry).verdict == known);
    CHECK(reader.verdict(entry) == (known == Verdict::extend ? Verdict::none : known));
    for (const std::uint64_t lap : {0, 4, 6}) CHECK(reader.verdict(lap * 8 + 3) == Verdict::none);
  }
  page.forge(3, ~std::uint64_t{0});
  CHECK(reader.verdict(std::uint64_t{0xffffffff} * 8 + 3) == Verdict::none);
}

TEST_CASE("a fresh page has no verdict for any entry, whatever its lap") {
  Page page(1);
  const AckReader reader = page.reader();
  for (const std::uint64_t entry : entries_near_wraps(1)) {
    for (std::uint64_t n = 0; n < 5; ++n) CHECK(reader.verdict(entry + n) == Verdict::none);
  }
}

TEST_CASE("`refused` grows with every verdict but ack, before acked_through can pass it") {
  for (const std::uint64_t start : entries_near_wraps(16)) {
    Page page(16, start);
    AckWriter writer = page.writer();
    const AckReader reader = page.reader();
    CHECK(writer.verdict(start, Verdict::ack));
    CHECK(reader.refused() == start);
    CHECK(writer.verdict(start + 5, Verdict::nack));
    CHECK(reader.refused() == start + 6);
    CHECK(writer.verdict(start + 2, Verdict::reject));
    CHECK(reader.refused() == start + 6);
    writer.ack_through(start + 8);
    CHECK(reader.acked_through() == start + 8);
    CHECK(reader.verdict(start + 5) == Verdict::nack);
    CHECK(reader.verdict(start + 2) == Verdict::reject);
    CHECK(reader.verdict(start + 3) == Verdict::none);
    writer.ack_through(start + 7);  // never goes back
    CHECK(reader.acked_through() == start + 8);
    CHECK(writer.acked_through() == start + 8);
  }
}

TEST_CASE("a word left over from 2^32 laps ago is no verdict") {
  for (const std::uint64_t slots : {std::uint64_t{1}, std::uint64_t{4}}) {
    for (const std::uint64_t first : entries_near_wraps(slots)) {
      CAPTURE(slots);
      CAPTURE(first);
      Page page(slots, first);
      AckWriter writer = page.writer();
      const AckReader reader = page.reader();
      writer.taken(first + 1);
      REQUIRE(writer.verdict(first, Verdict::ack));
      // From here on everything is acked by ack_through. A quarter of 2^32 laps at a time, in place of every entry.
      const std::uint64_t quarter = (std::uint64_t{1} << 30) * slots;
      for (std::uint64_t n = 1; n <= 4; ++n) {
        writer.ack_through(first + n * quarter);
        writer.taken(first + n * quarter + 1);
      }
      const std::uint64_t entry = first + 4 * quarter;
      CHECK(reader.verdict(entry) == Verdict::none);
      CHECK_FALSE(writer.decided(entry));
      CHECK(writer.verdict(entry, Verdict::nack));
      CHECK(reader.verdict(entry) == Verdict::nack);
    }
  }
}

TEST_CASE("verdicts of entries in flight outlive the clearing of old words") {
  const std::uint64_t slots = 8;
  Page page(slots);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  const std::uint64_t entry = (std::uint64_t{1} << 30) * slots;  // the clearing comes when this one is taken
  for (std::uint64_t back = slots - 1; back >= 1; --back) REQUIRE(writer.verdict(entry - back, Verdict::nack));
  writer.taken(entry + 1);
  for (std::uint64_t back = slots - 1; back >= 1; --back) CHECK(reader.verdict(entry - back) == Verdict::nack);
  CHECK(reader.verdict(entry) == Verdict::none);
}

// ------------------------------------------------------------------------------------------------------------- threads

#ifdef ACKRING_TEST_TSAN
constexpr std::uint64_t entries = 20'000;
#else
constexpr std::uint64_t entries = 100'000;
#endif

TEST_CASE("ack_through by several threads only grows") {
  const std::uint64_t start = std::uint64_t{0} - entries / 2;
  Page page(64, start);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t n = thread; n <= entries; n += 1 + mix(n) % 7) writer.ack_through(start + n);
      writer.ack_through(start + entries);
    });
  }
  std::uint64_t seen = start;
  bool grew = true;
  Deadline deadline(60);
  while (seen != start + entries && !deadline.over()) {
    const std::uint64_t next = reader.acked_through();
    grew = grew && next - seen <= entries;
    seen = next;
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(grew);
  CHECK(reader.acked_through() == start + entries);
}

// What entry `entry` is answered with by the stress below.
Verdict planned(std::uint64_t entry) { return static_cast<Verdict>(1 + mix(entry) % 3); }

TEST_CASE("verdicts of four threads reach X in the order in which it looks, and the views are reusable then") {
  const std::uint64_t slots = 64;
  for (const std::uint64_t start :
       {std::uint64_t{0}, (std::uint64_t{1} << 32) * slots - 1000, std::uint64_t{0} - 1000}) {
    CAPTURE(start);
    Page page(slots, start);
    AckWriter writer = page.writer();
    const AckReader reader = page.reader();
    RingMemory progress(4096);  // its tail: entries delivered; its head: entries settled
    shm::Word64& delivered = progress.words().tail;
    delivered.store(start, std::memory_order_relaxed);  // relaxed: no threads yet
    progress.publish_head(start);
    std::vector<std::uint64_t> views(slots);  // what a member sees in place
    std::array<std::uint64_t, 4> wrong_views{};
    std::vector<std::thread> members;
    for (std::uint64_t thread = 0; thread < 4; ++thread) {
      members.emplace_back([&, thread] {
        for (std::uint64_t n = thread; n < entries; n += 4) {
          Deadline deadline(60);
          while (delivered.load(std::memory_order_acquire) - start <= n) {  // acquire(test.delivered): the view
            if (deadline.over()) return;
            ::sched_yield();
          }
          if (views[(start + n) % slots] != start + n) ++wrong_views[thread];
          if (!writer.verdict(start + n, planned(start + n))) ++wrong_views[thread];
        }
      });
    }
    std::uint64_t floor = start;
    std::uint64_t next = start;
    std::uint64_t wrong = 0;
    Deadline deadline(60);
    while (floor - start < entries && !deadline.over()) {
      while (next - floor < slots && next - start < entries) {
        views[next % slots] = next;
        delivered.store(++next, std::memory_order_release);  // release(test.delivered): the view
      }
      const Verdict verdict = reader.verdict(floor);
      if (verdict == Verdict::none) {
        ::sched_yield();
        continue;
      }
      if (verdict != planned(floor)) ++wrong;
      ++floor;
    }
    for (std::thread& member : members) member.join();
    CHECK(floor - start == entries);
    CHECK(wrong == 0);
    for (const std::uint64_t count : wrong_views) CHECK(count == 0);
  }
}

TEST_CASE("a nack before an ack_through that covers it is always seen as a nack") {
  const std::uint64_t slots = 256;
  for (const std::uint64_t start : {std::uint64_t{0}, std::uint64_t{0} - 5000}) {
    Page page(slots, start);
    RingMemory progress(4096);
    progress.publish_head(start);  // X's floor: entries below it may be reused
    std::thread member([&] {
      AckWriter writer = page.writer();
      for (std::uint64_t n = 0; n < entries;) {
        const std::uint64_t batch = std::min<std::uint64_t>(1 + mix(n) % 32, entries - n);
        Deadline deadline(60);
        while (start + n + batch - progress.head() > slots) {
          if (deadline.over()) return;
          ::sched_yield();
        }
        for (std::uint64_t i = 0; i < batch; ++i, ++n) {
          if (mix(start + n) % 8 == 0) (void)writer.verdict(start + n, Verdict::nack);
        }
        writer.ack_through(start + n);
      }
    });
    const AckReader reader = page.reader();
    std::uint64_t floor = start;
    std::uint64_t wrong = 0;
    Deadline deadline(60);
    while (floor - start < entries && !deadline.over()) {
      const std::uint64_t through = reader.acked_through();
      const std::uint64_t refused = reader.refused();
      if (floor == through) ::sched_yield();
      for (; floor != through; ++floor) {
        const bool below = static_cast<std::int64_t>(refused - floor) > 0;
        const Verdict verdict = below ? reader.verdict(floor) : Verdict::none;
        if ((verdict == Verdict::nack) != (mix(floor) % 8 == 0)) ++wrong;
      }
      progress.publish_head(floor);
    }
    member.join();
    CHECK(floor - start == entries);
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace ackring::test
