// shmtool bench waiting: publish to take where nobody spins beside two bare wake-ups, in rounds that take turns, and what
// the exchange takes of its core meanwhile and when nothing happens.
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tools/common/cacheline.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_bare.hpp"
#include "tools/shmtool/bench_flow.hpp"
#include "tools/shmtool/bench_modes.hpp"
#include "tools/shmtool/bench_report.hpp"

namespace ackring::tools {
namespace {

constexpr double round_seconds = 0.5;
constexpr std::uint64_t least_warm_up = 20;    // events before each round
constexpr std::uint64_t calm_ns = 50'000'000;  // after the last event, until the bus counts as idle

struct WaitingArguments {
  BenchOptions options;
  unsigned rounds = 7;
  Nanoseconds idle = std::chrono::seconds(2);
  bool json = false;
};

// Processor time of a process, in nanoseconds.
std::uint64_t cpu_ns(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0)
    throw Failure(status_refused, "bench waiting: the exchange is gone");
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

void sleep_until(std::uint64_t monotonic_time_ns) {
  const timespec until{static_cast<time_t>(monotonic_time_ns / 1'000'000'000),
                       static_cast<long>(monotonic_time_ns % 1'000'000'000)};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

// Shares of a core that two processes take while something runs.
class Shares {
 public:
  Shares(pid_t far, pid_t near) : far_(far), near_(near) {}
  double far() const { return share(cpu_ns(far_), far_start_); }
  double near() const { return share(cpu_ns(near_), near_start_); }

 private:
  [[nodiscard]] double share(std::uint64_t now, std::uint64_t before) const {
    return static_cast<double>(now - before) / static_cast<double>(std::max(monotonic_ns(), start_ + 1) - start_);
  }
  pid_t far_;
  pid_t near_;
  std::uint64_t start_ = monotonic_ns();
  std::uint64_t far_start_ = cpu_ns(far_);
  std::uint64_t near_start_ = cpu_ns(near_);
};

struct Round {
  Histogram latency;
  double far_share = 0;
  double near_share = 0;
};

// The client: one thread, which publishes or rings when it is time to, and then waits for what comes of it.
class Client {
 public:
  Client(const BenchOptions& options, pid_t exchange, const BareWakeUps& bare)
      : options_(options),
        exchange_(exchange),
        bare_(bare),
        bus_(open_bench_bus(options, "bench-waiting")),
        subscriber_(bus_.subscribe(bench_subscription(options, topic_))),
        publisher_(bus_.publisher({.name = {}, .ring_bytes = options.ring_bytes(), .wait = options.wait})),
        payload_(options.size, 'x') {
    ::prctl(PR_SET_TIMERSLACK, 1);  // nanoseconds; the usual 50,000 are much at a high rate
  }

  void run(unsigned rounds, Nanoseconds idle, Channel& channel) {
    nlohmann::json results = nlohmann::json::array();
    for (unsigned number = 0; number < rounds; ++number) {
      nlohmann::json pair;
      pair["bare"] = to_json(round(
          bare_.pid(), [this] { bare_.there_and_back(); }, [] {}));
      pair["ackring"] = to_json(round(
          exchange_, [this] { publish_and_take(); }, [this] { decide(); }));
      results.push_back(pair);
    }
    if (subscriber_.flush(Nanoseconds(patience_ns)) != Outcome::ok)
      throw Failure(status_refused, "bench waiting: the exchange did not settle the acks in 10 s: see shmtool stat");
    sleep_until(monotonic_ns() + calm_ns);
    const Shares shares(exchange_, ::getpid());
    sleep_until(monotonic_ns() + static_cast<std::uint64_t>(std::max<std::int64_t>(idle.count(), 1)));
    channel.send({{"rounds", results},
                  {"exchange_idle", shares.far()},
                  {"client_idle", shares.near()},
                  {"lost", check_.lost(publisher_.sequence())},
                  {"duplicates", check_.duplicates()}});
  }

 private:
  static nlohmann::json to_json(const Round& round) {
    return {{"histogram", round.latency.to_json()}, {"far", round.far_share}, {"near", round.near_share}};
  }

  // `trip` is what is timed.
  template <class Trip, class Then>
  Round round(pid_t far, Trip trip, Then then) {
    Round result;
    std::uint64_t due = monotonic_ns();
    const auto one = [&](bool measured) {
      due += static_cast<std::uint64_t>(1e9 / options_.rate);
      if (due > monotonic_ns()) sleep_until(due);
      const std::uint64_t start = monotonic_ns();
      trip();
      if (measured) result.latency.record(monotonic_ns_behind() - start);
      then();
    };
    const std::uint64_t warm_up = std::max(least_warm_up, options_.count / 10);
    for (std::uint64_t i = 0; i < warm_up; ++i) one(false);
    const Shares shares(far, ::getpid());
    due = monotonic_ns();
    for (std::uint64_t i = 0; i < options_.count; ++i) one(true);
    result.far_share = shares.far();
    result.near_share = shares.near();
    return result;
  }

  void publish_and_take() {
    if (const Outcome outcome = publisher_.publish(topic_, as_bytes(payload_)); outcome != Outcome::ok) {
      throw Failure(status_refused,
                    fmt::format("bench waiting: can't publish: {}: try a smaller --size", to_string(outcome)));
    }
    if (subscriber_.take_batch({&view_, 1}, Nanoseconds(patience_ns)) != 1)
      throw Failure(status_refused, "bench waiting: an event did not arrive in 10 s: see shmtool stat");
  }

  void decide() {
    check_.see(view_.sequence());
    if (subscriber_.ack(view_) != Outcome::ok)
      throw Failure(status_refused, "bench waiting: an ack was refused: see shmtool stat");
  }

  const BenchOptions& options_;
  const pid_t exchange_;
  const BareWakeUps& bare_;
  const std::string topic_ = fmt::format("bench.waiting.{}", ::getpid());
  Bus bus_;
  Subscriber subscriber_;
  Publisher publisher_;
  std::string payload_;
  DeliveryView view_;
  SequenceCheck check_;
};

nlohmann::ordered_json to_json(const BenchOptions& options, const nlohmann::json& report) {
  std::vector<double> ratios;
  std::vector<double> p50s;
  std::vector<double> bare_p50s;
  std::vector<double> exchange;
  std::vector<double> client;
  std::vector<double> bare_exchange;
  std::vector<double> bare_client;
  Histogram latency;
  Histogram bare_latency;
  for (const nlohmann::json& pair : report.at("rounds")) {
    const Histogram one = Histogram::from_json(pair.at("ackring").at("histogram"));
    const Histogram bare = Histogram::from_json(pair.at("bare").at("histogram"));
    p50s.push_back(static_cast<double>(one.percentile(50)));
    bare_p50s.push_back(static_cast<double>(bare.percentile(50)));
    ratios.push_back(p50s.back() / std::max(bare_p50s.back(), 1.0));
    exchange.push_back(pair.at("ackring").at("far"));
    client.push_back(pair.at("ackring").at("near"));
    bare_exchange.push_back(pair.at("bare").at("far"));
    bare_client.push_back(pair.at("bare").at("near"));
    latency.merge(one);
    bare_latency.merge(bare);
  }
  return {{"mode", "waiting"},
          {"size", options.size},
          {"rate", options.rate},
          {"count", options.count},
          {"rounds", ratios.size()},
          {"p50_ns", median(p50s)},
          {"p99_ns", latency.percentile(99)},
          {"bare_p50_ns", median(bare_p50s)},
          {"bare_p99_ns", bare_latency.percentile(99)},
          {"ratio", median(ratios)},
          {"ratio_min", *std::min_element(ratios.begin(), ratios.end())},
          {"ratio_max", *std::max_element(ratios.begin(), ratios.end())},
          {"exchange_cpu", median(exchange)},
          {"client_cpu", median(client)},
          {"bare_exchange_cpu", median(bare_exchange)},
          {"bare_client_cpu", median(bare_client)},
          {"exchange_idle_cpu", report.at("exchange_idle").get<double>()},
          {"client_idle_cpu", report.at("client_idle").get<double>()},
          {"lost", report.at("lost").get<std::uint64_t>()},
          {"duplicates", report.at("duplicates").get<std::uint64_t>()},
          {"ratios", ratios}};
}

std::string to_text(const nlohmann::ordered_json& json) {
  const auto percent = [&json](const char* key) { return 100 * json.at(key).get<double>(); };
  const auto time = [&json](const char* key) { return format_duration(json.at(key).get<double>()); };
  return fmt::format(
      "waiting: {} events of {} bytes a round, {} a second\n{}\n\n"
      "  publish to take    p50 {:>9}  p99 {:>9}  exchange {:>5.2f} % of a core, client {:>5.2f} %\n"
      "  two bare wake-ups  p50 {:>9}  p99 {:>9}  other side {:>3.2f} %, client {:>5.2f} %\n"
      "  ratio  {:.3f} (median of {} rounds; {:.3f} to {:.3f})\n"
      "  idle: exchange {:.3f} % of a core, client {:.3f} %\n"
      "  lost {}, duplicates {}\n",
      format_count(json.at("count")), json.at("size").dump(), format_rate(json.at("rate")), machine_line(json),
      time("p50_ns"), time("p99_ns"), percent("exchange_cpu"), percent("client_cpu"), time("bare_p50_ns"),
      time("bare_p99_ns"), percent("bare_exchange_cpu"), percent("bare_client_cpu"), json.at("ratio").get<double>(),
      json.at("rounds").dump(), json.at("ratio_min").get<double>(), json.at("ratio_max").get<double>(),
      percent("exchange_idle_cpu"), percent("client_idle_cpu"), json.at("lost").dump(), json.at("duplicates").dump());
}

int run(const WaitingArguments& arguments) {
  BenchOptions options = arguments.options;
  catch_stop_signals();
  choose_cpus(options);
  if (options.count == 0) options.count = std::max<std::uint64_t>(1, std::llround(round_seconds * options.rate));
  const TemporaryDirectory directory("bench");
  options.directory = directory.path();
  Yardstick yardstick;
  yardstick.before_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  Child exchange = start_exchange(options);
  const BareWakeUps bare(options.exchange_cpu());
  Child client = Child::start("bench-client", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    Client(options, exchange.pid(), bare).run(arguments.rounds, arguments.idle, channel);
  });
  nlohmann::ordered_json json = to_json(options, client.channel().expect(std::chrono::hours(24), "bench waiting"));
  exchange.stop();
  yardstick.after_ns = cacheline_round_trip_ns(options.client_cpu(0), options.exchange_cpu());
  add_yardstick(json, yardstick);
  json["wait"] = to_string(options.wait);
  json["machine"] = machine_description();
  print(arguments.json ? json.dump() + "\n" : to_text(json));
  if (json.at("lost") != 0 || json.at("duplicates") != 0) {
    throw Failure(status_not_so,
                  "bench waiting: events lost or delivered twice: this must not happen: please report it");
  }
  return status_done;
}

}  // namespace

void add_bench_waiting(CLI::App& group, Globals& globals) {
  CLI::App& command = add_command(
      group, "waiting", "What waking up costs, and what waiting takes of a core",
      "Publisher and subscriber are one thread that sleeps between events and for each event; the exchange is a\n"
      "process on another core. Beside it, in rounds that take turns: two bare wake-ups between the same cores, over\n"
      "sockets like the doorbells. With --wait park, a ratio of 1 means that an event costs its wake-ups and nothing\n"
      "else. Shares of a core are those of the exchange and of the client at that rate, and when nothing happens.\n\n"
      "Example:\n  shmtool bench waiting --rate 1000 --wait adaptive");
  auto arguments = std::make_shared<WaitingArguments>();
  BenchOptions& options = arguments->options;
  options.rate = 1000;
  options.wait = Wait::park;
  add_size(command, "--size", options.size, "Bytes of a payload (64)");
  command.add_option("--rate", options.rate, "Events per second; the next one at once where it is too high (1000)")
      ->check(above_zero());
  command.add_option("--count", options.count, "Events of a round (0.5 s of them)")
      ->check(above_zero())
      ->default_str("");
  command.add_option("--rounds", arguments->rounds, "Rounds (7)")->check(CLI::Range(1, 1000));
  add_parsed(command, "--idle", "DURATION", "How long nothing happens at the end (2s)",
             [&arguments = *arguments](const std::string& text) { arguments.idle = parse_duration(text); });
  add_wait(command, options.wait, "How exchange and clients wait (park)");
  command.add_option("--cpu", options.cpus, "Cores: the exchange's, then the client's (1,0)")
      ->delimiter(',')
      ->type_name("LIST")
      ->allow_extra_args(false);
  command.add_flag("--json", arguments->json, "One JSON object");
  command.callback([&globals, arguments] { globals.run = [arguments] { return run(*arguments); }; });
}

}  // namespace ackring::tools
