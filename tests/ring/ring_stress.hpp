// One producer and one checker of a ring, for two threads or two processes. The checker knows what every record must
// be from its number alone, so a byte that came too late, too early or from another record shows.
#pragma once

#include <algorithm>
#include <cstring>
#include <sstream>
#include <string>

#include "tests/ring/ring_memory.hpp"

namespace ackring::test {

struct StressPlan {
  std::uint64_t first = 1;  // sequence of the first record; wraps like positions do
  std::uint64_t count = 0;
  std::uint64_t seed = 0;
  std::uint64_t largest = 0;  // payload bytes
  int seconds = 120;          // deadline
};

// Mostly small events, an eighth of any size up to the largest, and both ends often.
inline std::uint64_t stress_payload(const StressPlan& plan, std::uint64_t sequence) {
  const std::uint64_t r = mix(plan.seed ^ sequence);
  switch (r & 15) {
    case 0:
      return 0;
    case 1:
      return r >> 8 & 1 ? plan.largest : (r >> 16) % (plan.largest + 1);
    case 2:
      return (r >> 16) % (plan.largest + 1);
    default:
      return (r >> 16) % std::min<std::uint64_t>(97, plan.largest + 1);
  }
}

inline std::uint64_t stress_word(const StressPlan& plan, std::uint64_t sequence, std::uint64_t word) {
  return (mix(plan.seed + sequence) + word) * 0x9e3779b97f4a7c15;
}

// False: the deadline passed or the checker stopped it. `Writer` is RingWriter, or a broken one of a canary.
template <class Writer>
bool produce(const RingMemory& memory, Writer& writer, const StressPlan& plan) {
  Deadline deadline(plan.seconds);
  std::uint64_t uncommitted = 0;
  for (std::uint64_t n = 0; n < plan.count; ++n) {
    const std::uint64_t sequence = plan.first + n;
    const std::uint64_t payload = stress_payload(plan, sequence);
    const RecordHeader header = event_header(sequence, payload);
    std::byte* at = writer.claim(header.bytes);
    while (at == nullptr) {
      if (uncommitted != 0) writer.commit();
      uncommitted = 0;
      if (memory.stopped() || deadline.over()) return false;
      ::sched_yield();
      writer.set_head(memory.head());
      at = writer.claim(header.bytes);
    }
    std::memcpy(at, &header, sizeof header);
    for (std::uint64_t offset = 0; offset < payload; offset += 8) {
      const std::uint64_t word = stress_word(plan, sequence, offset);
      std::memcpy(at + sizeof header + offset, &word, std::min<std::uint64_t>(8, payload - offset));
    }
    writer.advance(header.bytes);
    if (++uncommitted > (mix(sequence) & 15)) {
      writer.commit();
      uncommitted = 0;
    }
  }
  writer.commit();
  return true;
}

// Empty: every record came once, in order, with its bytes. Otherwise what was wrong first.
inline std::string check_record(const StressPlan& plan, std::uint64_t sequence, const RecordHeader& header,
                                const std::byte* record) {
  std::ostringstream wrong;
  const std::uint64_t payload = stress_payload(plan, sequence);
  if (header.kind != static_cast<std::uint16_t>(RecordKind::event) || header.sequence != sequence) {
    wrong << "record " << sequence << ": found kind " << header.kind << ", sequence " << header.sequence;
  } else if (header.payload_bytes != payload || header.bytes != ring::record_bytes(payload, 0, 0)) {
    wrong << "record " << sequence << ": found " << header.payload_bytes << " bytes of " << payload;
  } else {
    for (std::uint64_t offset = 0; offset < payload; offset += 8) {
      const std::uint64_t word = stress_word(plan, sequence, offset);
      if (std::memcmp(record + sizeof header + offset, &word, std::min<std::uint64_t>(8, payload - offset)) != 0) {
        wrong << "record " << sequence << ": wrong bytes at " << offset;
        break;
      }
    }
  }
  return wrong.str();
}

enum class Trust { trusted, checked };

inline std::string consume(const RingMemory& memory, const StressPlan& plan, Trust trust) {
  Deadline deadline(plan.seconds);
  RingReader reader = memory.reader();
  std::string wrong;
  for (std::uint64_t n = 0; n < plan.count && wrong.empty();) {
    RecordHeader header;
    const std::byte* record = nullptr;
    if (trust == Trust::trusted) {
      record = reader.peek();
      if (record != nullptr) std::memcpy(&header, record, sizeof header);
    } else {
      ReadStatus status = reader.read_checked(header, record);
      if (status == ReadStatus::empty) {
        if (!reader.refresh()) wrong = "impossible tail";
        status = reader.read_checked(header, record);
      }
      if (status == ReadStatus::damaged) wrong += "damaged after record " + std::to_string(plan.first + n - 1);
      if (status != ReadStatus::record) record = nullptr;
    }
    if (!wrong.empty()) break;
    if (record == nullptr) {
      memory.publish_head(reader.position());
      if (deadline.over()) wrong = "deadline passed after " + std::to_string(n) + " records";
      reader.prefetch();
      ::sched_yield();
      continue;
    }
    wrong = check_record(plan, plan.first + n, header, record);
    reader.advance(header.bytes);
    if ((++n & 7) == 0) memory.publish_head(reader.position());
  }
  memory.publish_head(reader.position());
  if (wrong.empty() && reader.readable()) wrong = "more than was written";
  memory.stop();
  return wrong;
}

}  // namespace ackring::test
