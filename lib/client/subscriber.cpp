// The hot path of Subscriber: taking, and verdicts.
#include "ackring/subscriber.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "lib/client/member.hpp"
#include "lib/shm/probe.hpp"

namespace ackring {
namespace client {
namespace {

// Whole milliseconds, never fewer than asked for; what an ack word can't hold becomes the nearest that it can.
std::uint32_t milliseconds_of(Nanoseconds time) noexcept {
  const std::int64_t milliseconds = std::chrono::ceil<std::chrono::milliseconds>(time).count();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(milliseconds, 0, ring::max_delay_ms));
}

}  // namespace

inline void Member::begin_take() {
  // Views of an at-most-once member are dead at its next take.
  if (at_most_once_ && released_ != entry_) {
    released_ = entry_;
    ack_.released(entry_);
    notify_exchange();
  }
}

bool Member::readable() {
  if (!guard_.open()) return false;
  if (reader_.peek() != nullptr) return true;
  begin_take();
  return false;
}

// Takes what is there, up to out.size() entries. 0: nothing (or it was all revoked).
inline std::size_t Member::collect(std::span<DeliveryView> out) {
  // On copies, which stay in registers: the views might alias the members.
  ring::RingReader reader = reader_;
  std::uint64_t entry = entry_;
  std::size_t count = 0;
  for (; count < out.size(); ++count) {
    const std::byte* record = reader.peek();
    if (record == nullptr) break;
    out[count] = {record, entry++};
    reader.advance(reinterpret_cast<const shm::RecordHeader*>(record)->bytes);
  }
  reader_ = reader;
  if (count == 0) return 0;
  const std::uint64_t first = entry_;
  entry_ = entry;
  ack_.taken(entry);
  sampler_.taken(first, entry, out[0].record);
  ACKRING_PROBE_TAKE(subscription_, first, count);
  shm::fence_for_waker(fence_required());
  // relaxed: only the number counts, nothing is read by it; ordered behind `taken` by the fence and by X's barrier
  const std::uint64_t revoked = ring_->revoked.load(std::memory_order_relaxed);
  if (static_cast<std::int64_t>(revoked - first) > 0) [[unlikely]]
    return give_back_revoked(out.first(count), revoked);
  return count;
}

std::size_t Member::give_back_revoked(std::span<DeliveryView> taken, std::uint64_t revoked) {
  std::size_t kept = 0;
  for (const DeliveryView& view : taken) {
    if (static_cast<std::int64_t>(revoked - view.entry) > 0) {
      (void)ack_.verdict(view.entry, ring::Verdict::returned);
    } else {
      taken[kept++] = view;
    }
  }
  notify_exchange();
  return kept;
}

std::size_t Member::take_batch(std::span<DeliveryView> out, Nanoseconds timeout) {
  if (!guard_.open() || out.empty()) [[unlikely]]
    return 0;
  const UseGuard use(use_, "a Subscriber");
  begin_take();
  while (true) {
    const std::size_t count = collect(out);
    if (count != 0) [[likely]] {
      if (armed_) [[unlikely]]
        disarm();
      return count;
    }
    if (!wait_for_record(timeout)) return 0;
  }
}

std::optional<Delivery> Member::take(const std::shared_ptr<Member>& self, Nanoseconds timeout) {
  std::optional<Delivery> delivery;
  DeliveryView view;
  if (take_batch({&view, 1}, timeout) == 0) return delivery;
  delivery.emplace();
  delivery->member_ = self;
  delivery->record_ = view.record;
  delivery->entry_ = view.entry;
  return delivery;
}

inline Outcome Member::may_decide(std::uint64_t entry) const {
  if (!guard_.open()) [[unlikely]]
    return guard_.gone() == Gone::left ? Outcome::stale : Outcome::closed;
  // At-most-once has no words, so every verdict is as good as the next.
  const bool passed = !at_most_once_ && static_cast<std::int64_t>(entry - ack_.acked_through()) < 0;
  return passed ? Outcome::stale : Outcome::ok;
}

inline void Member::decided() {
  // relaxed: see detached()
  if (detached_count_.load(std::memory_order_relaxed) != 0) [[unlikely]]
    advance_released();
  notify_exchange();
}

Outcome Member::verdict(std::uint64_t entry, ring::Verdict verdict, std::uint32_t delay_ms) {
  const Outcome outcome = may_decide(entry);
  if (outcome != Outcome::ok || at_most_once_) [[unlikely]]
    return outcome;
  if (!ack_.verdict(entry, verdict, delay_ms)) [[unlikely]]
    return Outcome::stale;
  ACKRING_PROBE_ACK(subscription_, entry, static_cast<std::uint32_t>(verdict));
  decided();
  return Outcome::ok;
}

Outcome Member::ack(std::uint64_t entry, const std::byte* record) {
  const Outcome outcome = may_decide(entry);
  if (outcome != Outcome::ok || at_most_once_) [[unlikely]]
    return outcome;
  // Before the verdict, after which the record may be another one; so it may be now, if there was a verdict.
  if (sampler_.wants(entry) && !ack_.decided(entry)) [[unlikely]]
    sampler_.acked(entry, record);
  if (!ack_.verdict(entry, ring::Verdict::ack)) [[unlikely]]
    return Outcome::stale;
  ACKRING_PROBE_ACK(subscription_, entry, static_cast<std::uint32_t>(ring::Verdict::ack));
  decided();
  return Outcome::ok;
}

Outcome Member::nack(std::uint64_t entry, Nanoseconds delay) {
  return verdict(entry, ring::Verdict::nack, milliseconds_of(delay));
}

Outcome Member::nack(std::uint64_t entry, std::string_view reason) {
  const Outcome outcome = may_decide(entry);
  if (outcome != Outcome::ok || at_most_once_) return outcome;
  if (!ack_.nack(entry, reason)) return Outcome::stale;
  ACKRING_PROBE_ACK(subscription_, entry, static_cast<std::uint32_t>(ring::Verdict::nack_reason));
  decided();
  return Outcome::ok;
}

Outcome Member::give_back(std::uint64_t entry, Nanoseconds delay) {
  return verdict(entry, ring::Verdict::give_back, milliseconds_of(delay));
}

Outcome Member::reject(std::uint64_t entry, std::string_view reason) {
  const Outcome outcome = may_decide(entry);
  if (outcome != Outcome::ok || at_most_once_) return outcome;
  if (!ack_.reject(entry, reason)) return Outcome::stale;
  ACKRING_PROBE_ACK(subscription_, entry, static_cast<std::uint32_t>(ring::Verdict::reject));
  decided();
  return Outcome::ok;
}

Outcome Member::extend(std::uint64_t entry, Nanoseconds duration) {
  const Outcome outcome = may_decide(entry);
  if (outcome != Outcome::ok || at_most_once_) return outcome;
  // No bell: nothing becomes free, and the exchange looks at the words before it lets anything time out.
  return ack_.extend(entry, milliseconds_of(duration)) ? Outcome::ok : Outcome::stale;
}

Outcome Member::ack_through(std::uint64_t entry, const std::byte* record) {
  const Outcome outcome = may_decide(entry);
  if (outcome != Outcome::ok || at_most_once_) [[unlikely]]
    return outcome;
  const std::uint64_t taken = page_->taken.load(std::memory_order_relaxed);  // relaxed: only this process writes it
  if (static_cast<std::int64_t>(taken - entry) <= 0) [[unlikely]]
    return Outcome::stale;
  sampler_.acked_through(ack_.acked_through(), entry, record);
  ack_.ack_through(entry + 1);
  ACKRING_PROBE_ACK(subscription_, entry, static_cast<std::uint32_t>(ring::Verdict::ack));
  decided();
  return Outcome::ok;
}

std::string_view Member::topic(const std::byte* record) const noexcept {
  if (!guard_.open() && guard_.gone() == Gone::forked) return {};
  return view_->topics.text(reinterpret_cast<const shm::RecordHeader*>(record)->topic);
}

std::string_view Member::publisher(const std::byte* record) const noexcept {
  if (!guard_.open() && guard_.gone() == Gone::forked) return {};
  const std::uint16_t slot = reinterpret_cast<const shm::RecordHeader*>(record)->publisher;
  if (slot >= shm::max_publishers) return {};
  const std::array<char, shm::name_bytes>& name = view_->segment().publishers[slot].name;
  return {name.data(), ::strnlen(name.data(), name.size())};
}

}  // namespace client

