// A flow of events: publishers and members as processes of their own, on the bus of the benchmark, as fast as possible or
// at a rate.
//
// Thread rules: flow() is for a process without threads; the rest is used by one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tools/shmtool/bench.hpp"

namespace ackring::tools {

inline constexpr std::uint64_t patience_ns = 10'000'000'000;  // what does not come for so long is lost
inline constexpr double default_seconds = 3;
inline constexpr double open_loop_warm_up_seconds = 0.2;

/// When the events of several publishers are due, who take turns.
struct Schedule {
  std::uint64_t start_ns = 0;
  double rate = 0;  // events per second of all publishers together
  unsigned publishers = 1;

  /// Position among the events of all publishers, of a publisher's event with this sequence (from 1).
  [[nodiscard]] std::uint64_t index(unsigned publisher, std::uint64_t sequence) const noexcept {
    return (sequence - 1) * publishers + publisher;
  }
  [[nodiscard]] std::uint64_t due_ns(std::uint64_t index) const noexcept {
    return start_ns + static_cast<std::uint64_t>(static_cast<double>(index) * 1e9 / rate);
  }
};

/// `run` is a name of its own, a word of topics. With a rate, `warm_up` events come first and are in
/// no figure; without one, it must be 0: a flow before is a warm-up. Throws Failure.
[[nodiscard]] BenchResult flow(const BenchOptions& options, const std::string& run, std::uint64_t count,
                               std::uint64_t warm_up);

/// Events of the n-th of `publishers` who share `total` in turns.
[[nodiscard]] constexpr std::uint64_t share(std::uint64_t total, unsigned publishers, unsigned number) noexcept {
  return total / publishers + (number < total % publishers ? 1 : 0);
}

/// Publishes `count` events in batches, to the topics in turn. Throws Failure.
void publish_in_batches(Publisher& publisher, std::span<const std::string> topics, Bytes payload, std::uint64_t count);

/// Counts what is lost and what came twice of one publisher's events, by their sequence.
class SequenceCheck {
 public:
  void see(std::uint64_t sequence) noexcept {
    ++seen_;
    sum_ += sequence;
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
  /// How many came, and their sequences added up (modulo 2^64): those of a group's members together must be all.
  [[nodiscard]] std::uint64_t seen() const noexcept { return seen_; }
  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }

 private:
  std::uint64_t last_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t duplicates_ = 0;
  std::uint64_t seen_ = 0;
  std::uint64_t sum_ = 0;
};

}  // namespace ackring::tools
