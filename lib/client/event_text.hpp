// Events as JSON: the line that `shmtool sub` and Bus::peek_ndjson show, and the object of Bus::explain_json.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "lib/control/topic_table.hpp"
#include "lib/exchange/attempt.hpp"
#include "lib/ring/record.hpp"

namespace ackring::client {

/// What is said of an event, however one got it.
struct EventText {
  std::string_view topic;
  std::string_view key;
  std::string headers_json;
  std::string_view publisher;
  std::uint64_t sequence = 0;
  std::uint64_t delivery = 0;
  std::uint32_t attempt = 1;
  std::uint64_t published_unix_ns = 0;
  std::string_view payload;
};

/// One object and a line break.
[[nodiscard]] std::string event_line(const EventText& event);

/// What has to be added to the monotonic times of a record to get Unix times: in a dead letter as it was when it died, so
/// that they stay what they are, whatever the clocks do later; else as it is now.
[[nodiscard]] std::uint64_t monotonic_to_unix_ns(const ring::EventParts& event);

/// What a record of the exchange says. It refers to the record and to `topics` and `page`.
[[nodiscard]] EventText text_of(const ring::EventParts& event, const control::TopicReader& topics,
                                const shm::ExchangeSegment& page);

/// `[{"time_ns":…,"cause":"…"},…]`: how the attempts so far ended, as far as that is known.
[[nodiscard]] std::string attempts_json(const exchange::Attempt& attempt, std::uint64_t to_unix);
[[nodiscard]] const char* cause_text(std::uint32_t cause) noexcept;

/// The object of Bus::explain_json: `facts` of the exchange, and of the event what its record says; nullptr: there is none.
[[nodiscard]] std::string explain_document(std::string_view subscription, const nlohmann::json& facts,
                                           const ring::EventParts* event, const control::TopicReader& topics,
                                           const shm::ExchangeSegment& page);

}  // namespace ackring::client
