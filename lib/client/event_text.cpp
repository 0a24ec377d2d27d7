#include "lib/client/event_text.hpp"

#include <cstring>

#include "ackring/trace_context.hpp"
#include "lib/client/headers_codec.hpp"
#include "lib/control/json_text.hpp"
#include "lib/exchange/snapshot.hpp"

namespace ackring::client {

namespace {

using Json = nlohmann::ordered_json;

std::string_view text(const std::byte* at, std::size_t bytes) { return {reinterpret_cast<const char*>(at), bytes}; }

Json json_of_bytes(std::string_view bytes) { return Json::parse(control::json_string_of_bytes(bytes)); }

}  // namespace

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

std::string event_line(const EventText& event) {
  return "{\"topic\":" + control::json_string_of_bytes(event.topic) +
         ",\"key\":" + control::json_string_of_bytes(event.key) + ",\"headers\":" + event.headers_json +
         ",\"publisher\":" + control::json_string_of_bytes(event.publisher) +
         ",\"sequence\":" + std::to_string(event.sequence) + ",\"delivery\":" + std::to_string(event.delivery) +
         ",\"attempt\":" + std::to_string(event.attempt) +
         ",\"published_ns\":" + std::to_string(event.published_unix_ns) + "," + control::data_member(event.payload) +
         "}\n";
}

std::uint64_t monotonic_to_unix_ns(const ring::EventParts& event) {
  const exchange::Attempt attempt = exchange::attempt_of(event);
  if (event.later != nullptr && event.later->dead_unix_ns != 0 && attempt.info.history != 0) {
    return event.later->dead_unix_ns - attempt.past[attempt.info.history - 1u].ended_ns;
  }
  return exchange::unix_now_ns() - shm::Environment::now_ns();
}

EventText text_of(const ring::EventParts& event, const control::TopicReader& topics, const shm::ExchangeSegment& page) {
  const shm::RecordHeader& header = *event.header;
  EventText result;
  result.topic = topics.text(header.topic);
  result.key = text(event.key, header.key_bytes);
  result.headers_json = headers_json(decode_headers({event.headers, header.headers_bytes}));
  if (header.publisher < page.publishers.size()) {
    const auto& name = page.publishers[header.publisher].name;
    result.publisher = {name.data(), ::strnlen(name.data(), name.size())};
  }
  result.sequence = header.sequence;
  result.delivery = header.delivery;
  result.attempt = exchange::attempt_of(event).info.attempt;
  result.published_unix_ns = header.published_ns + monotonic_to_unix_ns(event);
  result.payload = text(event.payload, header.payload_bytes);
  return result;
}

std::string attempts_json(const exchange::Attempt& attempt, std::uint64_t to_unix) {
  std::string attempts = "[";
  for (std::size_t i = 0; i < attempt.info.history; ++i) {
    const shm::PastAttempt& past = attempt.past[i];
    attempts += (i == 0 ? "{\"time_ns\":" : ",{\"time_ns\":") + std::to_string(past.ended_ns + to_unix) +
                ",\"cause\":\"" + cause_text(past.cause) + "\"}";
  }
  return attempts + "]";
}

std::string explain_document(std::string_view subscription, const nlohmann::json& facts, const ring::EventParts* event,
                             const control::TopicReader& topics, const shm::ExchangeSegment& page) {
  Json document = {{"subscription", subscription}};
  const auto copy = [&](const char* name) {
    if (facts.contains(name)) document[name] = facts.at(name);
  };
  for (const char* name : {"delivery", "state", "reason", "where", "position", "attempt"}) copy(name);
  if (event != nullptr) {
    const exchange::Attempt attempt = exchange::attempt_of(*event);
    if (attempt.info.history != 0) {
      document["attempts"] = Json::parse(attempts_json(attempt, monotonic_to_unix_ns(*event)));
      // What waits for its next attempt does so because of how the last one ended.
      if (!document.contains("reason")) document["reason"] = cause_text(attempt.past[attempt.info.history - 1u].cause);
    }
  }
  for (const char* name : {"member", "since_ns", "until_ns", "due_ns"}) copy(name);
  if (event != nullptr) {
    const EventText found = text_of(*event, topics, page);
    document["event"] = {{"topic", found.topic},
                         {"key", json_of_bytes(found.key)},
                         {"headers", Json::parse(found.headers_json)},
                         {"publisher", json_of_bytes(found.publisher)},
                         {"sequence", found.sequence},
                         {"published_ns", found.published_unix_ns}};
    // Of its own, so that nobody has to look for it among the others.
    const Json& headers = document["event"]["headers"];
    const auto traceparent = headers.find(std::string(traceparent_header));
    if (traceparent != headers.end()) document["event"]["traceparent"] = *traceparent;
  } else {
    copy("event");
  }
  return document.dump();
}

}  // namespace ackring::client
