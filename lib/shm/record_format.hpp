// Records: what lies in rings and logs. A part of format.hpp, whose rules hold here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/shm/word.hpp"

namespace ackring::shm {

using Word8 = Word<std::uint8_t>;
using Word16 = Word<std::uint16_t>;
using Word32 = Word<std::uint32_t>;
using Word64 = Word<std::uint64_t>;

enum class RecordKind : std::uint16_t {
  none = 0,  // zero always means nothing
  event = 1,
  padding = 2,      // skip `bytes`; the record did not fit before the end of the ring
  topic = 3,        // ingress only: payload is the text of topic `topic`, a publisher-local number
  segment_end = 4,  // logs only: go on at the start of the next segment
};

/// One record of a ring or a log. Padding records consist of `bytes`, `kind` and `flags` only.
/// Layout of an event: header, [LaterInfo if flag_later], [TimingInfo if flag_timing], [AttemptInfo if flag_attempt],
/// payload, key, headers, zero to 15 bytes of padding.
struct RecordHeader {
  std::uint32_t bytes;  // whole record, a multiple of record_alignment
  std::uint16_t kind;   // RecordKind
  std::uint16_t flags;
  std::uint64_t sequence;      // the publisher's number of the event: 1, 2, 3, …
  std::uint64_t published_ns;  // CLOCK_MONOTONIC
  std::uint32_t topic;         // ingress: publisher-local number; elsewhere: number in the bus's topic table
  std::uint32_t payload_bytes;
  std::uint32_t headers_bytes;
  std::uint16_t key_bytes;
  std::uint16_t publisher;  // slot in the exchange segment; 0 in ingress rings
  std::uint64_t delivery;   // number within the subscription: 1, 2, 3, …; 0 in ingress rings
};

inline constexpr std::size_t record_alignment = 16;
inline constexpr std::uint16_t flag_attempt = 1;
inline constexpr std::uint16_t flag_later = 2;   // of retry and dead-letter logs: a LaterInfo follows the header
inline constexpr std::uint16_t flag_timing = 4;  // a TimingInfo follows; the only flag in an ingress ring

/// When an event may be delivered. A record that has an AttemptInfo has none: it has been delivered in time.
struct TimingInfo {
  std::uint64_t expires_ns;     // CLOCK_MONOTONIC; from then on it enters no ring any more; 0: never
  std::uint64_t not_before_ns;  // CLOCK_MONOTONIC; 0: at once
};

/// Follows the header (in retry and dead-letter logs: the LaterInfo) of a record that was delivered or dead before.
/// Behind it, `history` PastAttempts, oldest first.
struct AttemptInfo {
  std::uint64_t first_delivered_ns;  // CLOCK_MONOTONIC, when the first attempt entered a member's ring
  std::uint32_t attempt;             // of this delivery: 2, 3, …; in the dead-letter log: of the last one
  std::uint16_t cause;               // DeliveryState that ended the attempt before
  std::uint16_t history;             // at most max_history
  std::uint32_t budget_from;         // attempts up to this one do not count towards max_deliveries (requeue)
  std::uint32_t requeued;            // how often it came back from the dead-letter log
  std::uint64_t reserved2;
};

/// How an attempt ended.
struct PastAttempt {
  std::uint64_t ended_ns;  // CLOCK_MONOTONIC
  std::uint32_t attempt;
  std::uint32_t cause;  // DeliveryState
};
inline constexpr std::size_t max_history = 16;  // the latest ones are kept

/// How a record left a retry or dead-letter log; zero as long as it is in it.
enum class LaterState : std::uint32_t { waiting = 0, released = 1, acked = 2, requeued = 3, removed = 4, expired = 5 };

/// Follows the header of a record of a retry or dead-letter log.
struct LaterInfo {
  Word32 state;                // LaterState; the only word of the record that changes
  std::uint32_t reason_bytes;  // of a text behind the headers
  std::uint64_t due_ns;        // retry: CLOCK_MONOTONIC; 0: it waits for the ring of a member, not for a time
  std::uint64_t entry;         // retry: of the attempt that ended, in ring `ring`; an ack of it still counts
  std::uint64_t ring;          // incarnation
  std::uint64_t dead_unix_ns;  // dead-letter: when
  std::uint64_t untaken;       // 1: the attempt that its AttemptInfo names, or the first, has not begun
};

}  // namespace ackring::shm
