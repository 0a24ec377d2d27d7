// shmtool bench large: large events beside memcpy alone, on the same cores, in rounds that take turns.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <sstream>
#include <vector>

#include <fmt/format.h>

#include "tools/common/cacheline.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_copy.hpp"
#include "tools/shmtool/bench_flow.hpp"
#include "tools/shmtool/bench_large_delay.hpp"
#include "tools/shmtool/bench_large_flow.hpp"
#include "tools/shmtool/bench_modes.hpp"
#include "tools/shmtool/bench_report.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t round_bytes = 2'000'000'000;  // delivered in a round: some tenths of a second

struct LargeArguments {
  BenchOptions options;
  std::vector<std::uint64_t> sizes = {64u << 10, 1u << 20};
  std::vector<unsigned> subscribers = {1, 8};
  unsigned rounds = 5;
  double small_rate = 0;  // 0: no small events
  bool processes = false;
  bool json = false;
  std::string csv;
};

// What small events of another publisher wait for, alone and beside large ones.
nlohmann::ordered_json measure_delays(const BenchOptions& options) {
  const std::uint64_t count =
      options.count > 0 ? options.count : std::max<std::uint64_t>(100, std::llround(options.rate));
  const std::string run = fmt::format("delay{}", ::getpid());
  const DelayResult alone = small_delay(options, run + "-alone", count, false);
  const DelayResult beside = small_delay(options, run + "-beside", count, true);
  return {{"small_rate", options.rate},
          {"small_alone_p50_ns", alone.latency.percentile(50)},
          {"small_alone_p99_ns", alone.latency.percentile(99)},
          {"small_beside_p50_ns", beside.latency.percentile(50)},
          {"small_beside_p99_ns", beside.latency.percentile(99)},
          {"batch_ns", beside.batch_ns}};
}

// One size and number of subscribers, on an exchange of its own.
nlohmann::ordered_json measure(const LargeArguments& arguments, BenchOptions options) {
  const TemporaryDirectory directory("bench");
  options.directory = directory.path();
  const std::uint64_t count = options.count > 0
                                  ? options.count
                                  : std::max<std::uint64_t>(100, round_bytes / options.size / options.subscribers);
  Yardstick yardstick;
  yardstick.before_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  Child exchange = start_exchange(options);
  std::vector<double> rates;
  std::vector<double> copy_rates;
  std::vector<double> ratios;
  for (unsigned round = 0; round < arguments.rounds; ++round) {
    copy_rates.push_back(static_cast<double>(count) / copy_seconds(options, count));
    const std::string run = fmt::format("large{}-{}", ::getpid(), round);
    const BenchResult result = arguments.processes ? flow(options, run, count, 0) : large_flow(options, run, count);
    if (result.lost + result.duplicates > 0)
      throw Failure(status_not_so,
                    "bench large: events lost or delivered twice: this must not happen: please report it");
    rates.push_back(static_cast<double>(count) / result.seconds);
    ratios.push_back(rates.back() / copy_rates.back());
  }
  nlohmann::ordered_json delays;
  if (arguments.small_rate > 0) {
    options.rate = arguments.small_rate;
    delays = measure_delays(options);
  }
  exchange.stop();
  yardstick.after_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  const double deliveries = median(rates) * options.subscribers;
  nlohmann::ordered_json json{
      {"mode", "large"},
      {"size", options.size},
      {"subscribers", options.subscribers},
      {"guarantee", options.guarantee == at_least_once ? "at-least-once" : "at-most-once"},
      {"count", count},
      {"rounds", arguments.rounds},
      {"events_per_s", median(rates)},
      {"deliveries_per_s", deliveries},
      {"bytes_per_s", deliveries * static_cast<double>(options.size)},
      {"memcpy_events_per_s", median(copy_rates)},
      {"memcpy_bytes_per_s", median(copy_rates) * options.subscribers * static_cast<double>(options.size)},
      {"ratio", median(ratios)},
      {"ratio_min", *std::min_element(ratios.begin(), ratios.end())},
      {"ratio_max", *std::max_element(ratios.begin(), ratios.end())}};
  add_yardstick(json, yardstick);
  json["wait"] = to_string(options.wait);
  json["machine"] = machine_description();
  json["clients"] = arguments.processes ? "processes" : "one thread";
  if (!delays.is_null()) json.update(delays);
  return json;
}

