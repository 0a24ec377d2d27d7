// What of a publisher is not hot: opening, topics, waiting, resuming. The hot path is in publisher.cpp.
#include "lib/client/publisher_endpoint.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "lib/client/wait.hpp"
#include "lib/control/topic_pattern.hpp"
#include "lib/exchange/ingress.hpp"
#include "lib/ring/consumed.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::client {

PublisherEndpoint::PublisherEndpoint(std::shared_ptr<Connection> connection, Wait wait)
    : backoff_(wait), connection_(std::move(connection)) {}

PublisherEndpoint::~PublisherEndpoint() {
  if (connection_ != nullptr && ring_ != nullptr) {
    connection_->remove(*this);
    // What is committed is routed anyway; the exchange removes the ring when it has drained it.
    if (guard_.open()) connection_->post({{"op", "publisher_close"}, {"slot", slot_}, {"incarnation", incarnation_}});
  }
  const ForkGuard::Hold held = ForkGuard::hold();
  guard_.track(held, 0, -1);
  bell_ = {};
}

void PublisherEndpoint::open(const PublisherOptions& options) {
  if (!options.name.empty()) shm::check_name("publisher", options.name);
  if (options.ring_bytes < limits::min_ring_bytes || options.ring_bytes > limits::max_ring_bytes ||
      !std::has_single_bit(options.ring_bytes)) {
    throw Error(ErrorCode::invalid_argument, "PublisherOptions::ring_bytes",
                std::to_string(options.ring_bytes) + " is no power of two from " +
                    std::to_string(limits::min_ring_bytes) + " to " + std::to_string(limits::max_ring_bytes),
                "give such a number");
  }
  Reply reply = connection_->request({{"op", "publisher"}, {"name", options.name}, {"ring_bytes", options.ring_bytes}});
  slot_ = reply_field<std::uint64_t>(reply.body, "slot");
  incarnation_ = reply_field<std::uint64_t>(reply.body, "incarnation");
  name_ = reply_field<std::string>(reply.body, "name");
  const auto next_sequence = reply_field<std::uint64_t>(reply.body, "next_sequence");
  try {
    take_over(reply, next_sequence);
  } catch (...) {
    // The exchange takes the name for held: it is given back.
    connection_->post({{"op", "publisher_close"}, {"slot", slot_}, {"incarnation", incarnation_}});
    throw;
  }
  connection_->add(*this, reply.epoch);
}

void PublisherEndpoint::take_over(Reply& reply, std::uint64_t next_sequence) {
  shm::Segment ring =
      shm::Segment::attach(reply.take(0), "publisher ring", shm::SegmentKind::ingress_ring, shm::Access::read_write);
  ring.close_fd();
  ring.populate();
  shm::Segment cursor = shm::Segment::attach(reply.take(1), "publisher cursor", shm::SegmentKind::ingress_cursor,
                                             shm::Access::read_only, exchange::cursor_reserve_bytes);
  shm::UniqueFd bell = reply.take(2);
  guard_.track(reply.no_fork, 0, bell.get());
  reply.no_fork.unlock();
  adopt(std::move(ring), std::move(cursor), shm::Bell(std::move(bell)), connection_->view(), next_sequence);
}

void PublisherEndpoint::adopt(shm::Segment ring, shm::Segment cursor, shm::Bell bell,
                              std::shared_ptr<const BusView> view, std::uint64_t next_sequence) {
  const auto* header = ring.as<const shm::IngressRing>();
  if (!std::has_single_bit(header->ring_bytes) || ring.bytes() < shm::page_bytes + header->ring_bytes) {
    throw Error(ErrorCode::damaged, ring.name(), "its size is not what its header says", "restart the exchange");
  }
  ring_segment_ = std::move(ring);
  cursor_segment_ = std::move(cursor);
  bell_ = std::move(bell);
  view_ = std::move(view);
  ring_ = ring_segment_.as<shm::IngressRing>();
  cursor_ = cursor_segment_.as<const shm::IngressCursor>();
  topic_map_ = cursor_segment_.as<const shm::Word32>(shm::page_bytes);
  fence_required_ = &view_->segment().fence_required;
  shards_ = &view_->segment().shards;
  max_event_bytes_ =
      std::min<std::size_t>(ring::max_event_bytes(ring_->ring_bytes), static_cast<std::size_t>(limits::event_bytes));
  sequence_ = committed_sequence_ = next_sequence - 1;
  committed_events_ =
      ring_->events.load(std::memory_order_relaxed);  // relaxed: written before this process knew the file
  unnumbered_ = committed_events_ - sequence_;
  committed_ = ring_->start_position;
  writer_ =
      ring::RingWriter(ring_segment_.data() + shm::page_bytes, ring_->ring_bytes, &ring_->tail, committed_, committed_);
}

