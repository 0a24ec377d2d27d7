// Reasons of rejects: what X reads is one reason, whole and printable, of the entry that it asked for, or nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "lib/shm/utf8.hpp"
#include "tests/ring/ack_page.hpp"
#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

using namespace std::string_literals;

// What X learns of entry `entry`.
std::string reason_of(const AckReader& reader, std::uint64_t entry) {
  return reader.reason(entry, reader.seen(entry).delay);
}

std::string written(std::string_view reason) {
  Page page(2);
  AckWriter writer = page.writer();
  REQUIRE(writer.reject(0, reason));
  const AckReader reader = page.reader();
  REQUIRE(reader.verdict(0) == Verdict::reject);
  return reason_of(reader, 0);
}

TEST_CASE("a reason arrives with its reject, for its entry only") {
  for (const std::uint64_t slots : {1, 8, 1024}) {
    for (const std::uint64_t start : entries_near_wraps(slots)) {
      CAPTURE(slots);
      CAPTURE(start);
      Page page(slots, start);
      AckWriter writer = page.writer();
      const AckReader reader = page.reader();
      for (std::uint64_t n = 0; n < 200; ++n) {
        const std::uint64_t entry = start + n;
        const std::string reason = "no " + std::to_string(n);
        REQUIRE(writer.reject(entry, reason));
        REQUIRE(reader.verdict(entry) == Verdict::reject);
        // Entry + 1 of these two is `none` and `busy`: a reject without a reason.
        const bool nameable = entry + 2 > 1;
        REQUIRE(reason_of(reader, entry) == (nameable ? reason : ""));
        REQUIRE_FALSE(writer.reject(entry, "again"));
        REQUIRE(reason_of(reader, entry) == (nameable ? reason : ""));
        const std::uint32_t delay = reader.seen(entry).delay;
        REQUIRE(reader.reason(entry + 1, delay).empty());
        REQUIRE(reader.reason(entry - 1, delay).empty());
        REQUIRE(reader.reason(entry + slots, delay).empty());
      }
    }
  }
}

TEST_CASE("a reject without a reason uses no slot, and one after an extension has its reason") {
  Page page(8);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  REQUIRE(writer.reject(0, ""));
  CHECK(reader.verdict(0) == Verdict::reject);
  CHECK(reader.seen(0).delay == 0);
  CHECK(page.page().reasons.load(std::memory_order_relaxed) == 0);  // relaxed: one thread
  CHECK(reader.refused() == 1);
  REQUIRE(writer.extend(1, 100));
  REQUIRE(writer.reject(1, "gave up"));
  CHECK(reason_of(reader, 1) == "gave up");
  REQUIRE(writer.verdict(2, Verdict::ack));
  CHECK_FALSE(writer.reject(2, "too late"));
  CHECK(page.page().reasons.load(std::memory_order_relaxed) == 1);  // relaxed: one thread
  REQUIRE(writer.verdict(3, Verdict::reject));                      // with the default delay, which is no slot
  CHECK(reason_of(reader, 3).empty());
}

TEST_CASE("the last 64 reasons can be read, older ones are gone, their rejects are not") {
  Page page(256);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  for (std::uint64_t entry = 0; entry < 100; ++entry) REQUIRE(writer.reject(entry, std::to_string(entry)));
  for (std::uint64_t entry = 0; entry < 100; ++entry) {
    CHECK(reader.verdict(entry) == Verdict::reject);
    CHECK(reason_of(reader, entry) == (entry < 36 ? "" : std::to_string(entry)));
  }
}

