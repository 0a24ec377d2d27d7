// Delivery and DeliveryView: reading an event in place, or in the copy that detach() made.
#include "ackring/delivery.hpp"

#include <cstring>
#include <utility>

#include "lib/client/headers_codec.hpp"
#include "lib/client/member.hpp"
#include "lib/ring/record.hpp"

namespace ackring {

static_assert(detail::record_flags == offsetof(shm::RecordHeader, flags) &&
              detail::record_sequence == offsetof(shm::RecordHeader, sequence) &&
              detail::record_published_ns == offsetof(shm::RecordHeader, published_ns) &&
              detail::record_payload_bytes == offsetof(shm::RecordHeader, payload_bytes) &&
              detail::record_delivery == offsetof(shm::RecordHeader, delivery) &&
              detail::record_header_bytes == sizeof(shm::RecordHeader) &&
              detail::record_attempt_bytes == sizeof(shm::AttemptInfo) &&
              detail::record_history == offsetof(shm::AttemptInfo, history) &&
              detail::record_past_bytes == sizeof(shm::PastAttempt) &&
              detail::record_flag_attempt == shm::flag_attempt && detail::record_flag_timing == shm::flag_timing &&
              detail::record_timing_bytes == sizeof(shm::TimingInfo));

namespace {

const shm::RecordHeader& header_of(const std::byte* record) noexcept {
  return *reinterpret_cast<const shm::RecordHeader*>(record);
}

std::string_view as_text(const std::byte* data, std::size_t bytes) noexcept {
  return {reinterpret_cast<const char*>(data), bytes};
}

Bytes payload_of(const std::byte* record) noexcept {
  return {ring::parts(record).payload, header_of(record).payload_bytes};
}

std::string_view key_of(const std::byte* record) noexcept {
  return as_text(ring::parts(record).key, header_of(record).key_bytes);
}

std::uint32_t attempt_of(const std::byte* record) noexcept {
  const shm::AttemptInfo* attempt = ring::parts(record).attempt;
  return attempt != nullptr ? attempt->attempt : 1;
}

// A first delivery has no AttemptInfo, or one that does not know: it is being delivered for the first time right now.
std::uint64_t first_delivered_of(const std::byte* record) noexcept {
  const shm::AttemptInfo* attempt = ring::parts(record).attempt;
  return attempt != nullptr && attempt->first_delivered_ns != 0 ? attempt->first_delivered_ns
                                                                : shm::Environment::now_ns();
}

// Behind the record in a copy: topic and publisher, which are not in the record itself.
struct CopiedNames {
  std::uint32_t topic_bytes;
  std::uint32_t publisher_bytes;
};

CopiedNames names_of(const std::byte* copy) noexcept {
  CopiedNames names;
  std::memcpy(&names, copy + header_of(copy).bytes, sizeof names);
  return names;
}

}  // namespace

Delivery::Delivery(Delivery&& other) noexcept
    : member_(std::move(other.member_)),
      record_(std::exchange(other.record_, nullptr)),
      entry_(std::exchange(other.entry_, 0)),
      copy_(std::move(other.copy_)) {}

Delivery& Delivery::operator=(Delivery&& other) noexcept {
  if (this != &other) {
    if (member_) (void)nack();
    member_ = std::move(other.member_);
    record_ = std::exchange(other.record_, nullptr);
    entry_ = std::exchange(other.entry_, 0);
    copy_ = std::move(other.copy_);
  }
  return *this;
}

Delivery::~Delivery() {
  if (member_) (void)nack();
}

// nullptr where there is nothing to read: no event, a verdict was given, or the ring belongs to the parent of a fork.
const std::byte* Delivery::readable() const noexcept {
  if (copy_ != nullptr || member_ == nullptr || !member_->closed()) return record_;
  return member_->guard().gone() == client::Gone::forked ? nullptr : record_;
}

std::string_view Delivery::topic() const noexcept {
  const std::byte* record = readable();
  if (record == nullptr) return {};
  if (copy_ == nullptr) return member_->topic(record);
  return as_text(record + header_of(record).bytes + sizeof(CopiedNames), names_of(record).topic_bytes);
}

std::string_view Delivery::publisher() const noexcept {
  const std::byte* record = readable();
  if (record == nullptr) return {};
  if (copy_ == nullptr) return member_->publisher(record);
  const CopiedNames names = names_of(record);
  return as_text(record + header_of(record).bytes + sizeof names + names.topic_bytes, names.publisher_bytes);
}

Bytes Delivery::payload() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? payload_of(record) : Bytes();
}

