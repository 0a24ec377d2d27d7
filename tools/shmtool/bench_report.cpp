#include "tools/shmtool/bench_report.hpp"

#include <cstdio>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

constexpr double far_ns = 200;  // a cache line that takes longer crosses from one group of cores to another

// A field of CSV: strings in quotes where they need them.
std::string csv_field(const nlohmann::ordered_json& value) {
  if (value.is_null()) return {};
  if (!value.is_string()) return value.dump();
  const auto text = value.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

nlohmann::ordered_json flat(const nlohmann::ordered_json& object) {
  nlohmann::ordered_json out;
  for (const auto& item : object.items()) {
    if (item.key() == "regime_changed") continue;
    if (!item.value().is_object()) {
      out[item.key()] = item.value();
      continue;
    }
    for (const auto& part : item.value().items()) out[part.key()] = part.value();
  }
  return out;
}

}  // namespace

const char* Yardstick::regime() const noexcept {
  if (changed()) return "changed";
  return mean_ns() > far_ns ? "far" : "near";
}

const char* to_string(Wait wait) noexcept {
  switch (wait) {
    case Wait::spin:
      return "spin";
    case Wait::park:
      return "park";
    case Wait::adaptive:
      break;
  }
  return "adaptive";
}

nlohmann::ordered_json to_json(const BenchOptions& options, const BenchResult& result, const Yardstick& yardstick) {
  const auto per_second = [&result](std::uint64_t count) { return static_cast<double>(count) / result.seconds; };
  nlohmann::ordered_json json{
      {"mode", options.mode},
      {"size", options.size},
      {"publishers", options.publishers},
      {"subscribers", options.subscribers},
      {"guarantee", options.guarantee == at_least_once ? "at-least-once" : "at-most-once"},
      {"count", result.events},
      {"seconds", result.seconds},
      {"events_per_s", per_second(result.events)},
      {"deliveries_per_s", per_second(result.deliveries)},
      {"bytes_per_s", per_second(result.deliveries * options.size)},
      {"p50_ns", result.latency.percentile(50)},
      {"p90_ns", result.latency.percentile(90)},
      {"p99_ns", result.latency.percentile(99)},
      {"p999_ns", result.latency.percentile(99.9)},
      {"max_ns", result.latency.max()},
      {"cacheline_rtt_ns", yardstick.mean_ns()},
  };
  if (yardstick.changed()) json["regime_changed"] = true;
  json["lost"] = result.lost;
  json["duplicates"] = result.duplicates;
  json["machine"] = machine_description();
  json["p9999_ns"] = result.latency.percentile(99.99);
  json["members"] = options.members;
  json["rate"] = options.rate;
  json["late_p50_ns"] = result.lateness.percentile(50);
  json["late_p99_ns"] = result.lateness.percentile(99);
  json["shards"] = options.shards;
  json["wait"] = to_string(options.wait);
  json["regime"] = yardstick.regime();
  if (yardstick.bare_rings_ns > 0) json["bare_rings_ns"] = yardstick.bare_rings_ns;
  return json;
}

void add_yardstick(nlohmann::ordered_json& json, const Yardstick& yardstick) {
  json["cacheline_rtt_ns"] = yardstick.mean_ns();
  if (yardstick.changed()) json["regime_changed"] = true;
  json["regime"] = yardstick.regime();
}

std::string machine_line(const nlohmann::ordered_json& json) {
  const nlohmann::ordered_json& machine = json.at("machine");
  const auto text = [&machine](const char* key) {
    return machine.at(key).is_string() ? machine.at(key).get<std::string>() : std::string("unknown");
  };
  return fmt::format("{}, {} cores, {}, governor {}; waiting: {}\none cache line there and back: {}, cores {}{}",
                     text("cpu"), machine.at("cores").dump(), text("kernel"), text("governor"),
                     json.at("wait").get<std::string>(), format_duration(json.at("cacheline_rtt_ns")),
                     json.at("regime").get<std::string>(),
                     json.contains("regime_changed") ? " by more than 1.5 x during the run: measure again" : "");
}

