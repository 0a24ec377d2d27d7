// shmtool bench scale: what an event costs on a bus with much else on it, beside a plain bus, in rounds that take turns.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tools/common/cacheline.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_modes.hpp"
#include "tools/shmtool/bench_report.hpp"
#include "tools/shmtool/bench_world.hpp"

namespace ackring::tools {
namespace {

constexpr double round_seconds = 0.3;
constexpr std::uint64_t calibration_events = 100'000;
constexpr std::uint64_t plain_backlog = 1'000;  // so that both buses append and drop, the plain one a short backlog

struct ScaleArguments {
  BenchOptions options;
  Load load;
  unsigned rounds = 7;
  bool json = false;
};

nlohmann::ordered_json measure(const ScaleArguments& arguments, const BenchOptions& options) {
  Load plain_load;
  plain_load.backlog = std::min(arguments.load.backlog, plain_backlog);
  World plain(options, "plain", plain_load);
  plain.freeze();
  World loaded(options, "loaded", arguments.load);
  loaded.freeze();
  std::uint64_t count = options.count;
  const auto rate_of = [&count](World& world) {
    world.thaw();
    const double seconds = world.measure(count);
    world.freeze();
    return static_cast<double>(count) / seconds;
  };
  if (count == 0) {
    count = calibration_events;
    count = std::max<std::uint64_t>(1000, std::llround(rate_of(plain) * round_seconds));
  }
  std::vector<double> plain_rates;
  std::vector<double> loaded_rates;
  std::vector<double> ratios;
  for (unsigned round = 0; round < arguments.rounds; ++round) {
    // Who is first takes turns as well.
    if (round % 2 == 0) plain_rates.push_back(rate_of(plain));
    loaded_rates.push_back(rate_of(loaded));
    if (round % 2 == 1) plain_rates.push_back(rate_of(plain));
    ratios.push_back(loaded_rates.back() / plain_rates.back());
  }
  return {{"mode", "scale"},
          {"size", options.size},
          {"idle_subscriptions", arguments.load.idle_subscriptions},
          {"holders", arguments.load.holders},
          {"topics", arguments.load.topics},
          {"topic_order", arguments.load.random_topics ? "random" : "turn"},
          {"idle_topics", arguments.load.idle_topics},
          {"other_patterns", arguments.load.other_patterns},
          {"backlog", arguments.load.backlog},
          {"unacked", arguments.load.unacked},
          {"guarantee", options.guarantee == at_least_once ? "at-least-once" : "at-most-once"},
          {"count", count},
          {"rounds", arguments.rounds},
          {"plain_events_per_s", median(plain_rates)},
          {"events_per_s", median(loaded_rates)},
          {"ratio", median(ratios)},
          {"ratio_min", *std::min_element(ratios.begin(), ratios.end())},
          {"ratio_max", *std::max_element(ratios.begin(), ratios.end())},
          {"ratios", ratios}};
}

int run(const ScaleArguments& arguments) {
  BenchOptions options = arguments.options;
  catch_stop_signals();
  choose_cpus(options);
  const TemporaryDirectory directory("bench");
  options.directory = directory.path();
  Yardstick yardstick;
  yardstick.before_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  nlohmann::ordered_json json = measure(arguments, options);
  yardstick.after_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  add_yardstick(json, yardstick);
  json["wait"] = to_string(options.wait);
  json["machine"] = machine_description();
  if (arguments.json) {
    print(json.dump() + "\n");
    return status_done;
  }
  const Load& load = arguments.load;
  print(fmt::format(
      "scale: {} idle subscriptions, {} topics{} and {} idle ones, {} other patterns, backlog {}, {} unacked; {} "
      "events "
      "of {} bytes a round\n"
      "{}\n\n"
      "  plain  {} events/s\n  loaded {} events/s\n  ratio  {:.3f} (median of {} rounds; {:.3f} to {:.3f})\n",
      format_count(load.idle_subscriptions), format_count(load.topics), load.random_topics ? " in random order" : "",
      format_count(load.idle_topics), format_count(load.other_patterns), format_count(load.backlog),
      format_count(load.unacked), format_count(json.at("count")), options.size, machine_line(json),
      format_rate(json.at("plain_events_per_s")), format_rate(json.at("events_per_s")), json.at("ratio").get<double>(),
      arguments.rounds, json.at("ratio_min").get<double>(), json.at("ratio_max").get<double>()));
  return status_done;
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void add_bench_scale(CLI::App& group, Globals& globals) {
  CLI::App& command = add_command(
      group, "scale", "What an event costs on a bus with much else on it",
      "Events from one publisher to one subscriber, on a plain bus and on one with the load, in rounds that take "
      "turns;\n"
      "the ratio is that of the rates of one round: 1 means that the load costs nothing. With --backlog, both buses "
      "have\n"
      "a subscription without a member that gets the events too, and drops the oldest: the plain one's keeps 1,000.\n\n"
      "Example:\n  shmtool bench scale --idle-subscriptions 10000 --topics 1000");
  auto arguments = std::make_shared<ScaleArguments>();
  Load& load = arguments->load;
  command.add_option("--idle-subscriptions", load.idle_subscriptions, "Subscriptions that nothing is published to (0)")
      ->check(CLI::Range(0, 16'000));
  command
      .add_option("--holders", load.holders, "Processes with a member of each of these; 0: they have no members (0)")
      ->check(CLI::Range(0, 64));
  command.add_option("--topics", load.topics, "Topics of the events, in turn (1)")->check(CLI::Range(1, 1'000'000));
  command.add_flag("--random-topics", load.random_topics, "Not in turn, but in an order of their own");
  command.add_option("--idle-topics", load.idle_topics, "Topics that the publisher used once (0)")
      ->check(CLI::Range(0, 1'000'000));
  command.add_option("--other-patterns", load.other_patterns, "Patterns that match none of the events (0)")
      ->check(CLI::Range(0, 20'000));
  command.add_option("--backlog", load.backlog, "Events in the backlog of one more subscription (0)")
      ->check(CLI::Range(0, 100'000'000));
  command.add_option("--unacked", load.unacked, "Deliveries that another subscriber has taken and not acked (0)")
      ->check(CLI::Range(0, 1'000'000));
  add_size(command, "--size", arguments->options.size, "Bytes of a payload (64)");
  command.add_option("--count", arguments->options.count, "Events of a round (about 0.3 s of work)")
      ->check(above_zero())
      ->default_str("");
  command.add_option("--rounds", arguments->rounds, "Rounds (7)")->check(CLI::Range(1, 1000));
  add_wait(command, arguments->options.wait, "How exchange and clients wait (adaptive)");
  command.add_option("--cpu", arguments->options.cpus, "Cores: the exchange's, then the clients', in turn (1,0)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false);
  command.add_flag("--json", arguments->json, "One JSON object");
  command.callback([&globals, arguments] { globals.run = [arguments] { return run(*arguments); }; });
}

}  // namespace ackring::tools
