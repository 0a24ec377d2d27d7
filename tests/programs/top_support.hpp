// Documents and screens for the tests of shmtool top.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/shmtool/top_lines.hpp"

namespace ackring::tools {

/// A row as stat --json has it, with nothing in it.
inline nlohmann::json subscription_row(const std::string& name, std::uint64_t matched = 0, std::uint64_t acked = 0) {
  const std::uint64_t left = matched - acked;
  return {{"name", name},
          {"patterns", {"a.#", "b"}},
          {"guarantee", "at-least-once"},
          {"members", 1U},
          {"shard", 0U},
          {"paused", false},
          {"matched", matched},
          {"delivered", acked},
          {"acked", acked},
          {"nacked", 0U},
          {"dropped", nlohmann::json::object()},
          {"queued", left},
          {"in_flight", 0U},
          {"retry_waiting", 0U},
          {"dlq_size", 0U},
          {"lag", left},
          {"backlog_bytes", 0U},
          {"oldest_monotonic_ns", 0U},
          {"breaker", {{"state", "none"}, {"order", "auto"}}},
          {"consumers", nlohmann::json::array()}};
}

inline nlohmann::json publisher_row(const std::string& name, std::uint64_t committed) {
  return {{"name", name},         {"committed", committed}, {"routed", committed}, {"unroutable", 0U},
          {"duplicates", 0U},     {"discarded", 0U},        {"denied", 0U},        {"in_ring", 0U},
          {"back_pressured", 0U}, {"quarantined", false}};
}

inline nlohmann::json stat_of(std::vector<nlohmann::json> subscriptions, std::vector<nlohmann::json> publishers = {},
                              const std::string& state = "running") {
  return {{"bus", "test"},
          {"exchange", {{"state", state}, {"shards", 1U}, {"pid", 77U}, {"generation", 3U}, {"uptime_s", 65.4}}},
          {"publishers", std::move(publishers)},
          {"subscriptions", std::move(subscriptions)}};
}

inline constexpr std::uint64_t second_ns = 1'000'000'000;
inline constexpr std::uint64_t noon_ns = std::uint64_t{1'764'072'000} * second_ns;

/// What two looks, a second apart, make of these documents.
inline TopLook look_of(const nlohmann::json& before, const nlohmann::json& after) {
  TopLooks looks;
  (void)looks.add(before, 100 * second_ns, noon_ns);
  return looks.add(after, 101 * second_ns, noon_ns + second_ns);
}
inline TopLook look_of(const nlohmann::json& document) { return look_of(document, document); }

inline std::string plain(const TextLine& line) {
  std::string text;
  for (const Span& span : line) text += span.text;
  return text;
}

/// The screen as one text, a line break behind each line.
inline std::string screen(const TopLook& look, TopView& view, TopSize size = {24, 80},
                          Charset charset = Charset::ascii) {
  std::string text;
  for (const TextLine& line : top_lines(look, view, size, charset)) text += plain(line) + "\n";
  return text;
}

inline void press_all(TopView& view, const TopLook& look, const std::vector<TopPress>& keys) {
  for (const TopPress& key : keys) press(view, key, look);
}
inline TopPress letter(const std::string& text) { return {TopKey::text, text}; }

}  // namespace ackring::tools
