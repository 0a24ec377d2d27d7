// shmtool bench: the command line, the yardstick before and after, and the report.
#include "tools/shmtool/bench.hpp"

#include <csignal>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "lib/exchange/host.hpp"
#include "lib/shm/transaction_number.hpp"
#include "tools/common/cacheline.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/ring_relay.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_modes.hpp"
#include "tools/shmtool/bench_plot.hpp"
#include "tools/shmtool/bench_report.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

struct BenchArguments {
  BenchOptions options;
  std::vector<std::uint64_t> sizes;
  bool attach = false;
  bool json = false;
  std::string hdr;
  std::string csv;
  std::string plot;
  std::string plot_sizes;
};

const std::vector<std::uint64_t> sweep_sizes{0, 1, 8, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576};

exchange::Host* volatile hosted = nullptr;

void check(const BenchArguments& arguments) {
  const BenchOptions& options = arguments.options;
  if (options.rate > 0 && options.mode != "latency")
    throw Failure(status_usage, "bench: --rate goes with latency only: leave it out");
  const bool shape = options.publishers > 1 || options.takers() > 1;
  if (options.mode == "latency" && options.rate == 0 && (shape || options.one_thread)) {
    throw Failure(status_usage,
                  "bench latency: --publishers, --subscribers, --members and --one-thread go with a --rate: give one");
  }
  if (options.one_thread && shape) {
    throw Failure(status_usage,
                  "bench latency: --one-thread is one publisher and one subscriber: leave one of them out");
  }
  if (options.takers() > 1024) {
    throw Failure(status_usage,
                  fmt::format("bench: {} subscriptions of {} members are more than 1,024 processes: ask for fewer",
                              options.subscribers, options.members));
  }
  if (!arguments.plot_sizes.empty() &&
      std::set<std::uint64_t>(arguments.sizes.begin(), arguments.sizes.end()).size() < 2)
    throw Failure(status_usage, "bench: --plot-sizes needs several sizes: give --bytes 0,64,1024 or --sweep");
  if (!arguments.plot.empty()) require_gnuplot("--plot");
  if (!arguments.plot_sizes.empty()) require_gnuplot("--plot-sizes");
}

// One size, on an exchange of its own.
std::pair<BenchResult, Yardstick> measure(const BenchArguments& arguments, BenchOptions options) {
  std::optional<TemporaryDirectory> directory;
  std::optional<Child> exchange;
  if (!arguments.attach) {
    directory.emplace("bench");
    options.directory = directory->path();
  }
  Yardstick yardstick;
  const bool closed_loop = options.mode == "latency" && options.rate == 0;
  const auto bare_rings_ns = [&] { return ring_relay_ns(options.client_cpu(0), options.exchange_cpu(), options.size); };
  if (closed_loop) yardstick.bare_rings_ns = bare_rings_ns() / 2;
  yardstick.before_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  if (!arguments.attach) exchange.emplace(start_exchange(options));
  BenchResult result = options.mode != "latency"                 ? bench_throughput(options)
                       : options.rate > 0 && !options.one_thread ? bench_open_loop(options)
                                                                 : bench_latency(options);
  if (exchange) exchange->stop();
  yardstick.after_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  if (closed_loop) yardstick.bare_rings_ns += bare_rings_ns() / 2;
  return {std::move(result), yardstick};
}

int run(const Globals& globals, BenchArguments& arguments) {
  BenchOptions& options = arguments.options;
  catch_stop_signals();
  choose_cpus(options);
  if (arguments.sizes.empty()) arguments.sizes = {options.size};
  check(arguments);
  if (arguments.attach) {
    options.bus = globals.bus;
    options.directory = globals.directory;
  }
  std::vector<nlohmann::ordered_json> results;
  std::vector<std::string> titles;
  std::vector<Histogram> histograms;
  BenchResult sums;
  for (const std::uint64_t size : arguments.sizes) {
    options.size = size;
    const auto [result, yardstick] = measure(arguments, options);
    results.push_back(to_json(options, result, yardstick));
    titles.push_back(fmt::format("{} bytes", size));
    histograms.push_back(result.latency);
    sums.lost += result.lost;
    sums.duplicates += result.duplicates;
    if (!arguments.hdr.empty()) {
      write_file("--hdr", path_of_size(arguments.hdr, size, arguments.sizes.size() > 1),
                 result.latency.percentile_table(1));
    }
    print(arguments.json ? results.back().dump() + "\n" : (results.size() > 1 ? "\n" : "") + to_text(results.back()));
  }
  if (!arguments.csv.empty()) write_file("--csv", arguments.csv, to_csv(results));
  if (!arguments.plot.empty()) plot_percentiles(arguments.plot, titles, histograms);
  if (!arguments.plot_sizes.empty()) plot_sizes(arguments.plot_sizes, results);
  if (options.guarantee == at_least_once && sums.lost + sums.duplicates > 0) {
    throw Failure(status_not_so,
                  fmt::format("bench {}: {} events lost, {} delivered twice: this must not happen: please report it",
                              options.mode, sums.lost, sums.duplicates));
  }
  return status_done;
}

