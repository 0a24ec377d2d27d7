// The receiving end: a member of a subscription.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ackring/delivery.hpp"

namespace ackring {

/// Takes deliveries of one subscription. take(), take_batch() and fd() are for one thread at a time; verdicts may come
/// from any thread. Destruction leaves the subscription: what was taken without a verdict is delivered again.
class Subscriber {
 public:
  Subscriber(Subscriber&&) noexcept;
  Subscriber& operator=(Subscriber&&) noexcept;
  ~Subscriber();

  /// The next delivery, or nothing if none came within `timeout` (0: do not wait) or the handle is closed().
  [[nodiscard]] std::optional<Delivery> take(Nanoseconds timeout = Nanoseconds{0});

  /// Up to `out.size()` deliveries in place, without a Delivery object each; returns how many. Waits up to `timeout`
  /// for the first. The whole batch counts as taken. Give the verdict with ack_through() or ack(); views without
  /// verdict time out like any delivery. At-most-once: views are valid until the next take.
  std::size_t take_batch(std::span<DeliveryView> out, Nanoseconds timeout = Nanoseconds{0});

  /// Acks this delivery and every earlier one of this member that has no verdict of its own, extended or not. Any
  /// thread. Outcome::stale if they have verdicts already.
  Outcome ack_through(const DeliveryView& last) noexcept;
  /// Verdicts, as those of Delivery: the same units, ranges and outcomes (and Outcome::closed for a moved-from
  /// Subscriber). From any thread, one thread at a time per view.
  Outcome ack(const DeliveryView& view) noexcept;
  Outcome nack(const DeliveryView& view) noexcept;
  Outcome nack(const DeliveryView& view, Nanoseconds delay) noexcept;
  Outcome nack(const DeliveryView& view, std::string_view reason) noexcept;
  Outcome nack(const DeliveryView& view, int) = delete;
  Outcome reject(const DeliveryView& view, std::string_view reason = {}) noexcept;
  Outcome give_back(const DeliveryView& view, Nanoseconds delay = Nanoseconds{0}) noexcept;
  /// As Delivery::extend(). From any thread at any time, also while another one gives the verdict.
  Outcome extend(const DeliveryView& view, Nanoseconds duration) noexcept;
  [[nodiscard]] std::string_view topic(const DeliveryView& view) const noexcept;
  [[nodiscard]] std::string_view publisher(const DeliveryView& view) const noexcept;

  /// A descriptor that is readable when take() may find something (poll it, then take until nothing is left).
  /// Stable for the life of the subscriber, across restarts of the exchange; owned by the subscriber.
  [[nodiscard]] int fd();

  /// Waits until the exchange has settled every verdict given so far (so that its counters show them).
  Outcome flush(Nanoseconds timeout) noexcept;

  [[nodiscard]] const std::string& name() const noexcept;
  /// True after close, after the subscription was removed, or in the child of a fork.
  [[nodiscard]] bool closed() const noexcept;

 private:
  friend class Bus;
  friend struct client::Access;
  explicit Subscriber(std::shared_ptr<client::Member> member) noexcept;
  std::shared_ptr<client::Member> member_;
};

}  // namespace ackring