std::string_view Delivery::text() const noexcept {
  const Bytes bytes = payload();
  return as_text(bytes.data(), bytes.size());
}

std::string_view Delivery::key() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? key_of(record) : std::string_view();
}

Headers Delivery::headers() const {
  const std::byte* record = readable();
  if (record == nullptr || header_of(record).headers_bytes == 0) return {};
  return client::decode_headers({ring::parts(record).headers, header_of(record).headers_bytes});
}

std::uint64_t Delivery::sequence() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? header_of(record).sequence : 0;
}

std::uint64_t Delivery::delivery() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? header_of(record).delivery : 0;
}

std::uint32_t Delivery::attempt() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? attempt_of(record) : 0;
}

std::uint64_t Delivery::first_delivered_ns() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? first_delivered_of(record) : 0;
}

std::uint64_t Delivery::published_ns() const noexcept {
  const std::byte* record = readable();
  return record != nullptr ? header_of(record).published_ns : 0;
}

Outcome Delivery::decided(Outcome outcome) noexcept {
  member_.reset();
  if (copy_ == nullptr) record_ = nullptr;  // its bytes may be another event's soon
  return outcome;
}

Outcome Delivery::ack() noexcept { return member_ ? decided(member_->ack(entry_, record_)) : Outcome::stale; }
Outcome Delivery::nack() noexcept {
  return member_ ? decided(member_->verdict(entry_, ring::Verdict::nack)) : Outcome::stale;
}
Outcome Delivery::nack(Nanoseconds delay) noexcept {
  return member_ ? decided(member_->nack(entry_, delay)) : Outcome::stale;
}
Outcome Delivery::nack(std::string_view reason) noexcept {
  return member_ ? decided(member_->nack(entry_, reason)) : Outcome::stale;
}
Outcome Delivery::give_back(Nanoseconds delay) noexcept {
  return member_ ? decided(member_->give_back(entry_, delay)) : Outcome::stale;
}
Outcome Delivery::reject(std::string_view reason) noexcept {
  return member_ ? decided(member_->reject(entry_, reason)) : Outcome::stale;
}
Outcome Delivery::extend(Nanoseconds duration) noexcept {
  return member_ ? member_->extend(entry_, duration) : Outcome::stale;
}

void Delivery::detach() {
  const std::byte* record = readable();
  if (record == nullptr || copy_ != nullptr) return;
  const std::size_t bytes = header_of(record).bytes;
  const std::string_view topic = member_->topic(record);
  const std::string_view publisher = member_->publisher(record);
  const CopiedNames names{static_cast<std::uint32_t>(topic.size()), static_cast<std::uint32_t>(publisher.size())};
  // new[] aligns as a record wants to be.
  std::unique_ptr<std::byte[]> copy(new std::byte[bytes + sizeof names + topic.size() + publisher.size()]);
  std::byte* at = copy.get();
  std::memcpy(at, record, bytes);
  at += bytes;
  std::memcpy(at, &names, sizeof names);
  at += sizeof names;
  if (!topic.empty()) std::memcpy(at, topic.data(), topic.size());
  at += topic.size();
  if (!publisher.empty()) std::memcpy(at, publisher.data(), publisher.size());
  copy_ = std::move(copy);
  record_ = copy_.get();
  member_->detached(entry_);
}

std::string_view DeliveryView::key() const noexcept { return key_of(record); }
std::uint32_t DeliveryView::attempt() const noexcept { return attempt_of(record); }
std::uint64_t DeliveryView::first_delivered_ns() const noexcept { return first_delivered_of(record); }

}  // namespace ackring
