// The publishing end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "ackring/delivery.hpp"

namespace ackring {

namespace client {
class PublisherEndpoint;
}

/// What an event has besides topic and payload; views, read during the call only.
struct EventAttributes {
  std::string_view key = {};
  const Headers* headers = nullptr;
  /// It expires this long after it was published, unless it has entered a member's ring by then; 0: never. A negative
  /// one has expired already.
  Nanoseconds ttl{0};
  /// It is delivered no sooner than this long after it was published; <= 0: at once. Until then it overtakes nothing and
  /// is overtaken.
  Nanoseconds delay{0};
  /// The application's own number of the event; 0: the number after the publisher's last one. A named publisher may
  /// publish again after a crash what it is not sure to have published before: numbers up to the highest one that the
  /// exchange has seen of this publisher are ignored there, and counted as duplicates. Gaps are allowed.
  std::uint64_t sequence = 0;
};

/// Space for one event in the publisher's ring, to be written in place. Nothing is visible before commit();
/// a Loan destroyed without commit() leaves nothing behind. One loan or batch at a time per publisher.
class Loan {
 public:
  Loan() noexcept = default;
  Loan(Loan&& other) noexcept;
  Loan& operator=(Loan&& other) noexcept;
  ~Loan();

  /// ok, or why there is no space (see Publisher::publish).
  [[nodiscard]] Outcome outcome() const noexcept { return outcome_; }
  explicit operator bool() const noexcept { return outcome_ == Outcome::ok; }
  /// The payload's bytes; aligned to 16 bytes; not zeroed.
  [[nodiscard]] std::span<std::byte> data() const noexcept { return {data_, bytes_}; }
  /// Publishes it.
  Outcome commit() noexcept;

 private:
  friend class client::PublisherEndpoint;
  client::PublisherEndpoint* endpoint_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  Outcome outcome_ = Outcome::closed;
};

/// Publishes events into a ring of its own. Not thread-safe: one thread at a time (a debug build asserts it);
/// make one publisher per thread. Movable. Destruction does not wait: what is committed is routed anyway.
class Publisher {
 public:
  Publisher(Publisher&&) noexcept;
  Publisher& operator=(Publisher&&) noexcept;
  ~Publisher();

  /// Copies one event and commits it. Outcomes: ok, back_pressured (nothing was published), too_large, invalid_topic,
  /// too_many_topics, closed. On a bus that has nearly all the topics it may have, the first event of a new topic is
  /// back_pressured too, until the exchange has said whether there is room for it.
  Outcome publish(std::string_view topic, Bytes payload, const EventAttributes& attributes = {}) noexcept;
  Outcome publish(std::string_view topic, std::string_view payload, const EventAttributes& attributes = {}) noexcept {
    return publish(topic, as_bytes(payload), attributes);
  }
  /// The same, waiting up to `timeout` for room; back_pressured if there is none by then.
  Outcome publish_wait(std::string_view topic, Bytes payload, Nanoseconds timeout,
                       const EventAttributes& attributes = {}) noexcept;

  /// Space for an event of exactly `payload_bytes`, written in place.
  [[nodiscard]] Loan loan(std::string_view topic, std::size_t payload_bytes,
                          const EventAttributes& attributes = {}) noexcept;

  /// Adds an event that is visible only after commit_batch(): one publication for many events. On back_pressured
  /// commit what is there, then try again. A batch is not atomic to subscribers; it is one store to the exchange.
  Outcome add(std::string_view topic, Bytes payload, const EventAttributes& attributes = {}) noexcept;
  /// Publishes what was added.
  Outcome commit_batch() noexcept;

  /// Waits until everything published so far is routed: in the rings and queues of its subscriptions, and counted.
  Outcome flush(Nanoseconds timeout) noexcept;

  /// Largest payload + key + headers, in bytes: 1/4 of the ring less the record header, 64 MiB at most.
  [[nodiscard]] std::size_t max_event_bytes() const noexcept;
  /// The exchange has consumed everything up to here: events published and not yet consumed.
  [[nodiscard]] std::uint64_t in_ring() const noexcept;
  [[nodiscard]] const std::string& name() const noexcept;
  /// Highest sequence of an event published.
  [[nodiscard]] std::uint64_t sequence() const noexcept;

 private:
  friend class Bus;
  explicit Publisher(std::shared_ptr<client::PublisherEndpoint> endpoint) noexcept;
  std::shared_ptr<client::PublisherEndpoint> endpoint_;
};

}  // namespace ackring
