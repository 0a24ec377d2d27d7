#include "lib/client/dead_letter_text.hpp"

#include "lib/client/event_text.hpp"
#include "lib/control/json_text.hpp"
#include "lib/exchange/attempt.hpp"

namespace ackring::client {

std::string dead_letter_line(const ring::EventParts& event, const control::TopicReader& topics,
                             const shm::ExchangeSegment& page) {
  const EventText text = text_of(event, topics, page);
  return "{\"delivery\":" + std::to_string(text.delivery) + ",\"topic\":" + control::json_string_of_bytes(text.topic) +
         ",\"key\":" + control::json_string_of_bytes(text.key) + ",\"headers\":" + text.headers_json +
         ",\"publisher\":" + control::json_string_of_bytes(text.publisher) +
         ",\"sequence\":" + std::to_string(text.sequence) +
         ",\"published_ns\":" + std::to_string(text.published_unix_ns) +
         ",\"dead_ns\":" + std::to_string(event.later->dead_unix_ns) +
         ",\"reason\":" + control::json_string_of_bytes(exchange::reason_of(event)) +
         ",\"attempts\":" + attempts_json(exchange::attempt_of(event), monotonic_to_unix_ns(event)) + "," +
         control::data_member(text.payload) + "}\n";
}

}  // namespace ackring::client
