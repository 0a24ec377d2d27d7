#include "tools/shmtool/stat_watch.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

constexpr const char* clear_screen = "\x1b[H\x1b[2J";

// False: a signal came. Throws ClosedPipe as soon as nobody reads any more.
bool wait_until(std::chrono::steady_clock::time_point due) {
  while (!stop_requested()) {
    if (stdout_closed()) throw ClosedPipe();
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(due - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    ::poll(nullptr, 0, static_cast<int>(std::min<std::int64_t>(left.count(), 100)));  // ends early at a signal
  }
  return false;
}

}  // namespace

void StatRates::add_to(nlohmann::json& document, std::uint64_t now_ns) {
  std::map<std::string, nlohmann::json> now;
  const double seconds = static_cast<double>(now_ns - before_ns_) / 1e9;
  for (auto& subscription : document.at("subscriptions")) {
    const auto name = subscription.at("name").get<std::string>();
    const auto before = before_.find(name);
    nlohmann::json rates;
    nlohmann::json counters;
    for (const char* counter : rate_counters) {
      const auto value = subscription.at(counter).get<std::uint64_t>();
      rates[counter] = nullptr;
      counters[counter] = value;
      if (before == before_.end() || seconds <= 0) continue;
      const auto old = before->second.at(counter).get<std::uint64_t>();
      if (value >= old) rates[counter] = static_cast<double>(value - old) / seconds;
    }
    now.emplace(name, std::move(counters));
    subscription["per_s"] = std::move(rates);
  }
  before_ = std::move(now);
  before_ns_ = now_ns;
}

int watch(Nanoseconds interval, std::uint64_t count, const std::function<std::string()>& look) {
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  auto due = std::chrono::steady_clock::now();
  for (std::uint64_t looks = 0; wait_until(due);) {
    const std::string text = look();
    print(terminal ? clear_screen + text : text);
    if (++looks == count) break;
    // After a look that took longer than the interval, the next one is not hurried.
    due = std::max(due + interval, std::chrono::steady_clock::now());
  }
  return status_done;
}

}  // namespace ackring::tools