std::string to_text(const nlohmann::ordered_json& json) {
  const double round_trip_ns = json.at("cacheline_rtt_ns");
  const auto round_trips = [&](const char* key) { return json.at(key).get<double>() / round_trip_ns; };
  const auto per_round_trip = [&](const char* key) { return json.at(key).get<double>() * round_trip_ns / 1e9; };
  std::string text = fmt::format("{}: {} events of {} bytes, {} publisher(s), {} subscriber(s){}, {}{}\n",
                                 json.at("mode").get<std::string>(), format_count(json.at("count")),
                                 json.at("size").dump(), json.at("publishers").dump(), json.at("subscribers").dump(),
                                 json.at("members") > 1 ? " of " + json.at("members").dump() + " members" : "",
                                 json.at("guarantee").get<std::string>(),
                                 json.at("rate") > 0 ? ", due " + format_rate(json.at("rate")) + " a second" : "");
  text += machine_line(json) + "\n\n";
  text += fmt::format("  {} events/s, {} deliveries/s, {:.1f} MB/s, in {:.2f} s\n",
                      format_rate(json.at("events_per_s")), format_rate(json.at("deliveries_per_s")),
                      json.at("bytes_per_s").get<double>() / 1e6, json.at("seconds").get<double>());
  text += fmt::format("  {:.1f} events, {:.1f} deliveries per round trip of a cache line\n",
                      per_round_trip("events_per_s"), per_round_trip("deliveries_per_s"));
  for (const auto& [label, key] : {std::pair{"p50   ", "p50_ns"},
                                   {"p90   ", "p90_ns"},
                                   {"p99   ", "p99_ns"},
                                   {"p99.9 ", "p999_ns"},
                                   {"p99.99", "p9999_ns"},
                                   {"max   ", "max_ns"}}) {
    text += fmt::format("  {} {:>10}  {:>8.1f} round trips\n", label, format_duration(json.at(key).get<double>()),
                        round_trips(key));
  }
  if (json.contains("bare_rings_ns")) {
    const double bare_ns = json.at("bare_rings_ns");
    text += fmt::format("  two bare rings, there and back: {}: p50 is {:.2f} times that\n", format_duration(bare_ns),
                        json.at("p50_ns").get<double>() / bare_ns);
  }
  if (json.at("rate") > 0) {
    text += fmt::format("  published too late by {} (p50), {} (p99), which is in the above\n",
                        format_duration(json.at("late_p50_ns")), format_duration(json.at("late_p99_ns")));
  }
  return text + fmt::format("  lost {}, duplicates {}\n", json.at("lost").dump(), json.at("duplicates").dump());
}

std::string to_csv(const std::vector<nlohmann::ordered_json>& objects) {
  std::string text;
  for (const nlohmann::ordered_json& object : objects) {
    const nlohmann::ordered_json fields = flat(object);
    std::string titles;
    std::string line;
    for (const auto& item : fields.items()) {
      titles += (titles.empty() ? "" : ",") + item.key();
      line += (item.key() == fields.begin().key() ? "" : ",") + csv_field(item.value());
    }
    if (text.empty()) text = titles + "\n";
    text += line + "\n";
  }
  return text;
}

void write_file(const std::string& option, const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr)
    throw Failure(status_refused, option + " " + path + ": can't write it: check the path and its mode");
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written)
    throw Failure(status_refused, option + " " + path + ": can't write it: is the disk full?");
}

std::string path_of_size(const std::string& path, std::uint64_t size, bool several) {
  if (!several) return path;
  const std::size_t slash = path.rfind('/');
  const std::size_t dot = path.rfind('.');
  const bool extension = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1);
  const std::size_t at = extension ? dot : path.size();
  return fmt::format("{}-{}{}", path.substr(0, at), size, path.substr(at));
}

}  // namespace ackring::tools
