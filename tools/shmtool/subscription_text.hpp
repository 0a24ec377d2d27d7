// What a subscription's row of the stat document says of breakers, members and latencies, in words.
//
// Thread rules: plain functions; any thread. All throw nlohmann::json::exception if it is no such part.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace ackring::tools {

/// Has any member of the subscription a circuit breaker, or has an operator ordered one?
[[nodiscard]] bool has_breaker(const nlohmann::json& subscription);

/// `none`, `closed`, `open for 12.3s, 7 failures, opened 3 times`, `closed, ordered open`. `monotonic_ns`: now.
[[nodiscard]] std::string breaker_text(const nlohmann::json& breaker, std::uint64_t monotonic_ns);

/// `client 5, member 1: 3 entries, breaker open`.
[[nodiscard]] std::string consumer_text(const nlohmann::json& consumer);

/// `about 1,234 events: mean 1.2ms, p50 …, p90 …, p99 …, p99.9 …, max …`, of `publish_to_take` and `publish_to_ack`; about,
/// for where events come fast, one in some is measured and stands for the others.
[[nodiscard]] std::string latency_text(const nlohmann::json& latency);

/// The lines that tell the value of `key`, if it is an object or a list: a title and a text each. Nothing for what has
/// nothing to tell: no breaker, no member.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> lines_of(const nlohmann::json& subscription,
                                                                        const std::string& key,
                                                                        std::uint64_t monotonic_ns);

}  // namespace ackring::tools
