// A ring between two processes, in memory that they share. The parent checks, the child writes.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "tests/ring/ring_stress.hpp"

namespace ackring::test {
namespace {

TEST_CASE("two processes, positions and sequences pass 2^32, 2^63 and 2^64") {
  const std::uint64_t seed = test_seed("two processes, positions and sequences pass 2^32, 2^63 and 2^64");
  for (const std::uint64_t ring_bytes : {std::uint64_t{4096}, std::uint64_t{1} << 20}) {
    for (const std::uint64_t start : start_positions(ring_bytes)) {
      CAPTURE(ring_bytes);
      CAPTURE(start);
      RingMemory memory(ring_bytes, start);
      StressPlan plan;
      plan.first = start + 1;
      plan.count = ring_bytes == 4096 ? 100'000 : 2'000;
      plan.seed = seed;
      plan.largest = ring::max_event_bytes(ring_bytes);
      const pid_t child = ::fork();
      REQUIRE(child >= 0);
      if (child == 0) {
        RingWriter writer = memory.writer();
        ::_exit(produce(memory, writer, plan) ? 0 : 1);
      }
      const std::string wrong = consume(memory, plan, ((start ^ seed) >> 4 & 1) == 0 ? Trust::trusted : Trust::checked);
      int status = -1;
      REQUIRE(::waitpid(child, &status, 0) == child);
      CHECK(wrong == "");
      CHECK(status == 0);
    }
  }
}

// Copies one record of the plan into the ring without a commit; false if it does not fit.
bool write_uncommitted(RingWriter& writer, const StressPlan& plan, std::uint64_t sequence) {
  const RecordHeader header = event_header(sequence, stress_payload(plan, sequence));
  std::byte* at = writer.claim(header.bytes);
  if (at == nullptr) return false;
  std::memcpy(at, &header, sizeof header);
  for (std::uint64_t offset = 0; offset < header.payload_bytes; offset += 8) {
    const std::uint64_t word = stress_word(plan, sequence, offset);
    std::memcpy(at + sizeof header + offset, &word, std::min<std::uint64_t>(8, header.payload_bytes - offset));
  }
  writer.advance(header.bytes);
  return true;
}

TEST_CASE("a writer killed in the middle of a batch leaves what it committed, and its successor goes on") {
  RingMemory memory(4096, std::uint64_t{0} - 40'000);
  StressPlan plan;
  plan.seed = 7;
  plan.largest = ring::max_event_bytes(4096);
  std::uint64_t taken = 0;
  for (std::uint64_t life = 0; life < 200; ++life) {
    const std::uint64_t kept = 1 + life % 3;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      RingWriter writer = memory.writer();
      std::uint64_t sequence = taken;
      for (std::uint64_t n = 0; n < kept; ++n) {
        if (!write_uncommitted(writer, plan, ++sequence)) ::_exit(1);
      }
      writer.commit();
      StressPlan other = plan;  // what nobody may ever see
      other.seed = 8;
      while (write_uncommitted(writer, other, ++sequence)) {
      }
      ::raise(SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    RingReader reader = memory.reader();
    for (std::uint64_t n = 0; n < kept; ++n) {
      const std::byte* record = reader.peek();
      REQUIRE(record != nullptr);
      RecordHeader header;
      ring::read_once(record, header);
      REQUIRE(check_record(plan, ++taken, header, record) == "");
      reader.advance(header.bytes);
    }
    REQUIRE(reader.peek() == nullptr);
    memory.publish_head(reader.position());
  }
}

}  // namespace
}  // namespace ackring::test