std::uint64_t PublisherEndpoint::consumed() const noexcept { return ring::consumed_by_all(*cursor_, *shards_); }

std::byte* PublisherEndpoint::claim_slowly(std::uint64_t bytes) {
  const std::uint64_t head = consumed();
  if (head == writer_.head()) return nullptr;
  writer_.set_head(head);
  return writer_.claim(bytes);
}

bool PublisherEndpoint::quarantined() {
  // relaxed: a ring is quarantined once and for good; a late look does no harm
  if (cursor_->shards[0].quarantined.load(std::memory_order_relaxed) == 0) return false;
  guard_.close(Gone::closed);
  return true;
}

Outcome PublisherEndpoint::no_room() {
  if (quarantined()) return Outcome::closed;
  if (!waiting_) {  // a publish that waits is counted once, however often it looks
    ring_->back_pressured.store(++back_pressured_, std::memory_order_relaxed);  // relaxed: a counter of this thread's
  }
  return Outcome::back_pressured;
}

Outcome PublisherEndpoint::look_up_topic(std::string_view topic) {
  const bool answered = topic_answered();
  const TopicNumbers::Place found = topics_.find(topic);
  if (found == TopicNumbers::nowhere) {
    const Outcome outcome = answered ? define_topic(topic) : no_room();
    if (outcome != Outcome::ok) return outcome;
  } else {
    const std::uint32_t number = topics_.number(found);
    if (number == shm::no_topic) return Outcome::too_many_topics;
    if (number == shm::denied_topic) return Outcome::denied;
    if (!answered && asked_ == found) return no_room();
    last_topic_ = number;
  }
  last_topic_bytes_ = topic.size();
  std::memcpy(last_topic_text_.data(), topic.data(), topic.size());
  return Outcome::ok;
}

Outcome PublisherEndpoint::define_topic(std::string_view topic) {
  if (!control::valid_topic(topic)) return Outcome::invalid_topic;
  // The rules that hold now: they may be others than when this publisher was made.
  const std::shared_ptr<const BusView> view = connection_ != nullptr ? connection_->view() : view_;
  if (!view->permissions.may_publish(topic)) return Outcome::denied;
  if (topics_.size() >= limits::topics) return Outcome::too_many_topics;
  const std::uint64_t bytes = ring::record_bytes(topic.size(), 0, 0);
  std::byte* record = writer_.claim(bytes);
  if (record == nullptr) record = claim_slowly(bytes);
  if (record == nullptr) return no_room();
  const auto number = static_cast<std::uint32_t>(topics_.size() + 1);
  TopicNumbers::Place place = TopicNumbers::nowhere;
  try {
    place = topics_.insert(topic, number);
  } catch (const std::bad_alloc&) {
    return Outcome::too_many_topics;  // for this process
  }
  shm::RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(bytes);
  header.kind = static_cast<std::uint16_t>(shm::RecordKind::topic);
  header.topic = number;
  header.payload_bytes = static_cast<std::uint32_t>(topic.size());
  shm::Environment::at(shm::CrashPoint::publish_topic);
  shm::shared_copy(record, &header, sizeof header);
  shm::shared_copy(record + sizeof header, topic.data(), topic.size());
  writer_.advance(bytes);  // it is published with the event that uses it, or with a later one
  if (topic_may_be_refused()) {
    asked_ = place;
    writer_.set_head(consumed());  // who waits for room waits for X to move on from here
    // With events before it that are not committed it goes out with them.
    if (sequence_ + unnumbered_ == committed_events_) commit_topic();
    return no_room();
  }
  last_topic_ = number;
  return Outcome::ok;
}

// Is the bus near its limit, or was the last topic refused that X has seen of this publisher?
bool PublisherEndpoint::topic_may_be_refused() const noexcept {
  // Other publishers define topics at the same time, unseen by this one.
  constexpr std::uint64_t near_the_limit = 16'384;
  if (view_->topics.count() + near_the_limit >= limits::topics) return true;
  // acquire(cursor.topics): the map's entries below it
  const std::uint64_t seen = cursor_->shards[0].topics.load(std::memory_order_acquire);
  if (seen == 0) return false;
  const std::uint32_t last = topic_map_[seen - 1].load(std::memory_order_relaxed);  // relaxed: published by topics
  return last == shm::no_topic || last == shm::denied_topic;
}

// False: a question is open.
bool PublisherEndpoint::topic_answered() noexcept {
  if (asked_ == TopicNumbers::nowhere) return true;
  writer_.set_head(consumed());  // before the look: what moves afterwards ends a wait
  const std::uint32_t asked = topics_.number(asked_);
  // acquire(cursor.topics): the map's entries below it
  if (cursor_->shards[0].topics.load(std::memory_order_acquire) < asked) return false;
  // relaxed: published by topics
  const std::uint32_t number = topic_map_[asked - 1].load(std::memory_order_relaxed);
  if (number == shm::no_topic || number == shm::denied_topic) topics_.set_number(asked_, number);
  asked_ = TopicNumbers::nowhere;
  return true;
}