void add_sizes(CLI::App& command, BenchArguments& arguments) {
  CLI::Option* size = add_size(command, "--size", arguments.options.size, "Bytes of a payload (64)");
  CLI::Option* bytes = add_parsed(command, "--bytes", "SIZE,SIZE,...", "Several sizes, one run each",
                                  [&arguments](const std::string& text) { arguments.sizes = parse_sizes(text, 0); });
  CLI::Option* sweep = command.add_flag_callback(
      "--sweep", [&arguments] { arguments.sizes = sweep_sizes; }, "Sizes from 0 bytes to 1 MiB");
  bytes->excludes(size);
  sweep->excludes(size)->excludes(bytes);
}

void add_shape(CLI::App& command, BenchOptions& options) {
  command.add_option("--publishers", options.publishers, "Publisher processes")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_option("--subscribers", options.subscribers, "Subscriber processes; each gets every event")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      .add_option("--members", options.members,
                  "Processes of each subscriber instead of one: groups, whose members share the events")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_flag("--default-limits", options.default_limits,
                   "Subscribers that fall behind have a backlog, as is usual, instead of holding publishers back");
}

void add_outputs(CLI::App& command, BenchArguments& arguments) {
  command.add_flag("--json", arguments.json, "One JSON object, or one a line for each size");
  command
      .add_option("--hdr", arguments.hdr, "Write the percentile table (HdrHistogram format, nanoseconds): FILE.hgrm")
      ->type_name("FILE");
  command.add_option("--csv", arguments.csv, "Write what --json says as a table, a line for each size")
      ->type_name("FILE");
  command.add_option("--plot", arguments.plot, "Draw latency by percentile, a curve for each size (needs gnuplot)")
      ->type_name("FILE.svg");
  command.add_option("--plot-sizes", arguments.plot_sizes, "Draw throughput against size (needs gnuplot)")
      ->type_name("FILE.svg");
}

void add_mode(CLI::App& group, Globals& globals, const char* mode, unsigned subscribers, const char* description,
              const char* footer) {
  CLI::App& command = add_command(group, mode, description, footer);
  auto arguments = std::make_shared<BenchArguments>();
  BenchOptions& options = arguments->options;
  options.mode = mode;
  options.subscribers = subscribers;
  add_sizes(command, *arguments);
  command.add_option("--count", options.count, "Events (about 3 s of work)")->check(above_zero())->default_str("");
  if (options.mode == "latency") {
    command
        .add_option("--rate", options.rate,
                    "Events per second, from one process to another, timed from when each was due")
        ->check(above_zero())
        ->default_str("");
    command.add_flag("--one-thread", options.one_thread,
                     "With --rate: one thread publishes and takes, and never sleeps: no scheduler in the figures");
  }
  add_shape(command, options);
  command
      .add_option_function<std::uint64_t>(
          "--warm-up", [&options](const std::uint64_t& events) { options.warm_up = events; },
          "Events before those that are measured (latency: 10000; with --rate: 0.2 s; else as many as tell the speed)")
      ->type_name("UINT");
  add_parsed(command, "--guarantee", "at-least-once|at-most-once", "What a delivery promises (at-least-once)",
             [&options](const std::string& text) {
               if (text != "at-least-once" && text != "at-most-once")
                 throw std::invalid_argument("'" + text + "' is not a guarantee: choose at-least-once or at-most-once");
               options.guarantee = text == "at-least-once" ? at_least_once : at_most_once;
             });
  add_wait(command, options.wait, "How exchange and clients wait (adaptive)");
  command.add_option("--cpu", options.cpus, "Cores: the exchange's, then the clients', in turn (1,0)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false);
  command.add_option("--shards", options.shards, "Threads of the exchange that share the subscriptions, 1 to 4")
      ->check(CLI::Range(std::size_t{1}, ackring::shm::max_shards))
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--shard-cpus", options.shard_cpus,
                  "Cores of the shards in turn, the exchange's first (all on that one)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false);
  command.add_flag("--attach", arguments->attach, "Use the exchange of --bus instead of one of its own");
  add_outputs(command, *arguments);
  command.callback([&globals, arguments] { globals.run = [&globals, arguments] { return run(globals, *arguments); }; });
}

}  // namespace

