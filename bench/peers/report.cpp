#include "bench/peers/report.hpp"

#include <algorithm>

#include "tools/common/machine.hpp"
#include "tools/common/units.hpp"

namespace ackring::peers {
namespace {

constexpr double far_ns =
    200;  // as in scripts/bench: a line that takes longer crosses from one group of cores to another

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

nlohmann::ordered_json with_medians(const nlohmann::ordered_json& rounds) {
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const auto& [key, value] : rounds.at(0).items()) {
    if (key == "round") continue;
    std::vector<double> values;
    for (const auto& round : rounds) values.push_back(round.at(key));
    all[key] = median(values);
  }
  all["rounds"] = rounds;
  return all;
}

}  // namespace

const char* to_string(Measure measure) noexcept {
  switch (measure) {
    case Measure::round_trip:
      return "round_trip";
    case Measure::throughput:
      return "throughput";
    case Measure::fan_out:
      return "fan_out";
  }
  return "";
}

const char* to_string(Place place) noexcept {
  switch (place) {
    case Place::apart:
      return "apart";
    case Place::together:
      return "together";
    case Place::anywhere:
      return "anywhere";
  }
  return "";
}

Report::Report(std::string commit, double seconds, std::uint64_t count) {
  head_["what"] = "ackring peers";
  head_["commit"] = std::move(commit);
  head_["utc"] = tools::format_time(tools::realtime_ns());
  head_["seconds"] = seconds;
  if (count > 0) head_["count"] = count;
  head_["machine"] = tools::machine_description();
}

void Report::add_peer(const Facts& facts) {
  peers_.push_back({{"name", facts.name},
                    {"mode", facts.mode},
                    {"version", facts.version},
                    {"settings", facts.settings},
                    {"brokered", facts.brokered},
                    {"acked", facts.acked},
                    {"lossless", facts.lossless},
                    {"places", {{"round_trip", to_string(facts.round_trip)}, {"stream", to_string(facts.stream)}}}});
}

void Report::add(const Facts& facts, Measure measure, unsigned round, nlohmann::ordered_json result,
                 double cacheline_rtt_ns) {
  result["round"] = round;
  result["cacheline_rtt_ns"] = cacheline_rtt_ns;
  cacheline_rtts_.push_back(cacheline_rtt_ns);
  for (nlohmann::ordered_json& peer : peers_) {
    if (peer.at("name") == facts.name && peer.at("mode") == facts.mode)
      peer[to_string(measure)]["rounds"].push_back(std::move(result));
  }
}

void Report::add_failure(const Facts& facts, unsigned round, const std::string& measure, const std::string& why) {
  failures_.push_back({{"peer", facts.id()}, {"round", round}, {"measure", measure}, {"why", why}});
}

nlohmann::ordered_json Report::json(unsigned rounds) const {
  nlohmann::ordered_json all = head_;
  all["rounds"] = rounds;
  if (!empty()) {
    all["cacheline_rtt_ns"] = median(cacheline_rtts_);
    const auto far =
        std::count_if(cacheline_rtts_.begin(), cacheline_rtts_.end(), [](double ns) { return ns > far_ns; });
    const auto most = static_cast<std::ptrdiff_t>(cacheline_rtts_.size() * 9 / 10);
    const auto near = static_cast<std::ptrdiff_t>(cacheline_rtts_.size()) - far;
    all["regime"] = near >= most ? "near" : far >= most ? "far" : "changing";
  }
  all["peers"] = nlohmann::ordered_json::array();
  for (nlohmann::ordered_json peer : peers_) {
    for (const Measure measure : {Measure::round_trip, Measure::throughput, Measure::fan_out}) {
      if (const auto found = peer.find(to_string(measure)); found != peer.end())
        *found = with_medians(found->at("rounds"));
    }
    all["peers"].push_back(std::move(peer));
  }
  all["failures"] = failures_;
  return all;
}

}  // namespace ackring::peers
