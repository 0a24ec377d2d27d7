// What the benchmarks share: options, result, the private bus they run on.
#pragma once

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
  std::uint64_t count = 0;  // 0: about three seconds of work
  double rate = 0;          // 0: as fast as possible
  unsigned publishers = 1;
  unsigned subscribers = 1;
  Guarantee guarantee = Guarantee::at_least_once;
  Wait wait = Wait::adaptive;
  std::vector<int> cpus;  // the exchange's, then those of publishers and subscribers, in turn
  std::string bus = "bench";
  std::string directory;

  [[nodiscard]] int exchange_cpu() const { return cpus.front(); }
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
};

/// An exchange in a process of its own, on options.exchange_cpu(), serving options.bus in options.directory.
[[nodiscard]] Child start_exchange(const BenchOptions& options);

/// Attaches to the bus of the benchmark and never hosts one.
[[nodiscard]] Bus open_bench_bus(const BenchOptions& options, const std::string& client_name);
[[nodiscard]] SubscriptionOptions bench_subscription(const BenchOptions& options, const std::string& pattern);

/// One event in flight, publish to take, on one thread.
[[nodiscard]] BenchResult bench_latency(const BenchOptions& options);
/// Events at a fixed rate from one process to another, each timed from when it was due.
[[nodiscard]] BenchResult bench_open_loop(const BenchOptions& options);
/// As many as possible; each subscriber gets all events of all publishers (fan-out is the same with several subscribers).
[[nodiscard]] BenchResult bench_throughput(const BenchOptions& options);

/// Counts what is lost and what came twice of one publisher's events, by their sequence.
class SequenceCheck {
 public:
  void see(std::uint64_t sequence) noexcept {
    if (sequence == last_ + 1) [[likely]] {
      last_ = sequence;
    } else if (sequence > last_) {
      lost_ += sequence - last_ - 1;
      last_ = sequence;
    } else {
      ++duplicates_;
    }
  }
  /// How many are lost if the publisher's last event was `final_sequence`.
  [[nodiscard]] std::uint64_t lost(std::uint64_t final_sequence) const noexcept {
    return lost_ + (final_sequence > last_ ? final_sequence - last_ : 0);
  }
  [[nodiscard]] std::uint64_t duplicates() const noexcept { return duplicates_; }
  [[nodiscard]] std::uint64_t last() const noexcept { return last_; }

 private:
  std::uint64_t last_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t duplicates_ = 0;
};

}  // namespace ackring::tools
