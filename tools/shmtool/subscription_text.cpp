#include "tools/shmtool/subscription_text.hpp"

#include <fmt/format.h>

#include "lib/shm/utf8.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/top_text.hpp"

namespace ackring::tools {
namespace {

std::string several(std::uint64_t count, const char* one) {
  return fmt::format("{} {}{}", format_count(count), one, count == 1 ? "" : "s");
}

std::string time_text(const nlohmann::json& latency, const char* key) {
  return compact_time(latency.at(key).get<std::uint64_t>());
}

}  // namespace

bool has_breaker(const nlohmann::json& subscription) {
  const auto breaker = subscription.find("breaker");
  return breaker != subscription.end() && (breaker->at("state") != "none" || breaker->at("order") != "auto");
}

std::string breaker_text(const nlohmann::json& breaker, std::uint64_t monotonic_ns) {
  auto text = breaker.at("state").get<std::string>();
  const std::uint64_t since_ns = breaker.value("since_monotonic_ns", std::uint64_t{0});
  if (since_ns != 0 && monotonic_ns > since_ns) text += " for " + compact_time(monotonic_ns - since_ns);
  const std::uint64_t failures = breaker.value("failures", std::uint64_t{0});
  if (failures != 0) text += ", " + several(failures, "failure");
  const std::uint64_t opened = breaker.value("opened", std::uint64_t{0});
  if (opened != 0) text += ", opened " + several(opened, "time");
  const auto order = breaker.at("order").get<std::string>();
  if (order != "auto") text += ", ordered " + order;
  return text;
}

std::string consumer_text(const nlohmann::json& consumer) {
  std::string text = fmt::format(
      "client {}, member {}: {}", consumer.at("client").dump(), consumer.at("number").dump(),
      consumer.at("entries") == 1 ? "1 entry" : format_count(consumer.at("entries").get<std::uint64_t>()) + " entries");
  const auto breaker = consumer.at("breaker").get<std::string>();
  return breaker == "none" ? text : text + ", breaker " + breaker;
}

std::string latency_text(const nlohmann::json& latency) {
  const auto count = latency.at("count").get<std::uint64_t>();
  const std::uint64_t mean_ns = count == 0 ? 0 : latency.at("sum_ns").get<std::uint64_t>() / count;
  return fmt::format("about {}: mean {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}", several(count, "event"),
                     compact_time(mean_ns), time_text(latency, "p50_ns"), time_text(latency, "p90_ns"),
                     time_text(latency, "p99_ns"), time_text(latency, "p999_ns"), time_text(latency, "max_ns"));
}

std::vector<std::pair<std::string, std::string>> lines_of(const nlohmann::json& subscription, const std::string& key,
                                                          std::uint64_t monotonic_ns) {
  const nlohmann::json& value = subscription.at(key);
  std::vector<std::pair<std::string, std::string>> lines;
  if (key == "breaker") {
    if (has_breaker(subscription)) lines.emplace_back(key, breaker_text(value, monotonic_ns));
  } else if (key == "publish_to_take" || key == "publish_to_ack") {
    lines.emplace_back(key, latency_text(value));
  } else if (key == "consumers") {
    for (const nlohmann::json& consumer : value) {
      lines.emplace_back("consumer", consumer_text(consumer));
      for (const nlohmann::json& error : consumer.value("last_errors", nlohmann::json::array())) {
        lines.emplace_back("  last error", shm::printable(error.get<std::string>()));
      }
    }
  } else if (key == "dropped" || key == "dead_lettered_by") {
    for (const auto& [reason, count] : value.items()) {
      lines.emplace_back((key == "dropped" ? "dropped, " : "dead_lettered, ") + reason,
                         format_count(count.get<std::uint64_t>()));
    }
    if (value.empty() && key == "dropped") lines.emplace_back(key, "0");  // the other sum has a row of its own
  } else if (key == "patterns") {
    std::string text;
    for (const nlohmann::json& pattern : value) text += (text.empty() ? "" : " ") + pattern.get<std::string>();
    lines.emplace_back(key, text);
  } else {
    lines.emplace_back(key, value.dump());
  }
  return lines;
}

}  // namespace ackring::tools
