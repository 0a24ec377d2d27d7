// What is measured, and what is shown of handlers: for people, not for the flow. A part of format.hpp, whose rules hold here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "lib/shm/record_format.hpp"

namespace ackring::shm {

inline constexpr std::size_t latency_buckets = 254;  // lib/shm/latency.hpp says which times are in which

/// How long something took, of many events, as one process counts it for others to read.
struct LatencyHistogram {
  std::array<Word64, latency_buckets> counts;
  Word64 sum_ns;
  Word64 max_ns;
};

/// The same as a value.
struct LatencyCounts {
  std::array<std::uint64_t, latency_buckets> counts;
  std::uint64_t sum_ns;
  std::uint64_t max_ns;
};

/// What the members of a subscription that are gone have measured. One of two copies, written whole.
struct LatencyBlock {
  std::uint64_t ack_page;  // number of the last ack page that was added
  std::array<std::uint8_t, 56> padding;
  LatencyCounts take;  // publish to take
  LatencyCounts ack;   // publish to ack
};

/// What a member measures, of a part of its deliveries (lib/client/sampler.hpp).
struct MemberLatency {
  LatencyHistogram take;  // publish to take
  LatencyHistogram ack;   // publish to ack
};

/// Why an event is among the dead letters. Records say it in words; these are for counting.
enum class DeadReason : std::uint8_t { max_deliveries = 0, rejected = 1, expired = 2, overflow = 3, removed = 4 };
inline constexpr std::size_t dead_reason_slots = 6;

/// One of two copies, written whole, before the counters of a transaction that made dead letters.
struct DeadReasonBlock {
  std::uint64_t n;                                      // that transaction
  std::uint64_t dead_of_n;                              // dead letters of it that are counted here
  std::array<std::uint64_t, dead_reason_slots> counts;  // ever, by DeadReason
};

/// What an operator wants of the circuit breakers of a subscription's members.
enum class BreakerOrder : std::uint32_t { none = 0, open = 1, closed = 2 };

/// State of the circuit breaker before a member's handler; none: the member has no handler.
enum class BreakerState : std::uint32_t { none = 0, closed = 1, half_open = 2, open = 3 };

/// Why a delivery was rejected or nacked. Slots are used again in turn; one counts only for the entry that it names.
struct RejectReason {
  Word64 entry;                 // entry number + 1; 0: none
  std::array<Word64, 15> text;  // up to 119 bytes, zeros behind them
};
inline constexpr std::size_t reject_reasons = 64;
inline constexpr std::size_t reject_reason_bytes = 119;
inline constexpr std::uint64_t reject_reason_busy = ~std::uint64_t{0};  // in `entry`: the text is being written

}  // namespace ackring::shm
