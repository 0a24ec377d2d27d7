// The driver of bench/peers: rounds of all peers in turn, each measured alone on the machine, right after the probe of a
// cache line. A peer that fails is told of, and the others go on. See docs/peers.md.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "bench/peers/measure.hpp"
#include "bench/peers/report.hpp"
#include "tools/common/cacheline.hpp"
#include "tools/common/child.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::peers {
namespace {

using tools::Failure;

struct Options {
  std::vector<std::string> wanted;
  unsigned rounds = 5;
  Budget budget;
  Programs programs;
  std::string output;
  std::string commit = "unknown";
  std::optional<Place> place;
  bool list = false;
};

constexpr unsigned fan_out_receivers = 4;

Setting setting_of(Measure measure, const Cores& cores) {
  Setting setting;
  setting.measure = measure;
  setting.cores = cores;
  if (measure == Measure::round_trip) {
    setting.lanes = 2;
    setting.batch = setting.take = 1;
  }
  if (measure == Measure::fan_out) setting.receivers = fan_out_receivers;
  return setting;
}

std::string one_line(const nlohmann::json& result) {
  if (result.contains("p50_ns")) {
    return fmt::format("p50 {}, p99 {}", tools::format_duration(result.at("p50_ns").get<double>()),
                       tools::format_duration(result.at("p99_ns").get<double>()));
  }
  return fmt::format("{} deliveries/s, lost {:.3g} %", tools::format_rate(result.at("per_s").get<double>()),
                     result.at("loss_percent").get<double>());
}

class Driver {
 public:
  Driver(const Options& options, Peers peers)
      : options_(options),
        peers_(std::move(peers)),
        report_(options.commit, options.budget.seconds, options.budget.count) {
    const std::vector<int> cpus = tools::allowed_cpus();
    cores_ = {cpus[0], cpus[cpus.size() > 1 ? 1 : 0]};
    for (const auto& peer : peers_) report_.add_peer(peer->facts());
  }

  nlohmann::ordered_json run() {
    for (unsigned round = 1; round <= options_.rounds; ++round) {
      for (const auto& peer : peers_) {
        if (!broken_.contains(peer->facts().id())) turn(*peer, round);
      }
    }
    return report_.json(options_.rounds);
  }

  [[nodiscard]] bool empty() const { return report_.empty(); }

 private:
  // A server lives for one turn: nothing is left over for the next peer to carry.
  void turn(Peer& peer, unsigned round) {
    const tools::TemporaryDirectory directory("peers");
    struct StopAtEnd {
      Peer& peer;
      ~StopAtEnd() { peer.stop(); }
    } stop_at_end{peer};
    try {
      peer.start(directory.path(), cores_);
      for (const Measure measure : {Measure::round_trip, Measure::throughput, Measure::fan_out})
        try_measure(peer, measure, round, directory.path());
    } catch (const std::exception& error) {
      if (tools::stop_requested()) throw;
      broken_.insert(peer.facts().id());
      fail(peer, round, "start", error.what());
    }
  }

  void try_measure(Peer& peer, Measure measure, unsigned round, const std::string& directory) {
    try {
      Setting setting = setting_of(measure, cores_);
      setting.place =
          options_.place.value_or(measure == Measure::round_trip ? peer.facts().round_trip : peer.facts().stream);
      setting.name = fmt::format("peers-{}", ++sessions_);
      setting.directory = directory + "/" + setting.name;
      std::filesystem::create_directory(setting.directory);
      const double round_trip_ns = tools::cacheline_round_trip_ns(cores_.clients, cores_.other);
      const nlohmann::json result = measure == Measure::round_trip ? measure_round_trip(peer, setting, options_.budget)
                                                                   : measure_stream(peer, setting, options_.budget);
      report_.add(peer.facts(), measure, round, result, round_trip_ns);
      std::fputs(fmt::format("round {} of {}: {}: {}: {} (cache line {:.0f} ns)\n", round, options_.rounds,
                             peer.facts().id(), to_string(measure), one_line(result), round_trip_ns)
                     .c_str(),
                 stderr);
    } catch (const std::exception& error) {
      if (tools::stop_requested()) throw;
      fail(peer, round, to_string(measure), error.what());
    }
  }

  void fail(const Peer& peer, unsigned round, const std::string& measure, const std::string& why) {
    tools::print_error("peers", fmt::format("{}: {}: {}", peer.facts().id(), measure, why));
    report_.add_failure(peer.facts(), round, measure, why);
  }

  const Options& options_;
  Peers peers_;
  Report report_;
  Cores cores_;
  std::set<std::string> broken_;
  unsigned sessions_ = 0;
};

bool is_wanted(const Facts& facts, const std::vector<std::string>& wanted) {
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&facts](const std::string& name) {
           return name == facts.name || name == facts.id();
         });
}

Peers chosen(const Options& options) {
  Peers peers = all_peers(options.programs);
  for (const std::string& name : options.wanted) {
    if (std::none_of(peers.begin(), peers.end(),
                     [&name](const auto& peer) { return is_wanted(peer->facts(), {name}); }))
      throw Failure(tools::status_usage, "--peers " + name + ": not in this build: see --list");
  }
  std::erase_if(peers, [&options](const auto& peer) { return !is_wanted(peer->facts(), options.wanted); });
  return peers;
}

int run(const Options& options) {
  tools::catch_stop_signals();
  Peers peers = chosen(options);
  if (options.list) {
    for (const auto& peer : peers) tools::print(peer->facts().id() + "\n");
    return tools::status_done;
  }
  Driver driver(options, std::move(peers));
  const std::string text = driver.run().dump(1) + "\n";
  if (driver.empty()) throw Failure(tools::status_not_so, "nothing was measured: see the messages above");
  if (options.output.empty()) {
    tools::print(text);
  } else if (!(std::ofstream(options.output) << text).flush()) {
    throw Failure(tools::status_refused,
                  "--output " + options.output + ": can't write it: check the path and its mode");
  }
  return tools::status_done;
}

}  // namespace
}  // namespace ackring::peers

int main(int argc, char** argv) {
  using namespace ackring;
  peers::Options options;
  options.programs.exchange = (std::filesystem::path(argv[0]).parent_path() / "../../tools/ackring-exchange").string();
  CLI::App app("Measures ackring and other ways to move messages between processes, side by side.");
  app.add_option("--peers", options.wanted, "Only these: names (redis) or names with a mode (ackring:polling)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false);
  app.add_option("--rounds", options.rounds, "Rounds of all peers")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--seconds", options.budget.seconds, "Seconds per measure")
      ->check(tools::above_zero())
      ->capture_default_str();
  app.add_option("--count", options.budget.count, "Messages per measure, instead of seconds")
      ->check(tools::above_zero());
  app.add_option("--exchange", options.programs.exchange, "The program ackring-exchange")->type_name("FILE");
  app.add_option("--commit", options.commit, "What was built, for the result")->type_name("TEXT");
  app.add_option("--output", options.output, "Write the JSON there instead of to stdout")->type_name("FILE");
  app.add_option("--place", options.place,
                 "Where roles run, instead of what suits each peer: apart, together, anywhere")
      ->transform(CLI::CheckedTransformer(std::map<std::string, peers::Place>{
          {"apart", peers::Place::apart}, {"together", peers::Place::together}, {"anywhere", peers::Place::anywhere}}))
      ->type_name("PLACE");
  app.add_flag("--list", options.list, "Only print which peers there are");
  return tools::run_program("peers", app, argc, argv, [&options] { return peers::run(options); });
}
