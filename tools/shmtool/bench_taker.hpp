// A member of a flow's subscription: takes in batches, acks, and counts.
//
// Thread rules: one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/common/child.hpp"
#include "tools/shmtool/bench_flow.hpp"
#include "tools/shmtool/bench_progress.hpp"

namespace ackring::tools {

class Taker {
 public:
  /// The `number`-th of options.takers(), of a flow of `total` events, of which `warm_up` are in no figure.
  Taker(const BenchOptions& options, const std::string& run, unsigned number, std::uint64_t total,
        std::uint64_t warm_up, Progress& progress);

  /// Until all events came, to it and the other members of its subscription, or none for a long time. Reports
  /// {"end", "received", "checks": [[seen, sum, lost, duplicates], …], "histogram"}.
  void run(Channel& channel);

 private:
  void note(const DeliveryView& view, std::uint64_t now);
  /// Events that the members of its subscription took, together.
  [[nodiscard]] std::uint64_t group_taken() const noexcept;
  [[nodiscard]] unsigned publisher_of(const DeliveryView& view);

  const BenchOptions& options_;
  const unsigned number_;
  const std::uint64_t total_;
  const std::uint64_t warm_up_;
  Progress& progress_;
  Bus bus_;
  Subscriber subscriber_;
  std::vector<SequenceCheck> checks_;
  Schedule schedule_;
  Histogram latency_;
  std::uint64_t received_ = 0;
};

}  // namespace ackring::tools
