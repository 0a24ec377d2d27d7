// The hot path of Publisher and Loan.
#include "ackring/publisher.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "lib/client/publisher_endpoint.hpp"
#include "lib/shm/probe.hpp"

namespace ackring {
namespace client {
inline bool PublisherEndpoint::same_as_last_topic(std::string_view topic) const noexcept {
  if (topic.size() != last_topic_bytes_ || last_topic_bytes_ == 0) return false;
  return equal_texts(topic.data(), last_topic_text_.data(), topic.size());
}

[[gnu::always_inline]] inline PublisherEndpoint::Room PublisherEndpoint::make_room(std::string_view topic,
                                                                                   std::size_t payload_bytes,
                                                                                   const EventAttributes& attributes,
                                                                                   shm::RecordHeader& header) {
  loan_ = nullptr;  // its space is claimed anew
  std::uint64_t headers_bytes = 0;
  if (attributes.headers != nullptr) [[unlikely]]
    headers_bytes = encoded_bytes(*attributes.headers);
  const std::size_t key_bytes = attributes.key.size();
  // Each part by itself first, so that the sum can't wrap.
  if (payload_bytes > max_event_bytes_ || key_bytes > limits::key_bytes || headers_bytes > max_event_bytes_ ||
      payload_bytes + key_bytes + headers_bytes > max_event_bytes_) [[unlikely]] {
    return {nullptr, Outcome::too_large};
  }
  if (!same_as_last_topic(topic)) {
    const Outcome outcome = look_up_topic(topic);
    if (outcome != Outcome::ok) return {nullptr, outcome};
  }
  header.flags = 0;
  std::uint64_t bytes = ring::record_bytes(payload_bytes, key_bytes, headers_bytes);
  if ((attributes.ttl.count() | attributes.delay.count()) != 0) [[unlikely]] {
    static_assert(sizeof(shm::TimingInfo) % shm::record_alignment == 0);
    header.flags = shm::flag_timing;
    bytes += sizeof(shm::TimingInfo);
  }
  std::byte* record = writer_.claim(bytes);
  if (record == nullptr) [[unlikely]] {
    record = claim_slowly(bytes);
    if (record == nullptr) return {nullptr, no_room()};
  }
  header.bytes = static_cast<std::uint32_t>(bytes);
  header.kind = static_cast<std::uint16_t>(shm::RecordKind::event);
  header.topic = last_topic_;
  header.payload_bytes = static_cast<std::uint32_t>(payload_bytes);
  header.headers_bytes = static_cast<std::uint32_t>(headers_bytes);
  header.key_bytes = static_cast<std::uint16_t>(key_bytes);
  header.publisher = 0;
  header.delivery = 0;
  return {record, Outcome::ok};
}

Outcome PublisherEndpoint::add(std::string_view topic, Bytes payload, const EventAttributes& attributes) {
  if (!guard_.open()) [[unlikely]]
    return Outcome::closed;
  const UseGuard use(use_, "a Publisher");
  shm::RecordHeader header;
  const Room room = make_room(topic, payload.size(), attributes, header);
  if (room.record == nullptr) [[unlikely]]
    return room.outcome;
  if (batch_ns_ == 0) batch_ns_ = shm::Environment::now_ns();
  shm::Environment::at(shm::CrashPoint::publish_record);
  header.sequence = attributes.sequence == 0 ? ++sequence_ : use_sequence(attributes.sequence);
  header.published_ns = batch_ns_;
  ring::write_header(room.record, header, 0);
  std::byte* at = room.record + sizeof header;
  if (header.flags != 0) [[unlikely]]
    at = write_timing(at, {attributes.ttl, attributes.delay});
  if (!payload.empty()) shm::shared_copy(at, payload.data(), payload.size());
  at += payload.size();
  if (header.key_bytes != 0) [[unlikely]]
    shm::shared_copy(at, attributes.key.data(), header.key_bytes);
  if (header.headers_bytes != 0) [[unlikely]]
    encode_headers(*attributes.headers, at + header.key_bytes);
  writer_.advance(header.bytes);
  return Outcome::ok;
}

// The application counts by itself from here on; events are counted apart from their numbers.
std::uint64_t PublisherEndpoint::use_sequence(std::uint64_t sequence) noexcept {
  const std::uint64_t events = sequence_ + unnumbered_ + 1;
  sequence_ = std::max(sequence_, sequence);
  unnumbered_ = events - sequence_;
  return sequence;
}

std::byte* PublisherEndpoint::write_timing(std::byte* to, const Times& times) const {
  const auto after = [this](Nanoseconds duration) { return batch_ns_ + static_cast<std::uint64_t>(duration.count()); };
  shm::TimingInfo timing{};
  if (times.delay.count() > 0) timing.not_before_ns = after(times.delay);
  if (times.ttl.count() != 0) timing.expires_ns = times.ttl.count() > 0 ? after(times.ttl) : batch_ns_;
  shm::shared_copy(to, &timing, sizeof timing);
  return to + sizeof timing;
}

inline void PublisherEndpoint::publish_tail() {
  shm::Environment::at(shm::CrashPoint::publish_tail);
  if (topics_.size() != committed_topics_) [[unlikely]] {
    committed_topics_ = topics_.size();
    ring_->topics.store(committed_topics_, std::memory_order_relaxed);  // relaxed: published by the tail
  }
  committed_events_ = sequence_ + unnumbered_;
  ring_->events.store(committed_events_, std::memory_order_relaxed);  // relaxed: published by the tail
  writer_.commit();
  ACKRING_PROBE_PUBLISH(sequence_, writer_.position());
  committed_ = writer_.position();
  committed_sequence_ = sequence_;
  batch_ns_ = 0;
  // relaxed: X sets it before it admits a client that needs it
  shm::fence_for_waker(fence_required_->load(std::memory_order_relaxed) != 0);
  ring_if_not_polled();
}

Outcome PublisherEndpoint::commit() {
  if (!guard_.open()) [[unlikely]]
    return Outcome::closed;
  const UseGuard use(use_, "a Publisher");
  if (writer_.position() != committed_) publish_tail();
  return Outcome::ok;
}

Outcome PublisherEndpoint::publish(std::string_view topic, Bytes payload, const EventAttributes& attributes) {
  const Outcome outcome = add(topic, payload, attributes);
  if (outcome == Outcome::ok) [[likely]]
    publish_tail();
  return outcome;
}

void PublisherEndpoint::lend(Loan& loan, std::string_view topic, std::size_t payload_bytes,
                             const EventAttributes& attributes) {
  if (!guard_.open()) [[unlikely]]
    return;
  const UseGuard use(use_, "a Publisher");
  const Room room = make_room(topic, payload_bytes, attributes, loan_header_);
  loan.outcome_ = room.outcome;
  if (room.record == nullptr) [[unlikely]]
    return;
  loan_record_ = room.record;
  loan_times_ = {attributes.ttl, attributes.delay};
  loan_sequence_ = attributes.sequence;
  loan.endpoint_ = this;
  loan.data_ = room.record + sizeof(shm::RecordHeader) + (loan_header_.flags != 0 ? sizeof(shm::TimingInfo) : 0);
  loan.bytes_ = payload_bytes;
  loan_ = loan.data_;
  std::byte* at = loan.data_ + payload_bytes;
  if (loan_header_.key_bytes != 0) shm::shared_copy(at, attributes.key.data(), loan_header_.key_bytes);
  if (loan_header_.headers_bytes != 0) encode_headers(*attributes.headers, at + loan_header_.key_bytes);
}

Outcome PublisherEndpoint::commit_loan(const Loan& loan) {
  if (!guard_.open()) [[unlikely]]
    return Outcome::closed;
  const UseGuard use(use_, "a Publisher");
  // The publisher was used in between: the space is another event's now.
  if (loan.data_ != loan_ || loan_ == nullptr) return Outcome::closed;
  if (batch_ns_ == 0) batch_ns_ = shm::Environment::now_ns();
  loan_header_.sequence = loan_sequence_ == 0 ? ++sequence_ : use_sequence(loan_sequence_);
  loan_header_.published_ns = batch_ns_;
  shm::shared_copy(loan_record_, &loan_header_, sizeof loan_header_);
  if (loan_header_.flags != 0) write_timing(loan_record_ + sizeof loan_header_, loan_times_);
  writer_.advance(loan_header_.bytes);
  loan_ = nullptr;
  publish_tail();
  return Outcome::ok;
}

}  // namespace client

Loan::Loan(Loan&& other) noexcept
    : endpoint_(std::exchange(other.endpoint_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      outcome_(std::exchange(other.outcome_, Outcome::closed)) {}

Loan& Loan::operator=(Loan&& other) noexcept {
  if (this != &other) {
    if (endpoint_ != nullptr) endpoint_->end_loan(data_);
    endpoint_ = std::exchange(other.endpoint_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    outcome_ = std::exchange(other.outcome_, Outcome::closed);
  }
  return *this;
}

Loan::~Loan() {
  if (endpoint_ != nullptr) endpoint_->end_loan(data_);
}

Outcome Loan::commit() noexcept {
  if (endpoint_ == nullptr) return outcome_ == Outcome::ok ? Outcome::closed : outcome_;
  const Outcome outcome = endpoint_->commit_loan(*this);
  endpoint_ = nullptr;
  data_ = nullptr;
  bytes_ = 0;
  outcome_ = Outcome::closed;
  return outcome;
}

Publisher::Publisher(std::shared_ptr<client::PublisherEndpoint> endpoint) noexcept : endpoint_(std::move(endpoint)) {}
Publisher::Publisher(Publisher&&) noexcept = default;
Publisher& Publisher::operator=(Publisher&&) noexcept = default;
Publisher::~Publisher() = default;

Outcome Publisher::publish(std::string_view topic, Bytes payload, const EventAttributes& attributes) noexcept {
  return endpoint_ ? endpoint_->publish(topic, payload, attributes) : Outcome::closed;
}

Outcome Publisher::publish_wait(std::string_view topic, Bytes payload, Nanoseconds timeout,
                                const EventAttributes& attributes) noexcept {
  return endpoint_ ? endpoint_->publish_wait(topic, payload, timeout, attributes) : Outcome::closed;
}

Loan Publisher::loan(std::string_view topic, std::size_t payload_bytes, const EventAttributes& attributes) noexcept {
  Loan loan;
  if (endpoint_) endpoint_->lend(loan, topic, payload_bytes, attributes);
  return loan;
}

Outcome Publisher::add(std::string_view topic, Bytes payload, const EventAttributes& attributes) noexcept {
  return endpoint_ ? endpoint_->add(topic, payload, attributes) : Outcome::closed;
}

Outcome Publisher::commit_batch() noexcept { return endpoint_ ? endpoint_->commit() : Outcome::closed; }

Outcome Publisher::flush(Nanoseconds timeout) noexcept {
  return endpoint_ ? endpoint_->flush(timeout) : Outcome::closed;
}

std::size_t Publisher::max_event_bytes() const noexcept { return endpoint_ ? endpoint_->max_event_bytes() : 0; }
std::uint64_t Publisher::in_ring() const noexcept { return endpoint_ ? endpoint_->in_ring() : 0; }
std::uint64_t Publisher::sequence() const noexcept { return endpoint_ ? endpoint_->sequence() : 0; }

const std::string& Publisher::name() const noexcept {
  static const std::string none;
  return endpoint_ ? endpoint_->name() : none;
}

}  // namespace ackring
