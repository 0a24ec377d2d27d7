// One delivery of one event to a subscriber.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ackring/detail/record.hpp"
#include "ackring/options.hpp"
#include "ackring/outcome.hpp"

namespace ackring {

namespace client {
class Member;
struct Access;
}  // namespace client

using Bytes = std::span<const std::byte>;
using Headers = std::vector<std::pair<std::string, std::string>>;

/// Bytes of a text, for publish().
inline Bytes as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

/// A view of one delivered event: in place in the subscription's ring until a verdict is given or detach() copies it
/// out. Move-only. A Delivery destroyed without a verdict is nacked (at-least-once), which delivers it again.
///
/// Verdicts and extend() may be called from any thread, one thread at a time per Delivery; views must not be used after
/// the verdict unless detached. A Delivery may outlive its Subscriber; its verdicts then answer Outcome::stale.
///
/// A verdict (ack, nack, reject, give_back) is final. Each answers Outcome::ok; Outcome::stale if there is one already (given here,
/// or by Subscriber::ack_through), or if the Subscriber is gone; or Outcome::closed if the subscription was removed, or
/// this is the child of a fork. At-most-once deliveries are settled when they are taken: verdicts change nothing.
class Delivery {
 public:
  Delivery() noexcept = default;
  Delivery(Delivery&& other) noexcept;
  Delivery& operator=(Delivery&& other) noexcept;
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;
  ~Delivery();

  [[nodiscard]] std::string_view topic() const noexcept;
  [[nodiscard]] Bytes payload() const noexcept;
  /// payload() as text.
  [[nodiscard]] std::string_view text() const noexcept;
  [[nodiscard]] std::string_view key() const noexcept;
  /// Decoded on each call; empty for events without headers.
  [[nodiscard]] Headers headers() const;
  /// Name of the publisher.
  [[nodiscard]] std::string_view publisher() const noexcept;
  /// Number given by the publisher: 1, 2, 3, …; with publisher() the event's id.
  [[nodiscard]] std::uint64_t sequence() const noexcept;
  /// Number within the subscription, in the order of matching: 1, 2, 3, …; the same for each attempt.
  [[nodiscard]] std::uint64_t delivery() const noexcept;
  /// 1 for the first delivery.
  [[nodiscard]] std::uint32_t attempt() const noexcept;
  /// Was it delivered before (attempt() > 1)?
  [[nodiscard]] bool redelivered() const noexcept { return attempt() > 1; }
  /// CLOCK_MONOTONIC nanoseconds when the first attempt was delivered. During the first attempt itself: the time of the
  /// call, since nothing on the way has read a clock.
  [[nodiscard]] std::uint64_t first_delivered_ns() const noexcept;
  /// CLOCK_MONOTONIC nanoseconds at the commit of the publish.
  [[nodiscard]] std::uint64_t published_ns() const noexcept;

  /// Done.
  Outcome ack() noexcept;
  /// Not done: deliver it again after the subscription's back-off.
  Outcome nack() noexcept;
  /// Not done: deliver it again after `delay`, in place of the back-off. Rounded up to milliseconds; 0 or less: at once;
  /// at most 16,777,214 ms (4 h 39 min), longer ones become that.
  Outcome nack(Nanoseconds delay) noexcept;
  /// The same as nack(), with a reason for people: the subscription's `last_errors` in `shmtool stat` have it, and where this
  /// was the last attempt, the dead letter. Of more than 119 bytes the first 119, as that of reject().
  Outcome nack(std::string_view reason) noexcept;
  Outcome nack(int) = delete;  // a bare number has no unit
  /// Not done, and not tried: the delivery goes back as if it had not been taken, without counting as an attempt. It comes
  /// again after `delay` (as that of nack()), or, with 0 and in ordered subscriptions, as the next one. A verdict.
  Outcome give_back(Nanoseconds delay = Nanoseconds{0}) noexcept;
  /// Can't be done, ever: no further attempt. The reason, for people, is kept with the dead letter: of more than 119
  /// bytes the first 119 (no half UTF-8 character), control characters as '?'. It is lost, the reject is not, where more
  /// than 64 reasons are given before the exchange looks, which it does at least once a tick.
  Outcome reject(std::string_view reason = {}) noexcept;
  /// Being worked on: no verdict, the Delivery stays pending. It does not time out before `duration` from now, however
  /// long the ack timeout; may be repeated, in good time, each counting anew. Rounded up to milliseconds, from 1 ms to
  /// 16,777,214 ms (4 h 39 min), what is outside becomes the nearer end. Outcomes as those of a verdict.
  Outcome extend(Nanoseconds duration) noexcept;
  /// Copies the event out of the ring, so that its space can be reused while the verdict is still open.
  void detach();
  /// False after a verdict given here, for a moved-from and for a default-constructed Delivery.
  [[nodiscard]] bool pending() const noexcept { return member_ != nullptr; }

 private:
  friend class client::Member;
  friend struct client::Access;
  friend class Subscriber;
  [[nodiscard]] const std::byte* readable() const noexcept;
  Outcome decided(Outcome outcome) noexcept;
  std::shared_ptr<client::Member> member_;
  const std::byte* record_ = nullptr;
  std::uint64_t entry_ = 0;
  std::unique_ptr<std::byte[]> copy_;
};

/// A view of one event of a batch; valid until the batch is acked or the next call of take_batch().
struct DeliveryView {
  const std::byte* record = nullptr;  ///< opaque; use the functions
  std::uint64_t entry = 0;            ///< opaque

  [[nodiscard]] Bytes payload() const noexcept {
    const auto flags = detail::record_field<std::uint16_t>(record, detail::record_flags);
    const std::byte* begin = record + detail::record_header_bytes;
    if (flags != 0) [[unlikely]] {
      if ((flags & detail::record_flag_timing) != 0) begin += detail::record_timing_bytes;
      if ((flags & detail::record_flag_attempt) != 0) {
        const auto past = detail::record_field<std::uint16_t>(begin, detail::record_history);
        begin += detail::record_attempt_bytes + past * detail::record_past_bytes;
      }
    }
    return {begin, detail::record_field<std::uint32_t>(record, detail::record_payload_bytes)};
  }
  [[nodiscard]] std::string_view key() const noexcept;
  [[nodiscard]] std::uint64_t sequence() const noexcept {
    return detail::record_field<std::uint64_t>(record, detail::record_sequence);
  }
  [[nodiscard]] std::uint64_t delivery() const noexcept {
    return detail::record_field<std::uint64_t>(record, detail::record_delivery);
  }
  [[nodiscard]] std::uint32_t attempt() const noexcept;
  [[nodiscard]] bool redelivered() const noexcept { return attempt() > 1; }
  /// As Delivery::first_delivered_ns().
  [[nodiscard]] std::uint64_t first_delivered_ns() const noexcept;
  [[nodiscard]] std::uint64_t published_ns() const noexcept {
    return detail::record_field<std::uint64_t>(record, detail::record_published_ns);
  }
};

}  // namespace ackring