void PublisherEndpoint::commit_topic() {
  committed_topics_ = topics_.size();
  ring_->topics.store(committed_topics_, std::memory_order_relaxed);  // relaxed: published by the tail
  writer_.commit();
  committed_ = writer_.position();
  // relaxed: X sets it before it admits a client that needs it
  shm::fence_for_waker(fence_required_->load(std::memory_order_relaxed) != 0);
  ring_if_not_polled();
}

void PublisherEndpoint::ring_if_not_polled() {
  // relaxed: ordered by the park protocol (shm/park.hpp)
  if (cursor_->shards[0].not_polled.load(std::memory_order_relaxed) != 0) (void)bell_.ring();
}

// Waits for something that comes with a move of the cursor's `consumed`. False: it did not come in time.
template <class Ready>
bool PublisherEndpoint::wait_until(Ready ready, std::uint64_t deadline_ns) {
  for (std::uint32_t round = 1;; ++round) {
    if (ready()) {
      backoff_.found();
      return true;
    }
    if (!guard_.open()) return false;
    const shm::Backoff::Step step = backoff_.wait();
    if (step == shm::Backoff::Step::spin && round % rounds_per_clock != 0) continue;
    const std::uint64_t now = shm::Environment::now_ns();
    if (now >= deadline_ns) {
      backoff_.gave_up();
      return false;
    }
    if (step != shm::Backoff::Step::park) continue;
    ring_if_not_polled();
    // relaxed: ordered by the park protocol (shm/park.hpp)
    ring_->parked.store(1, std::memory_order_relaxed);
    shm::barrier_for_parker();
    const bool there = ready();
    if (!there) (void)bell_.wait(std::min(deadline_ns - now, longest_park_ns));
    ring_->parked.store(0, std::memory_order_relaxed);  // relaxed: a late look costs one ring of the bell
    backoff_.woke(shm::Environment::now_ns());
  }
}

Outcome PublisherEndpoint::publish_wait(std::string_view topic, Bytes payload, Nanoseconds timeout,
                                        const EventAttributes& attributes) {
  Outcome outcome = publish(topic, payload, attributes);
  if (outcome != Outcome::back_pressured || timeout.count() <= 0) return outcome;
  const std::uint64_t deadline = deadline_after(timeout);
  // What was added and not committed takes room too, and would never leave.
  if (guard_.open()) (void)commit();
  while (outcome == Outcome::back_pressured) {
    const std::uint64_t seen = writer_.head();
    const bool moved = wait_until([&] { return consumed() != seen; }, deadline);
    waiting_ = true;
    outcome = publish(topic, payload, attributes);
    waiting_ = false;
    if (!moved) break;
  }
  return outcome;
}

Outcome PublisherEndpoint::flush(Nanoseconds timeout) {
  if (!guard_.open()) return Outcome::closed;
  const UseGuard use(use_, "a Publisher");
  const auto routed = [this] { return static_cast<std::int64_t>(consumed() - committed_) >= 0; };
  if (routed() || wait_until(routed, deadline_after(timeout))) return Outcome::ok;
  return guard_.open() && !quarantined() ? Outcome::timed_out : Outcome::closed;
}

std::uint64_t PublisherEndpoint::in_ring() const noexcept {
  if (!guard_.open() || cursor_ == nullptr) return 0;
  std::uint64_t most = 0;
  // relaxed: a shard that is about to come has passed what shard 0 has
  std::uint32_t shards = shards_->load(std::memory_order_relaxed) | 1;
  for (const shm::ShardCursor& shard : cursor_->shards) {
    const std::uint64_t done = shm::events_of(shm::read_block(shard.version, shard.blocks));
    if ((shards & 1) != 0 && committed_events_ > done) most = std::max(most, committed_events_ - done);
    shards >>= 1;
  }
  return most;
}

Json PublisherEndpoint::resume_request() const {
  return {{"op", "publisher"},
          {"name", name_},
          {"ring_bytes", ring_->ring_bytes},
          {"resume", {{"slot", slot_}, {"incarnation", incarnation_}}}};
}

void PublisherEndpoint::resumed(shm::UniqueFd bell) {
  // The number stays, so the publishing thread needs no lock; the old bell's other end is gone.
  bell_.replace(bell);
  (void)bell_.ring();  // whatever was published meanwhile
}

void PublisherEndpoint::refused() { guard_.close(Gone::closed); }

}  // namespace ackring::client
