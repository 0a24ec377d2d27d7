// What the benchmarks share: options, result, the private bus they run on.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ackring/bus.hpp"
#include "tools/common/child.hpp"
#include "tools/common/histogram.hpp"

namespace ackring::tools {

struct BenchOptions {
  std::string mode;
  std::uint64_t size = 64;
  std::uint64_t count = 0;               // 0: about three seconds of work
  std::optional<std::uint64_t> warm_up;  // events before those that are measured; nothing: what the mode thinks right
  double rate = 0;                       // events per second of all publishers together; 0: as fast as possible
  bool one_thread = false;               // with a rate: one thread publishes and takes
  unsigned publishers = 1;
  unsigned subscribers = 1;  // subscriptions; each gets every event
  unsigned members = 1;      // of each subscription; more than one: it is a group
  bool default_limits =
      false;  // of the subscriptions: who falls behind has a backlog, instead of holding publishers back
  Guarantee guarantee = Guarantee::at_least_once;
  Wait wait = Wait::adaptive;
  std::vector<int> cpus;        // the exchange's, then those of publishers and subscribers, in turn
  std::size_t shards = 1;       // of the exchange
  std::vector<int> shard_cpus;  // of its shards in turn; fewer than two: all where the exchange is
  std::string bus = "bench";
  std::string directory;

  [[nodiscard]] int exchange_cpu() const { return cpus.front(); }
  /// Members of all subscriptions.
  [[nodiscard]] unsigned takers() const { return subscribers * members; }
  /// A ring takes events of up to a quarter of itself, headers included.
  [[nodiscard]] std::size_t ring_bytes() const {
    return std::max<std::size_t>(limits::default_ring_bytes, std::bit_ceil(4 * (size + 1024)));
  }
  /// Core of the n-th client (publishers first).
  [[nodiscard]] int client_cpu(unsigned number) const {
    return cpus.size() == 1 ? cpus.front() : cpus[1 + number % (cpus.size() - 1)];
  }
};

struct BenchResult {
  std::uint64_t events = 0;
  std::uint64_t deliveries = 0;
  std::uint64_t lost = 0;
  std::uint64_t duplicates = 0;
  double seconds = 0;
  Histogram latency;
  Histogram lateness;  // open loop: how much too late each event was published
};

/// Where no cores were asked for: the second one for the exchange, the first one for the clients.
void choose_cpus(BenchOptions& options);

/// An exchange in a process of its own, on options.exchange_cpu(), serving options.bus in options.directory.
[[nodiscard]] Child start_exchange(const BenchOptions& options);

/// Attaches to the bus of the benchmark and never hosts one.
[[nodiscard]] Bus open_bench_bus(const BenchOptions& options, const std::string& client_name);
[[nodiscard]] SubscriptionOptions bench_subscription(const BenchOptions& options, const std::string& pattern);

/// Publish to take, on one thread: one event in flight or, with a rate, each timed from when it was due.
[[nodiscard]] BenchResult bench_latency(const BenchOptions& options);
/// Events at a fixed rate between processes, each timed from when it was due.
[[nodiscard]] BenchResult bench_open_loop(const BenchOptions& options);
/// As many as possible; each subscriber gets all events of all publishers (fan-out is the same with several subscribers).
[[nodiscard]] BenchResult bench_throughput(const BenchOptions& options);

}  // namespace ackring::tools