std::vector<std::uint64_t> parse_sizes(const std::string& text, std::uint64_t least) {
  std::vector<std::uint64_t> sizes;
  std::istringstream words(text + ",");
  for (std::string word; std::getline(words, word, ',');) {
    sizes.push_back(parse_size(word));
    if (sizes.back() < least) throw std::invalid_argument(fmt::format("'{}' is below {}", word, least));
  }
  return sizes;
}

void choose_cpus(BenchOptions& options) {
  if (!options.cpus.empty()) return;
  const std::vector<int> cpus = allowed_cpus();
  options.cpus = {cpus[cpus.size() > 1 ? 1 : 0], cpus[0]};
}

Child start_exchange(const BenchOptions& options) {
  Child child = Child::start("bench-exchange", [&options](Channel& channel) {
    pin_to_cpu(options.exchange_cpu());
    const auto directory = std::make_shared<shm::FileDirectory>(options.directory + "/" + options.bus, true);
    exchange::HostOptions host_options;
    host_options.wait = options.wait;
    host_options.shards = options.shards;
    host_options.cpus = options.shard_cpus;
    exchange::Host host(directory, options.bus, host_options);
    hosted = &host;
    std::signal(SIGTERM, [](int) { hosted->stop(); });
    channel.send("ready");
    host.run();
    std::signal(SIGTERM, SIG_IGN);
  });
  child.channel().expect(std::chrono::seconds(10), "exchange");
  return child;
}

Bus open_bench_bus(const BenchOptions& options, const std::string& client_name) {
  BusOptions bus_options;
  bus_options.directory = options.directory;
  bus_options.exchange = ExchangeMode::require;
  bus_options.client_name = client_name;
  bus_options.timeout = std::chrono::seconds(30);  // hundreds of processes may have to share the cores
  return Bus::open(options.bus, bus_options);
}

SubscriptionOptions bench_subscription(const BenchOptions& options, const std::string& pattern) {
  SubscriptionOptions subscription;
  subscription.patterns = {pattern};
  subscription.guarantee = options.guarantee;
  subscription.wait = options.wait;
  subscription.ring_bytes = options.ring_bytes();
  if (options.default_limits) return subscription;
  // Subscribers that fall behind hold publishers back; a backlog of gigabytes would measure page faults.
  // That of a group is longer: each of its members waits for events that only it gets, and one that is full stops all.
  subscription.max_events = options.members > 1 ? limits::default_max_in_flight : 1;
  subscription.overflow = Overflow::block;
  return subscription;
}

void add_bench(CLI::App& app, Globals& globals) {
  CLI::App& group = add_command(
      app, "bench", "Measure latency, throughput and fan-out on this machine",
      "Each runs an exchange of its own on a private bus and compares with the round trip of one cache line\n"
      "between the same two cores, measured before and after.");
  group.require_subcommand(1);
  add_mode(group, globals, "latency", 1, "Publish to take, one event in flight",
           "Publisher and subscriber are one thread, the exchange is a process on another core: both hops cross.\n"
           "With --rate: an open loop between processes, timed from when each event was due (no coordinated "
           "omission).\n\nExample:\n  shmtool bench "
           "latency --size 64 --json");
  add_mode(group, globals, "throughput", 1, "Acked events per second",
           "From the first publish until every ack is settled. Latencies are those of the oldest event of each batch "
           "taken.\n\n"
           "Example:\n  shmtool bench throughput --publishers 2 --size 1KiB");
  add_mode(group, globals, "fanout", 4, "One publisher, several subscribers",
           "Example:\n  shmtool bench fanout --subscribers 4");
  add_bench_scale(group, globals);
  add_bench_large(group, globals);
  add_bench_waiting(group, globals);
}

}  // namespace ackring::tools