std::string line_of(const nlohmann::ordered_json& json) {
  std::string line = fmt::format(
      "  {:>9} bytes, 1 -> {:<3} {:>6.2f} GB/s delivered, memcpy alone {:>6.2f} GB/s, ratio {:.3f} ({:.3f} to "
      "{:.3f})\n",
      format_count(json.at("size")), json.at("subscribers").dump(), json.at("bytes_per_s").get<double>() / 1e9,
      json.at("memcpy_bytes_per_s").get<double>() / 1e9, json.at("ratio").get<double>(),
      json.at("ratio_min").get<double>(), json.at("ratio_max").get<double>());
  if (!json.contains("small_rate")) return line;
  const auto us = [&json](const char* key) { return json.at(key).get<double>() / 1e3; };
  line += fmt::format(
      "  {:>16} small events: p50 {:.1f} us, p99 {:.1f} us; beside these {:.1f} and {:.1f} us (a batch: {:.1f} us)\n",
      "", us("small_alone_p50_ns"), us("small_alone_p99_ns"), us("small_beside_p50_ns"), us("small_beside_p99_ns"),
      us("batch_ns"));
  return line;
}

int run(const LargeArguments& arguments) {
  BenchOptions options = arguments.options;
  catch_stop_signals();
  choose_cpus(options);
  std::vector<nlohmann::ordered_json> results;
  for (const std::uint64_t size : arguments.sizes) {
    for (const unsigned subscribers : arguments.subscribers) {
      options.size = size;
      options.subscribers = subscribers;
      results.push_back(measure(arguments, options));
      const nlohmann::ordered_json& result = results.back();
      if (arguments.json) {
        print(result.dump() + "\n");
      } else {
        print((results.size() == 1 ? machine_line(result) + "\n\n" : std::string()) + line_of(result));
      }
    }
  }
  if (!arguments.csv.empty()) write_file("--csv", arguments.csv, to_csv(results));
  return status_done;
}

}  // namespace

void add_bench_large(CLI::App& group, Globals& globals) {
  CLI::App& command = add_command(
      group, "large", "Large events beside memcpy alone",
      "Events from one publisher to each number of subscribers, and memcpy of as many bytes the same way: from the\n"
      "client's core into a buffer as large as a ring, and from there by the exchange's core into one per subscriber.\n"
      "Rounds take turns; a ratio of 1 means that an event costs its copies and nothing else. Publisher and "
      "subscribers\n"
      "are one thread, so that no scheduler comes into it; with --processes, all those of a core take turns on it.\n\n"
      "Example:\n  shmtool bench large --bytes 64KiB,1MiB --subscribers 1,8");
  auto arguments = std::make_shared<LargeArguments>();
  add_parsed(command, "--bytes", "SIZE,SIZE,...", "Bytes of a payload (64KiB,1MiB)",
             [&arguments = *arguments](const std::string& text) { arguments.sizes = parse_sizes(text, 1); });
  command.add_option("--subscribers", arguments->subscribers, "Subscriber processes; each gets every event (1,8)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 256));
  command.add_option("--count", arguments->options.count, "Events of a round (about 2 GB of deliveries)")
      ->check(above_zero())
      ->default_str("");
  command.add_flag("--processes", arguments->processes,
                   "A process for the publisher and one for each subscriber, instead of one thread for all of them");
  command
      .add_option("--small-rate", arguments->small_rate,
                  "Also: 64-byte events of another publisher at this rate, for a second, alone and beside large ones")
      ->check(above_zero())
      ->default_str("");
  command.add_option("--rounds", arguments->rounds, "Rounds (5)")->check(CLI::Range(1, 1000));
  add_wait(command, arguments->options.wait, "How exchange and clients wait (adaptive)");
  command.add_option("--cpu", arguments->options.cpus, "Cores: the exchange's, then the clients', in turn (1,0)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false);
  command.add_flag("--json", arguments->json, "One JSON object a line");
  command.add_option("--csv", arguments->csv, "Write what --json says as a table")->type_name("FILE");
  command.callback([&globals, arguments] { globals.run = [arguments] { return run(*arguments); }; });
}

}  // namespace ackring::tools
