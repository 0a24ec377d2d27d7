// RingReader::read_checked and refresh against rings that their writer forged (F25, F26).
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

constexpr std::uint64_t ring_size = 4096;

// One header at `index`, with the tail `committed` bytes behind it, read by a reader that starts there.
struct Forged {
  explicit Forged(std::uint64_t index = 0) : memory(ring_size, ring_size * 5 + index), at(index) {}

  ReadStatus read(const RecordHeader& forged, std::uint64_t committed) {
    // Near the end of the ring only the bytes that are there are written.
    const std::uint64_t room = std::min<std::uint64_t>(sizeof forged, ring_size - at);
    std::memcpy(memory.data() + at, &forged, room);
    memory.words().tail.store(ring_size * 5 + at + committed, std::memory_order_relaxed);  // relaxed: one thread
    reader = memory.reader();
    REQUIRE(reader.refresh());
    return reader.read_checked(header, record);
  }

  RingMemory memory;
  std::uint64_t at;
  RingReader reader;
  RecordHeader header{};
  const std::byte* record = nullptr;
};

RecordHeader padding_header(std::uint64_t bytes) {
  RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(bytes);
  header.kind = static_cast<std::uint16_t>(RecordKind::padding);
  return header;
}

TEST_CASE("a well-formed record of every part is accepted") {
  Forged ring;
  RecordHeader header = event_header(1, 100);
  header.key_bytes = 20;
  header.headers_bytes = 30;
  header.bytes = static_cast<std::uint32_t>(ring::record_bytes(100, 20, 30));
  CHECK(ring.read(header, header.bytes) == ReadStatus::record);
  CHECK(ring.record == ring.memory.data());
  CHECK(std::memcmp(&ring.header, &header, sizeof header) == 0);
  header.kind = static_cast<std::uint16_t>(RecordKind::topic);
  CHECK(ring.read(header, header.bytes) == ReadStatus::record);
  header = event_header(1, ring_size - sizeof header);  // the whole ring: X checks limits of events itself
  CHECK(ring.read(header, ring_size) == ReadStatus::record);
}

TEST_CASE("`bytes` must be the aligned sum of the parts, and committed") {
  Forged ring;
  const RecordHeader good = event_header(1, 100);
  const std::uint32_t bytes = good.bytes;
  for (const std::uint32_t wrong : {0u, 1u, 8u, 15u, 16u, 32u, 47u, bytes - 16, bytes - 1, bytes + 1, bytes + 15,
                                    bytes + 16, 4096u, 4112u, 0x7fffffffu, 0x80000000u, 0xfffffff0u, 0xffffffffu}) {
    CAPTURE(wrong);
    RecordHeader header = good;
    header.bytes = wrong;
    CHECK(ring.read(header, ring_size) == ReadStatus::damaged);
    CHECK(ring.reader.position() == ring_size * 5);
  }
  for (std::uint64_t committed = 16; committed < bytes; committed += 16) {
    CHECK(ring.read(good, committed) == ReadStatus::damaged);
  }
  CHECK(ring.read(good, bytes) == ReadStatus::record);
}

TEST_CASE("lengths near 2^32 do not add up to a small record") {
  Forged ring;
  for (const std::uint32_t large :
       {101u, 0x7fffffffu, 0x80000000u, 0xffffff00u, 0xffffffd0u, 0xfffffff0u, 0xffffffffu}) {
    CAPTURE(large);
    RecordHeader header = event_header(1, 100);
    header.payload_bytes = large;
    CHECK(ring.read(header, ring_size) ==
          ((large + 15) / 16 == (100 + 15) / 16 ? ReadStatus::record : ReadStatus::damaged));
    header.payload_bytes = 0;
    header.headers_bytes = large;
    CHECK(ring.read(header, ring_size) ==
          ((large + 15) / 16 == (100 + 15) / 16 ? ReadStatus::record : ReadStatus::damaged));
    // Two lengths whose 32-bit sum is 100.
    header.payload_bytes = large;
    header.headers_bytes = 100 - large;
    if (std::uint64_t{large} + (100 - large) != 100) CHECK(ring.read(header, ring_size) == ReadStatus::damaged);
  }
  RecordHeader header = event_header(1, 100);
  header.key_bytes = 0xffff;
  CHECK(ring.read(header, ring_size) == ReadStatus::damaged);
}

