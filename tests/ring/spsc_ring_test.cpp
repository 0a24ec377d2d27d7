// SpscRing against the invariants at the top of spsc_ring.hpp.
#include <doctest/doctest.h>

#include <cstring>

#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

constexpr std::uint64_t small_ring = 4096;

// Writes and advances over one event of `payload` bytes; false if it does not fit.
bool put(RingWriter& writer, std::uint64_t sequence, std::uint64_t payload) {
  const RecordHeader header = event_header(sequence, payload);
  std::byte* at = writer.claim(header.bytes);
  if (at == nullptr) return false;
  std::memcpy(at, &header, sizeof header);
  std::memset(at + sizeof header, static_cast<int>(sequence & 0xff), payload);
  writer.advance(header.bytes);
  return true;
}

// Takes the next event and checks its number and bytes.
void expect(RingReader& reader, std::uint64_t sequence, std::uint64_t payload) {
  const std::byte* record = reader.peek();
  REQUIRE(record != nullptr);
  const ring::EventParts parts = ring::parts(record);
  CHECK(parts.header->sequence == sequence);
  REQUIRE(parts.header->payload_bytes == payload);
  for (std::uint64_t i = 0; i < payload; ++i) REQUIRE(parts.payload[i] == static_cast<std::byte>(sequence & 0xff));
  reader.advance(parts.header->bytes);
}

// Brings an empty ring's end to `rest` bytes before the end of its memory, by one commit and one read.
void leave_rest(RingMemory& memory, std::uint64_t rest) {
  RingWriter writer = memory.writer();
  RingReader reader = memory.reader();
  const std::uint64_t step = 256;
  std::uint64_t sequence = 1000;
  while ((memory.ring_bytes() - (writer.position() & (memory.ring_bytes() - 1))) != rest) {
    const std::uint64_t left = memory.ring_bytes() - (writer.position() & (memory.ring_bytes() - 1)) - rest;
    std::uint64_t bytes = left > step + sizeof(RecordHeader) ? step : left;
    REQUIRE(bytes >= sizeof(RecordHeader));
    writer.set_head(memory.head());
    REQUIRE(put(writer, ++sequence, bytes - sizeof(RecordHeader)));
    writer.commit();
    expect(reader, sequence, bytes - sizeof(RecordHeader));
    memory.publish_head(reader.position());
  }
}

TEST_CASE("a new ring is empty, wherever its positions start") {
  for (const std::uint64_t start : start_positions(small_ring)) {
    RingMemory memory(small_ring, start);
    RingReader reader = memory.reader();
    CHECK(reader.peek() == nullptr);
    CHECK_FALSE(reader.readable());
    REQUIRE(reader.refresh());
    RecordHeader header;
    const std::byte* record = nullptr;
    CHECK(reader.read_checked(header, record) == ReadStatus::empty);
    CHECK(reader.position() == start);
  }
}

TEST_CASE("events of zero bytes are records of a bare header") {
  RingMemory memory(small_ring);
  RingWriter writer = memory.writer();
  std::uint64_t count = 0;
  while (put(writer, count + 1, 0)) ++count;
  CHECK(count == small_ring / sizeof(RecordHeader));  // 85: the 16 bytes left are too few for one more
  writer.commit();
  RingReader reader = memory.reader();
  for (std::uint64_t n = 1; n <= count; ++n) expect(reader, n, 0);
  CHECK(reader.peek() == nullptr);
}

TEST_CASE("a ring can be filled to its last byte, and not further") {
  for (const std::uint64_t start : {std::uint64_t{0}, std::uint64_t{0} - 2 * small_ring}) {
    RingMemory memory(small_ring, start);
    RingWriter writer = memory.writer();
    for (std::uint64_t n = 1; n <= 4; ++n) REQUIRE(put(writer, n, small_ring / 4 - sizeof(RecordHeader)));
    writer.commit();
    CHECK(writer.position() - writer.head() == small_ring);
    CHECK_FALSE(writer.fits(16));
    CHECK(writer.claim(16) == nullptr);
    RingReader reader = memory.reader();
    expect(reader, 1, small_ring / 4 - sizeof(RecordHeader));
    writer.set_head(reader.position());
    CHECK(writer.fits(small_ring / 4));
    CHECK_FALSE(writer.fits(small_ring / 4 + 16));
    CHECK(writer.claim(small_ring / 4 + 16) == nullptr);
    REQUIRE(put(writer, 5, small_ring / 4 - sizeof(RecordHeader)));
    writer.commit();
    for (std::uint64_t n = 2; n <= 5; ++n) expect(reader, n, small_ring / 4 - sizeof(RecordHeader));
    CHECK(reader.peek() == nullptr);
  }
}

TEST_CASE("a record that fits exactly before the end needs no padding; one byte more gets padding of any size") {
  for (std::uint64_t rest = 16; rest <= small_ring / 4; rest += 16) {
    CAPTURE(rest);
    for (const bool checked : {false, true}) {
      RingMemory memory(small_ring, std::uint64_t{0} - small_ring);
      leave_rest(memory, rest);
      RingWriter writer = memory.writer();
      RingReader reader = memory.reader();
      const std::uint64_t before = writer.position();
      const bool exact = rest >= sizeof(RecordHeader);
      const std::uint64_t payload = exact && checked ? rest - sizeof(RecordHeader) : rest;
      const std::uint64_t bytes = ring::record_bytes(payload, 0, 0);
      REQUIRE(put(writer, 7, payload));
      writer.commit();
      CHECK(writer.position() == before + (bytes <= rest ? 0 : rest) + bytes);
      if (checked) {
        REQUIRE(reader.refresh());
        RecordHeader header;
        const std::byte* record = nullptr;
        REQUIRE(reader.read_checked(header, record) == ReadStatus::record);
        CHECK(header.sequence == 7);
        CHECK(record == memory.data() + (bytes <= rest ? small_ring - rest : 0));
        reader.advance(header.bytes);
      } else {
        expect(reader, 7, payload);
      }
      CHECK(reader.position() == writer.position());
      CHECK(reader.peek() == nullptr);
    }
  }
}

