#include "tools/shmtool/top_model.hpp"

#include <utility>

#include <fmt/format.h>

namespace ackring::tools {
namespace {

Rate rate_of(const nlohmann::json& row, const char* counter) {
  const auto& per_s = row.at("per_s").at(counter);
  return per_s.is_number() ? Rate(per_s.get<double>()) : std::nullopt;
}

// Not known where none of the rates is.
Rate sum(const Rate& left, const Rate& right) {
  if (!left && !right) return std::nullopt;
  return left.value_or(0) + right.value_or(0);
}

TopSubscription subscription_of(nlohmann::json row, std::uint64_t monotonic_ns) {
  TopSubscription one;
  one.name = row.at("name").get<std::string>();
  for (const auto& pattern : row.at("patterns")) {
    one.patterns += (one.patterns.empty() ? "" : " ") + pattern.get<std::string>();
  }
  one.paused = row.at("paused").get<bool>();
  one.matched = rate_of(row, "matched");
  one.delivered = rate_of(row, "delivered");
  one.acked = rate_of(row, "acked");
  one.nacked = rate_of(row, "nacked");
  one.members = row.at("members").get<std::uint64_t>();
  one.queued = row.at("queued").get<std::uint64_t>();
  one.lag = row.at("lag").get<std::uint64_t>();
  one.in_flight = row.at("in_flight").get<std::uint64_t>();
  one.retry_waiting = row.at("retry_waiting").get<std::uint64_t>();
  one.dlq_size = row.at("dlq_size").get<std::uint64_t>();
  // A bus that an older exchange serves has no word of what follows.
  const std::uint64_t published_ns = row.value("oldest_monotonic_ns", std::uint64_t{0});
  if (published_ns != 0) one.oldest_ns = monotonic_ns > published_ns ? monotonic_ns - published_ns : 1;
  if (row.contains("publish_to_ack")) one.p99_ns = row["publish_to_ack"].at("p99_ns").get<std::uint64_t>();
  const nlohmann::json breaker = row.value("breaker", nlohmann::json::object());
  one.breaker = breaker.value("state", "none");
  one.breaker_forced = breaker.value("order", "auto") != "auto";
  one.row = std::move(row);
  return one;
}

}  // namespace

std::vector<TopPublisher> TopLooks::publishers(const nlohmann::json& rows, std::uint64_t monotonic_ns) {
  std::map<std::string, std::pair<TopPublisher, std::size_t>> found;
  for (const auto& row : rows) {
    auto& [one, publishers] = found[row.at("name").get<std::string>()];
    ++publishers;
    one.committed += row.at("committed").get<std::uint64_t>();
    one.routed += row.at("routed").get<std::uint64_t>();
    one.unroutable += row.at("unroutable").get<std::uint64_t>();
    one.duplicates += row.at("duplicates").get<std::uint64_t>();
    one.discarded += row.value("discarded", std::uint64_t{0});
    one.denied += row.value("denied", std::uint64_t{0});
    one.in_ring += row.at("in_ring").get<std::uint64_t>();
    one.back_pressured += row.at("back_pressured").get<std::uint64_t>();
    one.quarantined = one.quarantined || row.value("quarantined", false);
  }
  const double seconds = static_cast<double>(monotonic_ns - before_ns_) / 1e9;
  std::map<std::string, std::uint64_t> committed;
  std::vector<TopPublisher> result;
  for (auto& [name, entry] : found) {
    auto& [one, publishers] = entry;
    one.name = name;
    if (name.empty()) one.name = publishers == 1 ? "(anonymous)" : fmt::format("({} anonymous)", publishers);
    committed[name] = one.committed;
    const auto before = committed_.find(name);
    // Of the anonymous ones that were there before, some may have gone.
    if (before != committed_.end() && one.committed >= before->second && seconds > 0) {
      one.committed_per_s = static_cast<double>(one.committed - before->second) / seconds;
    }
    result.push_back(std::move(one));
  }
  committed_ = std::move(committed);
  before_ns_ = monotonic_ns;
  return result;
}

TopLook TopLooks::add(nlohmann::json document, std::uint64_t monotonic_ns, std::uint64_t unix_ns) {
  rates_.add_to(document, monotonic_ns);
  TopLook look;
  look.monotonic_ns = monotonic_ns;
  look.unix_ns = unix_ns;
  look.bus = document.at("bus").get<std::string>();
  const auto& exchange = document.at("exchange");
  look.state = exchange.at("state").get<std::string>();
  look.pid = exchange.at("pid").get<std::uint64_t>();
  look.uptime_s = exchange.value("uptime_s", 0.0);
  look.shards = exchange.value("shards", std::uint64_t{1});
  look.generation = exchange.at("generation").get<std::uint64_t>();
  look.publishers = publishers(document.at("publishers"), monotonic_ns);
  for (const TopPublisher& one : look.publishers) look.published = sum(look.published, one.committed_per_s);
  for (auto& row : document.at("subscriptions")) {
    look.subscriptions.push_back(subscription_of(std::move(row), monotonic_ns));
    const TopSubscription& one = look.subscriptions.back();
    look.delivered = sum(look.delivered, one.delivered);
    look.acked = sum(look.acked, one.acked);
    look.nacked = sum(look.nacked, one.nacked);
  }
  if (document.contains("damaged")) look.damaged = document["damaged"].get<std::vector<std::string>>();
  return look;
}

TopLook stale(TopLook look, const std::string& error) {
  look.error = error;
  look.published = look.delivered = look.acked = look.nacked = std::nullopt;
  for (TopSubscription& one : look.subscriptions) {
    one.matched = one.delivered = one.acked = one.nacked = std::nullopt;
    one.row.erase("per_s");
  }
  for (TopPublisher& one : look.publishers) one.committed_per_s = std::nullopt;
  return look;
}

}  // namespace ackring::tools