TEST_CASE("kinds other than event, topic and padding are damage, and so are flags") {
  Forged ring;
  for (std::uint32_t kind = 0; kind <= 0xffff; ++kind) {
    RecordHeader header = event_header(1, 100);
    header.kind = static_cast<std::uint16_t>(kind);
    const bool known =
        kind == static_cast<std::uint32_t>(RecordKind::event) || kind == static_cast<std::uint32_t>(RecordKind::topic);
    REQUIRE(ring.read(header, ring_size) == (known ? ReadStatus::record : ReadStatus::damaged));
  }
  for (std::uint32_t flag = 1; flag <= 0x8000; flag *= 2) {
    RecordHeader header = event_header(1, 100);
    header.flags = static_cast<std::uint16_t>(flag);
    CHECK(ring.read(header, ring_size) == ReadStatus::damaged);
  }
  CHECK(ring.read(RecordHeader{}, ring_size) == ReadStatus::damaged);  // a hole punched into the file
}

TEST_CASE("padding must end exactly where the ring ends, inside what is committed") {
  for (std::uint64_t rest = 16; rest <= 256; rest += 16) {
    CAPTURE(rest);
    Forged ring(ring_size - rest);
    for (const std::uint64_t wrong :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{8}, rest - 16, rest - 1, rest + 1, rest + 16,
          rest + ring_size, std::uint64_t{0xfffffff0}, std::uint64_t{0xffffffff}}) {
      CAPTURE(wrong);
      CHECK(ring.read(padding_header(wrong), rest + 512) == ReadStatus::damaged);
    }
    for (std::uint64_t committed = 16; committed < rest; committed += 16) {
      CHECK(ring.read(padding_header(rest), committed) == ReadStatus::damaged);
    }
    // Padding that nothing follows is skipped; the position moves, as the writer will not come back to it.
    CHECK(ring.read(padding_header(rest), rest) == ReadStatus::empty);
    CHECK(ring.reader.position() == ring_size * 6);
    // What follows is checked like every record.
    std::memset(ring.memory.data(), 0, sizeof(RecordHeader));
    CHECK(ring.read(padding_header(rest), rest + 48) == ReadStatus::damaged);
    if (rest < sizeof(RecordHeader)) {
      CHECK(ring.read(event_header(1, 0), rest + 512) == ReadStatus::damaged);  // a header that would run over the end
    } else if (rest < 256) {
      CHECK(ring.read(event_header(1, rest), rest + 512) == ReadStatus::damaged);  // a record that would
    }
  }
}

TEST_CASE("padding over the whole ring, again and again, ends at the tail") {
  Forged ring;
  CHECK(ring.read(padding_header(ring_size), ring_size) == ReadStatus::empty);
  CHECK(ring.reader.position() == ring_size * 6);
  CHECK(ring.reader.read_checked(ring.header, ring.record) == ReadStatus::empty);
}

TEST_CASE("a tail that the writer cannot have reached is refused, and the limit stays") {
  for (const std::uint64_t start : start_positions(ring_size)) {
    RingMemory memory(ring_size, start);
    RingReader reader = memory.reader();
    const auto forge = [&](std::uint64_t tail) {
      memory.words().tail.store(tail, std::memory_order_relaxed);  // relaxed: one thread
      return reader.refresh();
    };
    CHECK(forge(start + ring_size));
    CHECK(reader.limit() == start + ring_size);
    for (const std::uint64_t wrong :
         {start + ring_size + 16, start - 16, start + 8, start + 1, start + ring_size - 1,
          start + (std::uint64_t{1} << 32), start + (std::uint64_t{1} << 63), start - ring_size}) {
      CAPTURE(wrong);
      CHECK_FALSE(forge(wrong));
      CHECK(reader.limit() == start + ring_size);
    }
    CHECK(forge(start));  // rewound as far as X has read: less to read, no harm
  }
}

