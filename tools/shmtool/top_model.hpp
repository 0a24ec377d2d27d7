// What shmtool top shows of a bus: the stat document as rows with rates.
//
// Thread rules: one thread per object.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/shmtool/stat_watch.hpp"

namespace ackring::tools {

/// Events per second since the look before; nothing where that look can't be compared with this one.
using Rate = std::optional<double>;

struct TopSubscription {
  std::string name;
  std::string patterns;  // one blank between two
  bool paused = false;
  Rate matched;
  Rate delivered;
  Rate acked;
  Rate nacked;
  std::uint64_t members = 0;
  std::uint64_t queued = 0;
  std::uint64_t lag = 0;
  std::uint64_t oldest_ns = 0;  // age of the oldest unsettled event; 0: there is none
  std::uint64_t in_flight = 0;
  std::uint64_t retry_waiting = 0;
  std::uint64_t dlq_size = 0;
  std::uint64_t p99_ns = 0;     // publish to ack; 0: nothing was measured
  std::string breaker;          // none, closed, half-open, open
  bool breaker_forced = false;  // by an operator
  nlohmann::json row;           // all that the document says of it
};

/// One publisher, or all those without a name.
struct TopPublisher {
  std::string name;
  Rate committed_per_s;
  std::uint64_t committed = 0;
  std::uint64_t routed = 0;
  std::uint64_t unroutable = 0;
  std::uint64_t duplicates = 0;
  std::uint64_t discarded = 0;
  std::uint64_t denied = 0;
  std::uint64_t in_ring = 0;
  std::uint64_t back_pressured = 0;
  bool quarantined = false;
};

struct TopLook {
  std::string bus;
  std::string state;  // running, stalled, stopped
  std::uint64_t pid = 0;
  double uptime_s = 0;
  std::uint64_t shards = 1;
  std::uint64_t generation = 0;
  std::uint64_t unix_ns = 0;       // when it was
  std::uint64_t monotonic_ns = 0;  // the same on the clock that stamps events
  std::vector<TopSubscription> subscriptions;
  std::vector<TopPublisher> publishers;
  std::vector<std::string> damaged;  // files that can't be read, and why
  Rate published;
  Rate delivered;
  Rate acked;
  Rate nacked;
  std::string error;  // why there is nothing newer than this: the last look failed
};

/// Makes looks of stat documents, one after the other.
class TopLooks {
 public:
  /// `monotonic_ns`, `unix_ns`: when the document was made. Throws nlohmann::json::exception if it is no stat document.
  [[nodiscard]] TopLook add(nlohmann::json document, std::uint64_t monotonic_ns, std::uint64_t unix_ns);

 private:
  [[nodiscard]] std::vector<TopPublisher> publishers(const nlohmann::json& rows, std::uint64_t monotonic_ns);

  StatRates rates_;
  std::map<std::string, std::uint64_t> committed_;  // of the look before, by publisher
  std::uint64_t before_ns_ = 0;
};

/// What is left to show of a look when the one after it failed: no rates, and why.
[[nodiscard]] TopLook stale(TopLook look, const std::string& error);

}  // namespace ackring::tools
