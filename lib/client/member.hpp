// Member: the client's side of one member ring and its ack page. The hot path of Subscriber and Delivery.
//
// Thread rules: taking is for one thread at a time; verdicts and detach() come from any thread. `mutex_` guards the
// descriptors behind fd() and the entries that were detached; the hot path does not take it.
// Invariants: 1. `taken` is stored before a view of an entry reaches user code, and `revoked` is looked at after that
// store. 2. `released` never passes an entry whose view in the ring may still be used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "ackring/subscriber.hpp"
#include "lib/client/connection.hpp"
#include "lib/client/endpoint.hpp"
#include "lib/client/sampler.hpp"
#include "lib/client/use_guard.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/backoff.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::client {

/// What the exchange answers to a subscribe request, beside the descriptors.
struct MemberStart {
  std::uint64_t entry = 0;     // the first to take
  std::uint64_t position = 0;  // its ring position
  bool at_most_once = false;
};

class Member final : public Endpoint {
 public:
  Member(std::shared_ptr<Connection> connection, Wait wait);
  ~Member() override;

  /// Joins the subscription. Throws Error.
  void join(const SubscriptionOptions& options);
  /// What join() does with the answer: for tests that play the exchange.
  void adopt(shm::Segment ring, shm::Segment ack_page, shm::Bell bell, std::shared_ptr<const BusView> view,
             const MemberStart& start);
  /// The subscriber's handle goes: what has no verdict is the exchange's again.
  void leave() noexcept;

  [[nodiscard]] std::optional<Delivery> take(const std::shared_ptr<Member>& self, Nanoseconds timeout);
  [[nodiscard]] std::size_t take_batch(std::span<DeliveryView> out, Nanoseconds timeout);
  [[nodiscard]] Outcome verdict(std::uint64_t entry, ring::Verdict verdict,
                                std::uint32_t delay_ms = ring::delay_default);
  [[nodiscard]] Outcome ack(std::uint64_t entry, const std::byte* record);
  [[nodiscard]] Outcome nack(std::uint64_t entry, Nanoseconds delay);
  [[nodiscard]] Outcome nack(std::uint64_t entry, std::string_view reason);
  [[nodiscard]] Outcome give_back(std::uint64_t entry, Nanoseconds delay);
  [[nodiscard]] Outcome reject(std::uint64_t entry, std::string_view reason);
  [[nodiscard]] Outcome extend(std::uint64_t entry, Nanoseconds duration);
  [[nodiscard]] Outcome ack_through(std::uint64_t entry, const std::byte* record = nullptr);
  /// The entry's view in the ring is not used any more, though it has no verdict yet.
  void detached(std::uint64_t entry);

  [[nodiscard]] std::string_view topic(const std::byte* record) const noexcept;
  [[nodiscard]] std::string_view publisher(const std::byte* record) const noexcept;
  [[nodiscard]] int fd();
  [[nodiscard]] Outcome flush(Nanoseconds timeout);
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Says what the circuit breaker before the member's handler is at. One thread at a time.
  void show_breaker(shm::BreakerState state, std::uint32_t failures, std::uint64_t since_ns, std::uint64_t opened);
  /// What an operator wants of it. Any thread.
  [[nodiscard]] shm::BreakerOrder breaker_order() const noexcept;
  [[nodiscard]] bool closed() const noexcept { return !guard_.open(); }

  [[nodiscard]] bool at_most_once() const noexcept { return at_most_once_; }
  [[nodiscard]] std::uint64_t ack_timeout_ns() const noexcept { return ack_timeout_ns_; }
  /// Is there anything to take? The taking thread's. As at a take, views of at-most-once deliveries end.
  [[nodiscard]] bool readable();
  /// Nobody takes for a while: where fd() is polled, the next delivery rings. True: there is one already.
  [[nodiscard]] bool arm();

  // For the keeper.
  [[nodiscard]] Json resume_request() const override;
  void resumed(shm::UniqueFd bell) override;
  void refused() override;

 private:
  void take_over(Reply& reply, const MemberStart& start);
  void begin_take();
  [[nodiscard]] std::size_t collect(std::span<DeliveryView> out);
  [[nodiscard]] std::size_t give_back_revoked(std::span<DeliveryView> taken, std::uint64_t revoked);
  [[nodiscard]] bool wait_for_record(Nanoseconds timeout);
  void disarm();
  void notify_exchange() {
    shm::fence_for_waker(fence_required());
    // relaxed: ordered by the park protocol (shm/park.hpp)
    if (ring_->acks_wanted.load(std::memory_order_relaxed) != 0) (void)bell_.ring();
  }
  // Is there still a verdict to give? What to answer if not.
  [[nodiscard]] Outcome may_decide(std::uint64_t entry) const;
  void decided();
  void advance_released();
  void watch_bell(int epoll);
  void make_fd_readable() noexcept;
  [[nodiscard]] bool fence_required() const noexcept {
    // relaxed: X sets it before it admits a client that needs it
    return fence_required_->load(std::memory_order_relaxed) != 0;
  }

  // Hot; the taking thread's.
  ring::RingReader reader_;
  std::uint64_t entry_ = 0;  // of the next record
  ring::AckWriter ack_;
  Sampler sampler_;
  shm::AckPage* page_ = nullptr;
  const shm::MemberRing* ring_ = nullptr;
  const shm::Word32* fence_required_ = nullptr;
  bool at_most_once_ = false;
  bool armed_ = false;  // `parked` is 1 while nobody waits: the user polls fd()
  std::uint64_t released_ = 0;
  [[no_unique_address]] UseFlag use_;

  shm::Word32 detached_count_{};  // entries of `detached_`
  shm::Word32 polled_{};          // fd() was called
  shm::Bell bell_;
  shm::Backoff backoff_;  // the taking thread's
  std::shared_ptr<Connection> connection_;
  std::shared_ptr<const BusView> view_;
  shm::Segment ring_segment_;
  shm::Segment ack_segment_;
  std::string name_;
  bool ephemeral_ = false;
  std::uint64_t ack_timeout_ns_ = 0;
  std::uint64_t subscription_ = 0;
  std::uint64_t ack_incarnation_ = 0;

  std::mutex mutex_;
  std::set<std::uint64_t> detached_;
  std::uint64_t released_by_detach_ = 0;
  shm::UniqueFd epoll_;
  shm::UniqueFd news_;  // eventfd: the keeper changed something
};

}  // namespace ackring::client
