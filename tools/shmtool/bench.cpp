// shmtool bench: the command line, the yardstick before and after, and the report.
#include "tools/shmtool/bench.hpp"

#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "lib/exchange/host.hpp"
#include "tools/common/cacheline.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

struct BenchArguments {
  BenchOptions options;
  bool attach = false;
  bool json = false;
  std::string hdr;
};

exchange::Host* volatile hosted = nullptr;

nlohmann::ordered_json to_json(const BenchOptions& options, const BenchResult& result, double before_ns,
                               double after_ns) {
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
      {"cacheline_rtt_ns", (before_ns + after_ns) / 2},
  };
  if (before_ns > 1.5 * after_ns || after_ns > 1.5 * before_ns) json["regime_changed"] = true;
  json["lost"] = result.lost;
  json["duplicates"] = result.duplicates;
  json["machine"] = machine_description();
  return json;
}

std::string to_text(const nlohmann::ordered_json& json) {
  const double round_trip_ns = json.at("cacheline_rtt_ns");
  const auto round_trips = [&](const char* key) { return json.at(key).get<double>() / round_trip_ns; };
  const auto per_round_trip = [&](const char* key) { return json.at(key).get<double>() * round_trip_ns / 1e9; };
  std::string text =
      fmt::format("{}: {} events of {} bytes, {} publisher(s), {} subscriber(s), {}\n",
                  json.at("mode").get<std::string>(), format_count(json.at("count")), json.at("size").dump(),
                  json.at("publishers").dump(), json.at("subscribers").dump(), json.at("guarantee").get<std::string>());
  text += fmt::format(
      "{}, {} cores; one cache line there and back: {}{}\n\n", json.at("machine").at("cpu").get<std::string>(),
      json.at("machine").at("cores").dump(), format_duration(round_trip_ns),
      json.contains("regime_changed") ? " (changed by more than 1.5 x during the run: measure again)" : "");
  text += fmt::format("  {} events/s, {} deliveries/s, {:.1f} MB/s, in {:.2f} s\n",
                      format_rate(json.at("events_per_s")), format_rate(json.at("deliveries_per_s")),
                      json.at("bytes_per_s").get<double>() / 1e6, json.at("seconds").get<double>());
  text += fmt::format("  {:.1f} events, {:.1f} deliveries per round trip of a cache line\n",
                      per_round_trip("events_per_s"), per_round_trip("deliveries_per_s"));
  for (const auto& [label, key] : {std::pair{"p50  ", "p50_ns"},
                                   {"p90  ", "p90_ns"},
                                   {"p99  ", "p99_ns"},
                                   {"p99.9", "p999_ns"},
                                   {"max  ", "max_ns"}}) {
    text += fmt::format("  {} {:>10}  {:>8.1f} round trips\n", label, format_duration(json.at(key).get<double>()),
                        round_trips(key));
  }
  return text + fmt::format("  lost {}, duplicates {}\n", json.at("lost").dump(), json.at("duplicates").dump());
}

void write_hdr(const std::string& path, const Histogram& histogram) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) throw Failure(status_refused, "--hdr " + path + ": can't write it: check the path and its mode");
  const std::string table = histogram.percentile_table(1);
  const bool written = std::fwrite(table.data(), 1, table.size(), file) == table.size();
  if (std::fclose(file) != 0 || !written)
    throw Failure(status_refused, "--hdr " + path + ": can't write it: is the disk full?");
}

int run(const Globals& globals, BenchArguments& arguments) {
  BenchOptions& options = arguments.options;
  catch_stop_signals();
  if (options.cpus.empty()) {
    const std::vector<int> cpus = allowed_cpus();
    options.cpus = {cpus[cpus.size() > 1 ? 1 : 0], cpus[0]};
  }
  if (options.rate > 0 && options.mode != "latency")
    throw Failure(status_usage, "bench: --rate goes with latency only: leave it out");
  std::optional<TemporaryDirectory> directory;
  std::optional<Child> exchange;
  if (arguments.attach) {
    options.bus = globals.bus;
    options.directory = globals.directory;
  } else {
    directory.emplace("bench");
    options.directory = directory->path();
  }
  const double before_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  if (!arguments.attach) exchange.emplace(start_exchange(options));
  const BenchResult result = options.mode != "latency" ? bench_throughput(options)
                             : options.rate > 0        ? bench_open_loop(options)
                                                       : bench_latency(options);
  if (exchange) exchange->stop();
  const double after_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  const nlohmann::ordered_json json = to_json(options, result, before_ns, after_ns);
  if (!arguments.hdr.empty()) write_hdr(arguments.hdr, result.latency);
  print(arguments.json ? json.dump() + "\n" : to_text(json));
  if (options.guarantee == at_least_once && result.lost + result.duplicates > 0) {
    throw Failure(status_not_so,
                  fmt::format("bench {}: {} events lost, {} delivered twice: this must not happen: please report it",
                              options.mode, result.lost, result.duplicates));
  }
  return status_done;
}

void add_mode(CLI::App& group, Globals& globals, const char* mode, unsigned subscribers, const char* description,
              const char* footer) {
  CLI::App& command = add_command(group, mode, description, footer);
  auto arguments = std::make_shared<BenchArguments>();
  BenchOptions& options = arguments->options;
  options.mode = mode;
  options.subscribers = subscribers;
  add_size(command, "--size", options.size, "Bytes of a payload (64)");
  command.add_option("--count", options.count, "Events (about 3 s of work)")->check(above_zero())->default_str("");
  if (options.mode == "latency") {
    command
        .add_option("--rate", options.rate,
                    "Events per second, from one process to another, timed from when each was due")
        ->check(above_zero())
        ->default_str("");
  } else {
    command.add_option("--publishers", options.publishers, "Publisher processes")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command.add_option("--subscribers", options.subscribers, "Subscriber processes; each gets every event")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
  }
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
  command.add_flag("--attach", arguments->attach, "Use the exchange of --bus instead of one of its own");
  command.add_flag("--json", arguments->json, "One JSON object");
  command.add_option("--hdr", arguments->hdr, "Write the percentile table (HdrHistogram format, nanoseconds)")
      ->type_name("FILE");
  command.callback([&globals, arguments] { globals.run = [&globals, arguments] { return run(globals, *arguments); }; });
}

}  // namespace

Child start_exchange(const BenchOptions& options) {
  Child child = Child::start("bench-exchange", [&options](Channel& channel) {
    pin_to_cpu(options.exchange_cpu());
    const auto directory = std::make_shared<shm::FileDirectory>(options.directory + "/" + options.bus, true);
    exchange::HostOptions host_options;
    host_options.wait = options.wait;
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
  return Bus::open(options.bus, bus_options);
}

SubscriptionOptions bench_subscription(const BenchOptions& options, const std::string& pattern) {
  SubscriptionOptions subscription;
  subscription.patterns = {pattern};
  subscription.guarantee = options.guarantee;
  subscription.wait = options.wait;
  // Subscribers that fall behind hold publishers back; a backlog of gigabytes would measure page faults.
  subscription.max_events = 1;
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
           "With --rate: an open loop between two processes (no coordinated omission).\n\nExample:\n  shmtool bench "
           "latency --size 64 --json");
  add_mode(group, globals, "throughput", 1, "Acked events per second",
           "From the first publish until every ack is settled. Latencies are those of the oldest event of each batch "
           "taken.\n\n"
           "Example:\n  shmtool bench throughput --publishers 2 --size 1KiB");
  add_mode(group, globals, "fanout", 4, "One publisher, several subscribers",
           "Example:\n  shmtool bench fanout --subscribers 4");
}

}  // namespace ackring::tools
