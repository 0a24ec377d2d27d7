#include "lib/client/dead_letter_text.hpp"

#include <cstring>

#include "lib/client/headers_codec.hpp"
#include "lib/control/json_text.hpp"
#include "lib/exchange/attempt.hpp"

namespace ackring::client {

namespace {

const char* cause_text(std::uint32_t cause) noexcept {
  switch (static_cast<shm::DeliveryState>(cause)) {
    case shm::DeliveryState::nacked:
      return "nacked";
    case shm::DeliveryState::timed_out:
      return "timed_out";
    case shm::DeliveryState::rejected:
      return "rejected";
    case shm::DeliveryState::member_died:
      return "member_died";
    default:
      return "unknown";
  }
}

std::string_view text(const std::byte* at, std::size_t bytes) { return {reinterpret_cast<const char*>(at), bytes}; }

}  // namespace

std::string dead_letter_line(const ring::EventParts& event, const control::TopicReader& topics,
                             const shm::ExchangeSegment& page) {
  const shm::RecordHeader& header = *event.header;
  const exchange::Attempt attempt = exchange::attempt_of(event);
  std::string_view publisher;
  if (header.publisher < page.publishers.size()) {
    const auto& name = page.publishers[header.publisher].name;
    publisher = {name.data(), ::strnlen(name.data(), name.size())};
  }
  // The end of the last attempt is the moment of death on the monotonic clock: so the times in a letter stay what they
  // are, whatever the clocks do later.
  const std::uint64_t died = attempt.info.history == 0 ? 0 : attempt.past[attempt.info.history - 1u].ended_ns;
  const std::uint64_t to_unix = event.later->dead_unix_ns - died;
  std::string attempts;
  for (std::size_t i = 0; i < attempt.info.history; ++i) {
    const shm::PastAttempt& past = attempt.past[i];
    attempts += (i == 0 ? "{\"time_ns\":" : ",{\"time_ns\":") + std::to_string(past.ended_ns + to_unix) +
                ",\"cause\":\"" + cause_text(past.cause) + "\"}";
  }
  return "{\"delivery\":" + std::to_string(header.delivery) +
         ",\"topic\":" + control::json_string_of_bytes(topics.text(header.topic)) +
         ",\"key\":" + control::json_string_of_bytes(text(event.key, header.key_bytes)) +
         ",\"headers\":" + headers_json(decode_headers({event.headers, header.headers_bytes})) +
         ",\"publisher\":" + control::json_string_of_bytes(publisher) +
         ",\"sequence\":" + std::to_string(header.sequence) +
         ",\"published_ns\":" + std::to_string(header.published_ns + to_unix) +
         ",\"dead_ns\":" + std::to_string(event.later->dead_unix_ns) +
         ",\"reason\":" + control::json_string_of_bytes(exchange::reason_of(event)) + ",\"attempts\":[" + attempts +
         "]," + control::data_member(text(event.payload, header.payload_bytes)) + "}\n";
}

}  // namespace ackring::client
