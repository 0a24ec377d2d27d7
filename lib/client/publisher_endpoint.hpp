// PublisherEndpoint: the client's side of one ingress ring. The hot path of Publisher and Loan.
//
// An event is written into the ring as one RecordHeader, built in registers, and its parts; nothing of it is visible
// before commit() stores the tail. `published_ns` of every event of a commit is the time of its first event, so a batch
// costs one look at the clock. Topics are defined in band, before the first event that uses them. Where the bus may have
// no room for one more, a new topic goes out alone, and its first event is accepted once X has answered in the cursor.
//
// Thread rules: one thread at a time; the keeper thread only replaces what is behind the bell's descriptor.
// Invariants: 1. Everything up to `committed_` is visible to X. 2. Every topic number in the ring was defined before it
// in the ring. 3. The ring's head is the last value of the cursor's `consumed` that was looked at, hence never ahead of
// it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "ackring/publisher.hpp"
#include "lib/client/connection.hpp"
#include "lib/client/endpoint.hpp"
#include "lib/client/headers_codec.hpp"
#include "lib/client/topic_numbers.hpp"
#include "lib/client/use_guard.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/backoff.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::client {

class PublisherEndpoint final : public Endpoint {
 public:
  PublisherEndpoint(std::shared_ptr<Connection> connection, Wait wait);
  ~PublisherEndpoint() override;

  /// Asks the exchange for a ring. Throws Error.
  void open(const PublisherOptions& options);
  /// What open() does with the answer: for tests that play the exchange.
  void adopt(shm::Segment ring, shm::Segment cursor, shm::Bell bell, std::shared_ptr<const BusView> view,
             std::uint64_t next_sequence);

  [[nodiscard]] Outcome add(std::string_view topic, Bytes payload, const EventAttributes& attributes);
  [[nodiscard]] Outcome commit();
  [[nodiscard]] Outcome publish(std::string_view topic, Bytes payload, const EventAttributes& attributes);
  [[nodiscard]] Outcome publish_wait(std::string_view topic, Bytes payload, Nanoseconds timeout,
                                     const EventAttributes& attributes);
  void lend(Loan& loan, std::string_view topic, std::size_t payload_bytes, const EventAttributes& attributes);
  [[nodiscard]] Outcome commit_loan(const Loan& loan);
  void end_loan(const std::byte* data) noexcept {
    if (loan_ == data) loan_ = nullptr;
  }
  [[nodiscard]] Outcome flush(Nanoseconds timeout);

  [[nodiscard]] std::size_t max_event_bytes() const noexcept { return max_event_bytes_; }
  [[nodiscard]] std::uint64_t in_ring() const noexcept;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] std::uint64_t sequence() const noexcept { return committed_sequence_; }

  // For the keeper.
  [[nodiscard]] Json resume_request() const override;
  void resumed(shm::UniqueFd bell) override;
  void refused() override;

 private:
  void take_over(Reply& reply, std::uint64_t next_sequence);

  struct Room {
    std::byte* record;
    Outcome outcome;
  };

  // The common part of add() and lend(): checks, topic number, space. `header` lacks sequence and time.
  [[nodiscard]] Room make_room(std::string_view topic, std::size_t payload_bytes, const EventAttributes& attributes,
                               shm::RecordHeader& header);
  struct Times {
    Nanoseconds ttl{0};
    Nanoseconds delay{0};
  };
  [[nodiscard]] std::uint64_t use_sequence(std::uint64_t sequence) noexcept;
  std::byte* write_timing(std::byte* to, const Times& times) const;
  [[nodiscard]] bool same_as_last_topic(std::string_view topic) const noexcept;
  [[nodiscard]] Outcome look_up_topic(std::string_view topic);
  [[nodiscard]] Outcome define_topic(std::string_view topic);
  [[nodiscard]] bool topic_may_be_refused() const noexcept;
  [[nodiscard]] bool topic_answered() noexcept;
  void commit_topic();
  [[nodiscard]] std::byte* claim_slowly(std::uint64_t bytes);
  [[nodiscard]] Outcome no_room();
  [[nodiscard]] bool quarantined();
  [[nodiscard]] std::uint64_t consumed() const noexcept;
  void publish_tail();
  void ring_if_not_polled();
  template <class Ready>
  [[nodiscard]] bool wait_until(Ready ready, std::uint64_t deadline_ns);

  // Hot, and written by this thread only.
  ring::RingWriter writer_;
  shm::IngressRing* ring_ = nullptr;
  const shm::IngressCursor* cursor_ = nullptr;
  const shm::Word32* fence_required_ = nullptr;
  const shm::Word32* shards_ = nullptr;  // mask of those whose cursors count
  std::uint64_t sequence_ = 0;           // highest one of the events added
  std::uint64_t unnumbered_ = 0;  // events added so far, less sequence_: not 0 if the application has its own numbers
  std::uint64_t batch_ns_ = 0;    // time of the first event since the last commit; 0: there is none
  std::uint64_t committed_ = 0;   // position
  std::size_t max_event_bytes_ = 0;
  const std::byte* loan_ = nullptr;  // payload of the loan that may be committed
  std::uint32_t last_topic_ = 0;
  std::size_t last_topic_bytes_ = 0;
  std::array<char, limits::topic_bytes + 1> last_topic_text_{};
  [[no_unique_address]] UseFlag use_;

  std::uint64_t committed_sequence_ = 0;
  std::uint64_t committed_events_ = 0;
  std::uint64_t committed_topics_ = 0;
  std::uint64_t back_pressured_ = 0;
  bool waiting_ = false;  // publish_wait() tries again
  shm::RecordHeader loan_header_{};
  std::byte* loan_record_ = nullptr;
  Times loan_times_;
  std::uint64_t loan_sequence_ = 0;
  TopicNumbers topics_;                                // no_topic, denied_topic: refused
  TopicNumbers::Place asked_ = TopicNumbers::nowhere;  // of topics_: X has not said yet whether there is room
  const shm::Word32* topic_map_ = nullptr;             // of the cursor
  shm::Bell bell_;
  shm::Backoff backoff_;
  std::shared_ptr<Connection> connection_;
  std::shared_ptr<const BusView> view_;
  shm::Segment ring_segment_;
  shm::Segment cursor_segment_;
  std::string name_;
  std::uint64_t slot_ = 0;
  std::uint64_t incarnation_ = 0;
};

}  // namespace ackring::client