TEST_CASE("random bytes as a ring never lead outside it") {
  const std::uint64_t seed = test_seed("random bytes as a ring never lead outside it");
  std::mt19937_64 random(seed);
  RingMemory memory(ring_size, std::uint64_t{0} - 2 * ring_size);
  std::uint64_t records = 0;
  for (int round = 0; round < 20'000; ++round) {
    // A chain of good records with padding at its end, damaged here and there.
    std::vector<std::uint64_t> begins;
    for (std::uint64_t at = 0; at < ring_size;) {
      RecordHeader header = event_header(random(), random() % 200);
      if (at + header.bytes > ring_size) header = padding_header(ring_size - at);
      begins.push_back(at);
      const std::uint64_t bytes = header.bytes;
      if (random() % 64 == 0) header.bytes = static_cast<std::uint32_t>(random() % 2 == 0 ? random() : random() % 300);
      if (random() % 64 == 0) header.payload_bytes = static_cast<std::uint32_t>(random());
      if (random() % 64 == 0) header.kind = static_cast<std::uint16_t>(random() % 5);
      std::memcpy(memory.data() + at, &header, std::min<std::uint64_t>(sizeof header, ring_size - at));
      at += bytes;
    }
    const std::uint64_t start = memory.head() + begins[random() % begins.size()];
    RingReader reader(memory.data(), ring_size, &memory.words().tail, start);
    memory.words().tail.store(start + random() % 257 * 16, std::memory_order_relaxed);  // relaxed: one thread
    REQUIRE(reader.refresh());
    RecordHeader header;
    const std::byte* record = nullptr;
    int steps = 0;
    while (reader.read_checked(header, record) == ReadStatus::record) {
      REQUIRE(++steps <= 4096 / 48 + 1);
      REQUIRE(record >= memory.data());
      REQUIRE(record + header.bytes <= memory.data() + ring_size);
      REQUIRE(reader.limit() - reader.position() >= header.bytes);
      reader.advance(header.bytes);
      ++records;
    }
    REQUIRE(reader.limit() - reader.position() <= ring_size);
  }
  CHECK(records > 100'000);
}

TEST_CASE("a look ahead tells size and topic of an event, and goes nowhere beyond what is committed") {
  Forged ring;
  ring::RecordHint hint;
  RecordHeader header = event_header(1, 100);
  header.topic = 77;
  const std::uint64_t begin = ring_size * 5;
  CHECK(ring.read(header, header.bytes) == ReadStatus::record);
  REQUIRE(ring.reader.hint_at(begin, hint));
  CHECK(hint.bytes == header.bytes);
  CHECK(hint.topic == 77);
  CHECK_FALSE(ring.reader.hint_at(begin + header.bytes, hint));  // the limit
  for (const std::uint32_t bytes : {0u, 16u, 40u, 49u, header.bytes + 16, ~0u}) {
    CAPTURE(bytes);
    RecordHeader forged = header;
    forged.bytes = bytes;
    (void)ring.read(forged, header.bytes);
    CHECK_FALSE(ring.reader.hint_at(begin, hint));
  }
  (void)ring.read(padding_header(header.bytes), header.bytes);
  CHECK_FALSE(ring.reader.hint_at(begin, hint));
  Forged at_end(ring_size - 32);  // a header does not fit before the end of the ring
  (void)at_end.read(header, header.bytes);
  CHECK_FALSE(at_end.reader.hint_at(begin + ring_size - 32, hint));
}

}  // namespace
}  // namespace ackring::test
