// The result of a run as one JSON object: every round, and the medians over the rounds.
//
// {"what": "ackring peers", "commit", "utc", "rounds", "seconds", "machine": {"cpu", "cores", "kernel", "governor"},
//  "cacheline_rtt_ns", "regime": "near" | "far" | "changing",
//  "peers": [{"name", "mode", "version", "settings", "brokered", "acked", "lossless",
//             "places": {"round_trip", "stream"}: "apart" | "together" | "anywhere",
//             "round_trip" | "throughput" | "fan_out":
//                 {…: medians, "cacheline_rtt_ns", "rounds": [{…, "round", "cacheline_rtt_ns"}]}}],
//  "failures": [{"peer", "round", "measure", "why"}]}
//
// A measure that never succeeded is not there. Thread rules: one thread.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/peers/peer.hpp"

namespace ackring::peers {

class Report {
 public:
  /// `seconds` per measure; `count` messages instead where it is not 0.
  Report(std::string commit, double seconds, std::uint64_t count);

  void add_peer(const Facts& facts);
  /// A result of measure.hpp, and the round trip of a cache line right before it.
  void add(const Facts& facts, Measure measure, unsigned round, nlohmann::ordered_json result, double cacheline_rtt_ns);
  void add_failure(const Facts& facts, unsigned round, const std::string& measure, const std::string& why);
  /// Has anything been measured?
  [[nodiscard]] bool empty() const noexcept { return cacheline_rtts_.empty(); }
  [[nodiscard]] nlohmann::ordered_json json(unsigned rounds) const;

 private:
  nlohmann::ordered_json head_;
  std::vector<nlohmann::ordered_json> peers_;
  nlohmann::ordered_json failures_ = nlohmann::ordered_json::array();
  std::vector<double> cacheline_rtts_;
};

/// "round_trip", "throughput", "fan_out".
[[nodiscard]] const char* to_string(Measure measure) noexcept;
/// "apart", "together", "anywhere".
[[nodiscard]] const char* to_string(Place place) noexcept;

}  // namespace ackring::peers