TEST_CASE("padding must fit as well: no claim overwrites what is not released") {
  RingMemory memory(small_ring);
  leave_rest(memory, 64);
  RingWriter writer = memory.writer();  // empty, 64 bytes before the end
  RingReader reader = memory.reader();
  REQUIRE(put(writer, 1, 80));  // 64 of padding + 128
  for (std::uint64_t n = 2; n <= 4; ++n) REQUIRE(put(writer, n, 1024 - sizeof(RecordHeader)));
  writer.commit();
  const std::uint64_t left = small_ring - 64 - 128 - 3 * 1024;
  CHECK(writer.fits(left));
  CHECK_FALSE(writer.fits(left + 16));
  CHECK(writer.claim(left + 16) == nullptr);
  REQUIRE(put(writer, 5, left - sizeof(RecordHeader)));
  CHECK(writer.claim(16) == nullptr);
  writer.commit();
  expect(reader, 1, 80);
  for (std::uint64_t n = 2; n <= 4; ++n) expect(reader, n, 1024 - sizeof(RecordHeader));
  expect(reader, 5, left - sizeof(RecordHeader));
}

TEST_CASE("the largest event takes a quarter of the ring with its AttemptInfo, and always fits an empty ring") {
  for (std::uint64_t ring_bytes = 4096; ring_bytes <= 1u << 20; ring_bytes *= 2) {
    const std::uint64_t largest = ring::max_event_bytes(ring_bytes);
    CHECK(ring::record_bytes(largest, 0, 0) + sizeof(shm::AttemptInfo) == ring_bytes / 4);
    CHECK(ring::record_bytes(largest + 1, 0, 0) + sizeof(shm::AttemptInfo) > ring_bytes / 4);
  }
  for (std::uint64_t index = 0; index < small_ring; index += 16) {
    RingMemory memory(small_ring, std::uint64_t{0} - small_ring + index);
    RingWriter writer = memory.writer();
    REQUIRE(put(writer, 9, ring::max_event_bytes(small_ring)));
    writer.commit();
    RingReader reader = memory.reader();
    expect(reader, 9, ring::max_event_bytes(small_ring));
  }
}

TEST_CASE("a claim without advance never happened, also one behind padding") {
  RingMemory memory(small_ring);
  leave_rest(memory, 64);
  RingWriter writer = memory.writer();
  RingReader reader = memory.reader();
  const std::uint64_t position = writer.position();
  REQUIRE(writer.claim(128) == memory.data());  // writes padding where the next record will lie
  CHECK(writer.position() == position);
  writer.commit();
  CHECK(reader.peek() == nullptr);
  REQUIRE(put(writer, 1, 16));  // fits before the end after all
  REQUIRE(writer.claim(512) != nullptr);
  REQUIRE(put(writer, 2, 16));  // a smaller record than was claimed
  writer.commit();
  expect(reader, 1, 16);
  expect(reader, 2, 16);
  CHECK(reader.peek() == nullptr);
}

TEST_CASE("rollback forgets what was advanced over since the commit") {
  RingMemory memory(small_ring);
  leave_rest(memory, 128);
  RingWriter writer = memory.writer();
  RingReader reader = memory.reader();
  REQUIRE(put(writer, 1, 0));
  writer.commit();
  const std::uint64_t committed = writer.position();
  for (std::uint64_t n = 90; n < 100; ++n) REQUIRE(put(writer, n, 100));  // wraps
  writer.rollback(committed);
  CHECK(writer.position() == committed);
  REQUIRE(put(writer, 2, 200));
  writer.commit();
  expect(reader, 1, 0);
  expect(reader, 2, 200);
  CHECK(reader.peek() == nullptr);
}

TEST_CASE("nothing is visible before the commit, everything after it") {
  RingMemory memory(small_ring);
  RingWriter writer = memory.writer();
  RingReader reader = memory.reader();
  for (std::uint64_t n = 1; n <= 10; ++n) {
    REQUIRE(put(writer, n, n));
    CHECK_FALSE(reader.readable());
    CHECK(reader.peek() == nullptr);
  }
  writer.commit();
  CHECK(reader.readable());
  for (std::uint64_t n = 1; n <= 10; ++n) expect(reader, n, n);
  CHECK_FALSE(reader.readable());
}

TEST_CASE("prefetch changes nothing and stays inside the ring") {
  RingMemory memory(small_ring, std::uint64_t{0} - 16);
  RingWriter writer = memory.writer();
  RingReader reader = memory.reader();
  for (std::uint64_t n = 1; n <= 300; ++n) {
    reader.prefetch();
    const std::uint64_t position = writer.position();
    writer.set_head(memory.head());
    REQUIRE(put(writer, n, n % 200));
    CHECK(writer.position() != position);
    writer.commit();
    reader.prefetch();
    expect(reader, n, n % 200);
    memory.publish_head(reader.position());
  }
}

}  // namespace
}  // namespace ackring::test
