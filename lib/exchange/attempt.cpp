#include "lib/exchange/attempt.hpp"

#include <algorithm>
#include <cstring>

namespace ackring::exchange {

namespace {

// Payload, key and headers lie one behind the other.
std::uint64_t body_bytes(const shm::RecordHeader& header) noexcept {
  return std::uint64_t{header.payload_bytes} + header.key_bytes + header.headers_bytes;
}

// What has been delivered once, or was dead, is not too late any more.
bool keeps_timing(const ring::EventParts& event, const Attempt& attempt) noexcept {
  return event.timing != nullptr && !attempt.written();
}

}  // namespace

Attempt attempt_of(const ring::EventParts& event) noexcept {
  Attempt result;
  if (event.attempt == nullptr) {
    result.info.attempt = 1;
    return result;
  }
  result.info = *event.attempt;
  result.info.history = static_cast<std::uint16_t>(std::min<std::size_t>(result.info.history, shm::max_history));
  std::copy_n(event.history, result.info.history, result.past.begin());
  return result;
}

void end_attempt(Attempt& attempt, shm::DeliveryState cause, std::uint64_t now_ns) noexcept {
  shm::AttemptInfo& info = attempt.info;
  if (info.first_delivered_ns == 0) info.first_delivered_ns = now_ns;
  info.cause = static_cast<std::uint16_t>(cause);
  if (info.history == shm::max_history) {
    std::move(attempt.past.begin() + 1, attempt.past.end(), attempt.past.begin());
    --info.history;
  }
  attempt.past[info.history++] = {now_ns, info.attempt, static_cast<std::uint32_t>(cause)};
}

void shorten_history(Attempt& attempt, const ring::EventParts& event, std::uint64_t most) noexcept {
  const std::uint64_t bytes = rewritten_bytes(event, attempt, nullptr);
  if (bytes <= most) return;
  const std::uint64_t too_many = std::min<std::uint64_t>(
      (bytes - most + sizeof(shm::PastAttempt) - 1) / sizeof(shm::PastAttempt), attempt.info.history);
  std::move(attempt.past.begin() + static_cast<std::ptrdiff_t>(too_many), attempt.past.end(), attempt.past.begin());
  attempt.info.history = static_cast<std::uint16_t>(attempt.info.history - too_many);
}

bool is_untaken(const ring::EventParts& event) noexcept {
  return event.attempt == nullptr || (event.later != nullptr && event.later->untaken != 0);
}

std::string_view reason_of(const ring::EventParts& event) noexcept {
  if (event.later == nullptr) return {};
  return {reinterpret_cast<const char*>(event.payload) + body_bytes(*event.header), event.later->reason_bytes};
}

std::uint64_t rewritten_bytes(const ring::EventParts& event, const Attempt& attempt, const Later* later) noexcept {
  const std::uint64_t later_bytes = later != nullptr ? sizeof(shm::LaterInfo) + later->reason.size() : 0;
  const std::uint64_t timing_bytes = keeps_timing(event, attempt) ? sizeof(shm::TimingInfo) : 0;
  return ring::align_record(sizeof(shm::RecordHeader) + later_bytes + timing_bytes + attempt.bytes() +
                            body_bytes(*event.header));
}

void rewrite(std::byte* to, const ring::EventParts& event, const Attempt& attempt, const Later* later) {
  shm::RecordHeader header = *event.header;
  header.bytes = static_cast<std::uint32_t>(rewritten_bytes(event, attempt, later));
  const bool timed = keeps_timing(event, attempt);
  header.flags = static_cast<std::uint16_t>((attempt.written() ? shm::flag_attempt : 0) |
                                            (later != nullptr ? shm::flag_later : 0) | (timed ? shm::flag_timing : 0));
  ring::write_header(to, header, header.delivery);
  to += sizeof header;
  if (later != nullptr) {
    shm::Memory::writing(to, sizeof(shm::LaterInfo));
    std::memset(to, 0, sizeof(shm::LaterInfo));
    auto* info = reinterpret_cast<shm::LaterInfo*>(to);
    info->reason_bytes = static_cast<std::uint32_t>(later->reason.size());
    info->due_ns = later->due_ns;
    info->entry = later->entry;
    info->ring = later->ring;
    info->dead_unix_ns = later->dead_unix_ns;
    info->untaken = later->untaken ? 1 : 0;
    to += sizeof(shm::LaterInfo);
  }
  if (timed) {
    shm::shared_copy(to, event.timing, sizeof(shm::TimingInfo));
    to += sizeof(shm::TimingInfo);
  }
  if (attempt.written()) {
    shm::shared_copy(to, &attempt.info, sizeof attempt.info);
    to += sizeof attempt.info;
    if (attempt.info.history != 0) {
      shm::shared_copy(to, attempt.past.data(), attempt.info.history * sizeof(shm::PastAttempt));
    }
    to += attempt.info.history * sizeof(shm::PastAttempt);
  }
  const std::uint64_t body = body_bytes(header);
  if (body != 0) shm::shared_copy(to, event.payload, body);
  to += body;
  if (later != nullptr && !later->reason.empty()) shm::shared_copy(to, later->reason.data(), later->reason.size());
}

}  // namespace ackring::exchange