Subscriber::Subscriber(std::shared_ptr<client::Member> member) noexcept : member_(std::move(member)) {}
Subscriber::Subscriber(Subscriber&&) noexcept = default;

Subscriber& Subscriber::operator=(Subscriber&& other) noexcept {
  if (this != &other) {
    if (member_) member_->leave();
    member_ = std::move(other.member_);
  }
  return *this;
}

Subscriber::~Subscriber() {
  if (member_) member_->leave();
}

std::optional<Delivery> Subscriber::take(Nanoseconds timeout) {
  return member_ ? member_->take(member_, timeout) : std::nullopt;
}

std::size_t Subscriber::take_batch(std::span<DeliveryView> out, Nanoseconds timeout) {
  return member_ ? member_->take_batch(out, timeout) : 0;
}

Outcome Subscriber::ack_through(const DeliveryView& last) noexcept {
  if (!member_) return Outcome::closed;
  return last.record != nullptr ? member_->ack_through(last.entry, last.record) : Outcome::stale;
}

Outcome Subscriber::ack(const DeliveryView& view) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->ack(view.entry, view.record) : Outcome::stale;
}

Outcome Subscriber::nack(const DeliveryView& view) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->verdict(view.entry, ring::Verdict::nack) : Outcome::stale;
}

Outcome Subscriber::nack(const DeliveryView& view, Nanoseconds delay) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->nack(view.entry, delay) : Outcome::stale;
}

Outcome Subscriber::nack(const DeliveryView& view, std::string_view reason) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->nack(view.entry, reason) : Outcome::stale;
}

Outcome Subscriber::give_back(const DeliveryView& view, Nanoseconds delay) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->give_back(view.entry, delay) : Outcome::stale;
}

Outcome Subscriber::reject(const DeliveryView& view, std::string_view reason) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->reject(view.entry, reason) : Outcome::stale;
}

Outcome Subscriber::extend(const DeliveryView& view, Nanoseconds duration) noexcept {
  if (!member_) return Outcome::closed;
  return view.record != nullptr ? member_->extend(view.entry, duration) : Outcome::stale;
}

std::string_view Subscriber::topic(const DeliveryView& view) const noexcept {
  return member_ && view.record != nullptr ? member_->topic(view.record) : std::string_view();
}

std::string_view Subscriber::publisher(const DeliveryView& view) const noexcept {
  return member_ && view.record != nullptr ? member_->publisher(view.record) : std::string_view();
}

int Subscriber::fd() { return member_ ? member_->fd() : -1; }
Outcome Subscriber::flush(Nanoseconds timeout) noexcept { return member_ ? member_->flush(timeout) : Outcome::closed; }
bool Subscriber::closed() const noexcept { return !member_ || member_->closed(); }

const std::string& Subscriber::name() const noexcept {
  static const std::string none;
  return member_ ? member_->name() : none;
}

}  // namespace ackring
