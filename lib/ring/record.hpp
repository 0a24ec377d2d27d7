// Records: how an event lies in a ring or a log, and how much room it takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "lib/shm/format.hpp"

namespace ackring::ring {

using shm::AttemptInfo;
using shm::RecordHeader;
using shm::RecordKind;
using shm::TimingInfo;

constexpr std::uint64_t align_record(std::uint64_t bytes) noexcept {
  return (bytes + shm::record_alignment - 1) & ~std::uint64_t{shm::record_alignment - 1};
}

/// Bytes of the record of an event without AttemptInfo, LaterInfo and TimingInfo.
constexpr std::uint64_t record_bytes(std::uint64_t payload, std::uint64_t key, std::uint64_t headers) noexcept {
  return align_record(sizeof(RecordHeader) + payload + key + headers);
}

/// Largest payload + key + headers that fits a ring: a record takes at most a quarter of it, less room for AttemptInfo,
/// so that a redelivery of the largest event fits too (with as much of its history as does).
constexpr std::uint64_t max_event_bytes(std::uint64_t ring_bytes) noexcept {
  return ring_bytes / 4 - sizeof(RecordHeader) - sizeof(AttemptInfo);
}

/// Where the parts of an event record begin. `record` is a record this process may trust (its own, or X's).
struct EventParts {
  const RecordHeader* header;
  const shm::LaterInfo* later;      // nullptr outside of retry and dead-letter logs
  const TimingInfo* timing;         // nullptr: it may be delivered at any time
  const AttemptInfo* attempt;       // nullptr on a first delivery
  const shm::PastAttempt* history;  // attempt->history of them
  const std::byte* payload;
  const std::byte* key;
  const std::byte* headers;
};
inline EventParts parts(const std::byte* record) noexcept {
  EventParts result{};
  result.header = reinterpret_cast<const RecordHeader*>(record);
  const std::byte* at = record + sizeof(RecordHeader);
  if ((result.header->flags & shm::flag_later) != 0) [[unlikely]] {
    result.later = reinterpret_cast<const shm::LaterInfo*>(at);
    at += sizeof(shm::LaterInfo);
  }
  if ((result.header->flags & shm::flag_timing) != 0) [[unlikely]] {
    result.timing = reinterpret_cast<const TimingInfo*>(at);
    at += sizeof(TimingInfo);
  }
  if ((result.header->flags & shm::flag_attempt) != 0) [[unlikely]] {
    result.attempt = reinterpret_cast<const AttemptInfo*>(at);
    at += sizeof(AttemptInfo);
    result.history = reinterpret_cast<const shm::PastAttempt*>(at);
    at += result.attempt->history * sizeof(shm::PastAttempt);
  }
  result.payload = at;
  result.key = at + result.header->payload_bytes;
  result.headers = result.key + result.header->key_bytes;
  return result;
}

/// One read of eight aligned bytes that another process may be changing.
inline std::uint64_t read_word(const std::byte* from) noexcept {
  using SharedWord [[gnu::may_alias]] = const std::uint64_t;
  // relaxed: ordered by the acquire of the tail; atomic only so that the compiler reads it exactly once
  return __atomic_load_n(reinterpret_cast<SharedWord*>(from), __ATOMIC_RELAXED);
}

/// One read of a header that another process may be changing: what is validated is what is used (F26). Word by word, so
/// that the copy can stay in registers.
inline void read_once(const std::byte* record, RecordHeader& header) noexcept {
  shm::Memory::reading(record, sizeof header);
  const auto word = [record](std::size_t offset) { return read_word(record + offset); };
  const std::uint64_t first = word(0);
  header.bytes = static_cast<std::uint32_t>(first);
  header.kind = static_cast<std::uint16_t>(first >> 32);
  header.flags = static_cast<std::uint16_t>(first >> 48);
  header.sequence = word(8);
  header.published_ns = word(16);
  const std::uint64_t fourth = word(24);
  header.topic = static_cast<std::uint32_t>(fourth);
  header.payload_bytes = static_cast<std::uint32_t>(fourth >> 32);
  const std::uint64_t fifth = word(32);
  header.headers_bytes = static_cast<std::uint32_t>(fifth);
  header.key_bytes = static_cast<std::uint16_t>(fifth >> 32);
  header.publisher = static_cast<std::uint16_t>(fifth >> 48);
  header.delivery = word(40);
}

/// Writes a header as six words put together in registers. Copying a struct whose fields were just set one by one reads
/// back, 16 bytes at a time, what was written in smaller pieces, and waits for the store buffer to drain each time.
inline void write_header(std::byte* to, const RecordHeader& header, std::uint64_t delivery) {
  static_assert(sizeof(RecordHeader) == 48 && offsetof(RecordHeader, kind) == 4 && offsetof(RecordHeader, flags) == 6 &&
                offsetof(RecordHeader, sequence) == 8 && offsetof(RecordHeader, published_ns) == 16 &&
                offsetof(RecordHeader, topic) == 24 && offsetof(RecordHeader, payload_bytes) == 28 &&
                offsetof(RecordHeader, headers_bytes) == 32 && offsetof(RecordHeader, key_bytes) == 36 &&
                offsetof(RecordHeader, publisher) == 38 && offsetof(RecordHeader, delivery) == 40);
  shm::Memory::writing(to, sizeof header);
  const auto put = [to](std::size_t offset, std::uint64_t word) { std::memcpy(to + offset, &word, sizeof word); };
  put(0, header.bytes | std::uint64_t{header.kind} << 32 | std::uint64_t{header.flags} << 48);
  put(8, header.sequence);
  put(16, header.published_ns);
  put(24, header.topic | std::uint64_t{header.payload_bytes} << 32);
  put(32, header.headers_bytes | std::uint64_t{header.key_bytes} << 32 | std::uint64_t{header.publisher} << 48);
  put(40, delivery);
}

/// Is this the header of an event or topic record of an ingress ring that fits in `available` bytes? Looks at nothing
/// but the copy. It may be as large as the ring: that the event is within the limits of the bus is for X to check.
constexpr bool plausible(const RecordHeader& header, std::uint64_t available) noexcept {
  if (header.bytes % shm::record_alignment != 0 || header.bytes < sizeof(RecordHeader) || header.bytes > available) {
    return false;
  }
  if (header.kind != static_cast<std::uint16_t>(RecordKind::event) &&
      header.kind != static_cast<std::uint16_t>(RecordKind::topic)) {
    return false;
  }
  std::uint64_t payload = header.payload_bytes;
  if (header.flags != 0) [[unlikely]] {  // attempts are X's to write
    if (header.flags != shm::flag_timing || header.kind != static_cast<std::uint16_t>(RecordKind::event)) return false;
    payload += sizeof(TimingInfo);
  }
  return record_bytes(payload, header.key_bytes, header.headers_bytes) == header.bytes;
}

}  // namespace ackring::ring
