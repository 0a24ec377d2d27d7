// Attempts: what a record says about earlier deliveries of its event, and how a record with another such part is written.
//
// Thread rules: plain functions; X's thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "lib/ring/record.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

/// The attempts of an event so far. `info.attempt` is the one that the record stands for.
struct Attempt {
  shm::AttemptInfo info{};
  std::array<shm::PastAttempt, shm::max_history> past{};

  /// Bytes in a record. A first attempt of which nothing is known takes none.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return written() ? sizeof info + info.history * sizeof(shm::PastAttempt) : 0;
  }
  [[nodiscard]] bool written() const noexcept { return info.attempt != 1 || info.history != 0 || info.requeued != 0; }
  /// Attempts that count towards max_deliveries.
  [[nodiscard]] std::uint32_t used() const noexcept { return info.attempt - info.budget_from; }
};

[[nodiscard]] Attempt attempt_of(const ring::EventParts& event) noexcept;

/// Notes how the current attempt ended; the oldest note goes where there is no room.
void end_attempt(Attempt& attempt, shm::DeliveryState cause, std::uint64_t now_ns) noexcept;

/// Delay of a Failure: what the subscription's back-off says.
inline constexpr std::uint64_t default_delay = ~std::uint64_t{0};

/// How an attempt ended, other than by an ack.
struct Failure {
  shm::DeliveryState cause = shm::DeliveryState::nacked;
  bool let_go = true;  // the member holds no view of it any more
  std::uint64_t delay_ns = default_delay;
  std::string reason = {};  // of a rejection

  /// What the state byte of its entry becomes.
  [[nodiscard]] std::uint64_t state_byte() const noexcept {
    return static_cast<std::uint64_t>(cause) | (let_go ? shm::let_go_bit : 0);
  }
};

/// At most so much more does the record of a dead letter take than the event's before, for reasons that X gives.
inline constexpr std::uint64_t dead_extra_bytes = sizeof(shm::LaterInfo) + 32;

/// Forgets the oldest notes until the record of a redelivery takes at most `most` bytes: an event may fill a quarter of
/// its ring, and is delivered all the same.
void shorten_history(Attempt& attempt, const ring::EventParts& event, std::uint64_t most) noexcept;

/// What stands in the LaterInfo of a record of a retry or dead-letter log.
struct Later {
  std::uint64_t due_ns = 0;
  std::uint64_t entry = 0;
  std::uint64_t ring = 0;
  std::uint64_t dead_unix_ns = 0;
  bool untaken = false;
  std::string_view reason = {};
};

/// Has the attempt that a record of a retry or dead-letter log stands for not begun?
[[nodiscard]] bool is_untaken(const ring::EventParts& event) noexcept;

/// Why a record of a dead-letter log is there.
[[nodiscard]] std::string_view reason_of(const ring::EventParts& event) noexcept;

/// Bytes of the record of `event` with these attempts; with a LaterInfo if `later` is given.
[[nodiscard]] std::uint64_t rewritten_bytes(const ring::EventParts& event, const Attempt& attempt,
                                            const Later* later) noexcept;
/// Writes that record.
void rewrite(std::byte* to, const ring::EventParts& event, const Attempt& attempt, const Later* later);

}  // namespace ackring::exchange
