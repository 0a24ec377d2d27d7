// shmtool stat --watch: looks again and again, with what has changed per second between two looks.
//
// Thread rules: one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "ackring/options.hpp"

namespace ackring::tools {

/// The counters that a look compares with the one before.
inline constexpr const char* rate_counters[] = {"matched", "delivered", "acked", "nacked"};

/// Adds to each subscription of stat documents, looked at one after the other, `per_s`: how many events were matched,
/// delivered, acked and nacked per second since the look before; null where that one did not have the subscription, or
/// one of this name that had counted further.
class StatRates {
 public:
  /// `now_ns`: when the look was, of any clock that does not jump.
  void add_to(nlohmann::json& document, std::uint64_t now_ns);

 private:
  std::map<std::string, nlohmann::json> before_;
  std::uint64_t before_ns_ = 0;
};

/// Calls `look` every `interval`, `count` times (0: no limit), until SIGINT, SIGTERM, or nobody reads stdout: the text to
/// print. Clears the screen before each where stdout is a terminal. Answers the exit status.
int watch(Nanoseconds interval, std::uint64_t count, const std::function<std::string()>& look);

}  // namespace ackring::tools
