// Extensions: words that change without being a verdict.
#include <doctest/doctest.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "tests/ring/ack_page.hpp"
#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

TEST_CASE("each extension changes the word, and none is a verdict") {
  for (const std::uint64_t slots : {1, 8}) {
    for (const std::uint64_t start : entries_near_wraps(slots)) {
      CAPTURE(start);
      Page page(slots, start);
      AckWriter writer = page.writer();
      const AckReader reader = page.reader();
      for (std::uint64_t n = 0; n < 2 * slots + 4; ++n) {
        const std::uint64_t entry = start + n;
        writer.taken(entry + 1);
        for (std::uint32_t i = 1; i <= 40; ++i) {
          REQUIRE(writer.extend(entry, i));
          const AckSeen seen = reader.seen(entry);
          REQUIRE(seen.verdict == Verdict::extend);
          REQUIRE(seen.delay == i);
          REQUIRE(seen.count == i % 16);
        }
        REQUIRE(reader.verdict(entry) == Verdict::none);
        REQUIRE_FALSE(writer.decided(entry));
        REQUIRE(reader.refused() == entry + 1);
        REQUIRE(reader.seen(entry + slots).verdict == Verdict::none);  // other laps
        REQUIRE(reader.seen(entry - slots).verdict == Verdict::none);
        REQUIRE(writer.verdict(entry, Verdict::ack));
      }
    }
  }
}

TEST_CASE("every verdict may follow an extension, and no extension a verdict") {
  for (const Verdict verdict : {Verdict::ack, Verdict::nack, Verdict::reject, Verdict::returned}) {
    Page page(4);
    AckWriter writer = page.writer();
    const AckReader reader = page.reader();
    REQUIRE(writer.extend(2, 1000));
    REQUIRE(writer.verdict(2, verdict, 77));
    CHECK_FALSE(writer.extend(2, 1000));
    CHECK_FALSE(writer.verdict(2, Verdict::ack));
    CHECK(reader.verdict(2) == verdict);
    CHECK(reader.seen(2).delay == 77);
    CHECK(reader.seen(2).count == 0);
    CHECK(writer.extend(6, 5));  // the same word, the next lap: its count begins anew
    CHECK(reader.seen(6).count == 1);
  }
}

TEST_CASE("durations that a word can't hold become the nearest that it can") {
  Page page(1);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  CHECK(writer.extend(0, 0));
  CHECK(reader.seen(0).delay == 1);
  for (const std::uint32_t many : {ring::max_delay_ms, ring::delay_default, 0xffffffffU}) {
    CHECK(writer.extend(0, many));
    CHECK(reader.seen(0).delay == ring::max_delay_ms);
    CHECK(reader.seen(1).verdict == Verdict::none);
  }
}

TEST_CASE("an extended entry that acked_through passes has no verdict of its own") {
  for (const std::uint64_t start : entries_near_wraps(8)) {
    Page page(8, start);
    AckWriter writer = page.writer();
    const AckReader reader = page.reader();
    REQUIRE(writer.extend(start + 1, 10));
    REQUIRE(writer.extend(start + 2, 10));
    REQUIRE(writer.verdict(start + 2, Verdict::nack));
    writer.ack_through(start + 4);
    CHECK(reader.acked_through() == start + 4);
    CHECK(reader.refused() == start + 3);               // X looks at the words below, and finds …
    CHECK(reader.verdict(start + 1) == Verdict::none);  // … nothing but acked_through
    CHECK(reader.verdict(start + 2) == Verdict::nack);
  }
}

#ifdef ACKRING_TEST_TSAN
constexpr std::uint64_t entries = 5'000;
#else
constexpr std::uint64_t entries = 50'000;
#endif

TEST_CASE("extensions of two threads never undo the verdict of a third") {
  const std::uint64_t slots = entries <= 8192 ? 8192 : 65'536;
  const std::uint64_t start = std::uint64_t{0} - entries / 2;
  Page page(slots, start);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  RingMemory progress(4096);
  progress.publish_head(0);  // entries decided
  shm::Word32 begun{};
  std::array<std::uint64_t, 2> extended{};
  std::vector<std::thread> heartbeats;
  for (std::size_t thread = 0; thread < 2; ++thread) {
    heartbeats.emplace_back([&, thread] {
      (void)begun.fetch_add(1, std::memory_order_relaxed);  // relaxed: only the number counts
      Deadline deadline(60);
      while (!deadline.over()) {
        const std::uint64_t at = progress.head();
        if (at == entries) break;
        for (std::uint64_t n = at; n < at + 3 && n < entries; ++n) extended[thread] += writer.extend(start + n, 9);
        ::sched_yield();
      }
    });
  }
  while (begun.load(std::memory_order_relaxed) != 2) ::sched_yield();  // relaxed: only the number counts
  std::uint64_t refused = 0;
  for (std::uint64_t n = 0; n < entries; ++n) {
    refused += !writer.verdict(start + n, n % 3 == 0 ? Verdict::nack : Verdict::ack, 5);
    progress.publish_head(n + 1);
    if (n % 256 == 0) ::sched_yield();
  }
  for (std::thread& thread : heartbeats) thread.join();
  CHECK(refused == 0);
  const std::string line = std::to_string(extended[0] + extended[1]) + " extensions";
  MESSAGE(line);
  std::uint64_t wrong = 0;
  for (std::uint64_t n = 0; n < entries; ++n) {
    wrong += reader.verdict(start + n) != (n % 3 == 0 ? Verdict::nack : Verdict::ack);
    wrong += reader.seen(start + n).delay != 5;
  }
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace ackring::test