TEST_CASE("long reasons are cut between characters") {
  const std::string ascii(118, 'x');
  CHECK(written(ascii + "y") == ascii + "y");
  CHECK(written(ascii + "yz") == ascii + "y");
  CHECK(written(std::string(100'000, 'x')) == ascii + "x");
  CHECK(written(ascii + "é") == ascii);
  CHECK(written(ascii.substr(1) + "é") == ascii.substr(1) + "é");
  CHECK(written(ascii.substr(1) + "€") == ascii.substr(1));
  CHECK(written(ascii.substr(2) + "€") == ascii.substr(2) + "€");
  CHECK(written(ascii.substr(2) + "😀") == ascii.substr(2));
  CHECK(written(ascii.substr(3) + "😀!") == ascii.substr(3) + "😀");
  CHECK(written(std::string(200, '\x80')) == std::string(119, '?'));  // no UTF-8: cut where it ends
}

TEST_CASE("control characters and bytes that are no UTF-8 are shown as question marks") {
  CHECK(written("grün, 緑, 😀 ~") == "grün, 緑, 😀 ~");
  CHECK(written("a\tb\nc\x1b[2J\x7f") == "a?b?c?[2J?");
  CHECK(written("\xc2\x9b"
                "31m\xc2\xa0") == "?31m\xc2\xa0");  // CSI in one character; a no-break space may stay
  CHECK(written("a\0b"s) == "a?b");
  CHECK(written("\xff\xfe\x80") == "???");
  CHECK(written("\xc0\xaf \xe0\x80\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82") == "?? ??? ??? ???? ??");
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text{static_cast<char>(byte), 'x'};
    const std::string shown = shm::printable(text);
    CHECK(shown == (byte >= 0x20 && byte < 0x7f ? text : "?x"));
  }
}

TEST_CASE("forged slots and slot numbers give a printable text or none, and no read outside") {
  Page page(8);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  REQUIRE(writer.reject(5, "reason"));
  for (const std::uint32_t delay : {0U, 2U, 65U, 4096U, 0xffffffU, 0xffffffffU}) CHECK(reader.reason(5, delay).empty());
  CHECK(reader.reason(5, 1) == "reason");
  shm::RejectReason& last = page.reason(63);
  std::memset(static_cast<void*>(&last.text), 0xff, sizeof last.text);  // no zero at its end
  last.entry.store(6, std::memory_order_relaxed);                       // relaxed: one thread
  CHECK(reader.reason(5, 64) == std::string(119, '?'));
  std::memset(static_cast<void*>(&last.text), 'a', sizeof last.text);
  CHECK(reader.reason(5, 64) == std::string(119, 'a'));
  // A name of a slot that is empty, or being written, is no entry's.
  for (const std::uint64_t name : {std::uint64_t{0}, shm::reject_reason_busy}) {
    last.entry.store(name, std::memory_order_relaxed);  // relaxed: one thread
    CHECK(reader.reason(name - 1, 64).empty());
  }
  page.forge(5, AckWord::make(0, Verdict::reject, 64));
  CHECK(reason_of(reader, 5).empty());
  page.forge(5, AckWord::make(0, Verdict::reject, 65));
  CHECK(reason_of(reader, 5).empty());
}

TEST_CASE("slots that threads died in are passed over, and when all are, only the reason is lost") {
  Page page(256);
  AckWriter writer = page.writer();
  const AckReader reader = page.reader();
  for (std::size_t slot = 0; slot < 64; ++slot) {
    if (slot != 17)
      page.reason(slot).entry.store(shm::reject_reason_busy, std::memory_order_relaxed);  // relaxed: one thread
  }
  for (std::uint64_t entry = 0; entry < 3; ++entry) {
    REQUIRE(writer.reject(entry, "r" + std::to_string(entry)));
    CHECK(reader.seen(entry).delay == 18);
    CHECK(reason_of(reader, entry) == "r" + std::to_string(entry));
  }
  page.reason(17).entry.store(shm::reject_reason_busy, std::memory_order_relaxed);  // relaxed: one thread
  REQUIRE(writer.reject(9, "lost"));
  CHECK(reader.verdict(9) == Verdict::reject);
  CHECK(reader.seen(9).delay == 0);
}

// ------------------------------------------------------------------------------------------------------------- threads

#ifdef ACKRING_TEST_TSAN
constexpr std::uint64_t entries = 4'000;
#else
constexpr std::uint64_t entries = 60'000;
#endif

// Long enough that a mixture of two shows, and different for each entry.
std::string planned(std::uint64_t entry) {
  std::string text;
  while (text.size() < 40 + entry % 70) text += std::to_string(entry) + ";";
  return text.substr(0, shm::reject_reason_bytes);
}

TEST_CASE("rejects of three threads at once: each reason that X reads is whole and of its entry") {
  for (const std::uint64_t start : {std::uint64_t{0}, std::uint64_t{0} - 1000}) {
    const std::uint64_t slots = 65'536;
    Page page(slots, start);
    AckWriter writer = page.writer();
    const AckReader reader = page.reader();
    RingMemory progress(4096);
    std::array<std::uint64_t, 3> refused{};
    std::vector<std::thread> members;
    for (std::uint64_t thread = 0; thread < 3; ++thread) {
      members.emplace_back([&, thread] {
        for (std::uint64_t n = thread; n < entries; n += 3) {
          refused[thread] += !writer.reject(start + n, planned(start + n));
          if (n % 32 == thread) ::sched_yield();
        }
      });
    }
    std::uint64_t read = 0;
    std::uint64_t wrong = 0;
    std::uint64_t next = 0;
    Deadline deadline(60);
    while (next < entries && !deadline.over()) {
      const AckSeen seen = reader.seen(start + next);
      if (seen.verdict == Verdict::none) {
        ::sched_yield();
        continue;
      }
      const std::string reason = reader.reason(start + next, seen.delay);
      wrong += seen.verdict != Verdict::reject || (!reason.empty() && reason != planned(start + next));
      read += !reason.empty();
      ++next;
    }
    for (std::thread& member : members) member.join();
    CHECK(next == entries);
    CHECK(wrong == 0);
    CHECK(read > 0);
    for (const std::uint64_t count : refused) CHECK(count == 0);
    // What is left in the slots is whole, too.
    std::uint64_t left = 0;
    for (std::uint64_t n = 0; n < entries; ++n) {
      const std::string reason = reason_of(reader, start + n);
      if (!reason.empty()) CHECK(reason == planned(start + n));
      left += !reason.empty();
    }
    CHECK(left > 0);
    CHECK(left <= 64);
  }
}

TEST_CASE("a slot that two threads write again and again while X reads it gives one text or none") {
  Page page(1024);
  const AckReader reader = page.reader();
  RingMemory progress(4096);
  // All slots but one are busy, so that both writers want that one each time.
  for (std::size_t slot = 1; slot < 64; ++slot) {
    page.reason(slot).entry.store(shm::reject_reason_busy, std::memory_order_relaxed);  // relaxed: no threads yet
  }
  std::array<std::uint64_t, 2> written{};
  std::vector<std::thread> members;
  for (std::uint64_t thread = 0; thread < 2; ++thread) {
    members.emplace_back([&, thread] {
      // Each entry once, as in a member: a name that came back could hide a change of the text between two looks.
      for (std::uint64_t entry = thread; entry < 2 * entries; entry += 2) {
        const std::string text(100, static_cast<char>('a' + entry % 26));
        written[thread] += ring::write_reason(page.page(), &page.reason(0), entry, text) != 0;
      }
      progress.stop();
    });
  }
  std::uint64_t whole = 0;
  std::uint64_t wrong = 0;
  Deadline deadline(60);
  do {
    const std::uint64_t name = page.reason(0).entry.load(std::memory_order_relaxed);  // relaxed: whose to ask for
    const std::string reason = reader.reason(name - 1, 1);
    if (reason.empty()) continue;
    ++whole;
    wrong += reason != std::string(100, static_cast<char>('a' + (name - 1) % 26));
  } while (!progress.stopped() && !deadline.over());
  for (std::thread& member : members) member.join();
  CHECK(wrong == 0);
  CHECK(written[0] + written[1] > 0);
  const std::string line = std::to_string(whole) + " read, " + std::to_string(written[0] + written[1]) + " written";
  MESSAGE(line);
}

}  // namespace
}  // namespace ackring::test
