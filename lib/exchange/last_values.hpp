// LastValues: where the last event of each topic is. The subscription `@last` keeps them: its backlog is a log of events in
// which only the last one of each topic counts. X takes from its head what a later event has replaced, and moves to its
// tail what still counts, so that the log takes about twice the room of what it is for; the scheme is that of the cleaner
// of log-structured storage (Rosenblum and Ousterhout, 1992), with one place to clean.
//
// This index is not shared: it is what a walk over the log finds, and follows its head and tail.
// Thread rules: X's thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "lib/exchange/queue.hpp"

namespace ackring::exchange {

class LastValues {
 public:
  struct Entry {
    std::uint64_t position;  // in the backlog
    std::uint64_t bytes;
    std::uint32_t topic;
  };

  explicit LastValues(Queue& queue) noexcept : queue_(&queue) {}

  [[nodiscard]] Queue& queue() const noexcept { return *queue_; }
  /// Notes what has been put into the log and taken from it. Not inside a transaction.
  void catch_up();
  /// What lies in the log, oldest first.
  [[nodiscard]] const std::deque<Entry>& entries() const noexcept { return entries_; }
  /// Is this the last event of its topic?
  [[nodiscard]] bool counts(const Entry& entry) const noexcept { return last_[entry.topic] == entry.position; }
  /// The events that count are more than the limits of the subscription allow.
  [[nodiscard]] bool over_limits() const noexcept {
    return live_events_ > queue_->options.max_events || live_bytes_ > queue_->options.max_bytes;
  }
  /// There is enough to be gained from cleaning.
  [[nodiscard]] bool untidy() const noexcept {
    const std::uint64_t replaced = queue_->block.backlog_bytes - live_bytes_;
    return over_limits() || replaced > std::max(live_bytes_, tolerated_bytes);
  }

 private:
  static constexpr std::uint64_t tolerated_bytes = 256u << 10;

  void forget(const Entry& entry) noexcept;

  Queue* queue_;
  std::uint64_t next_ = 0;           // up to where the log is known
  std::deque<Entry> entries_;        // of [head, next_)
  std::vector<std::uint64_t> last_;  // by topic: the position that counts, 0: none
  std::uint64_t live_events_ = 0;
  std::uint64_t live_bytes_ = 0;
};

}  // namespace ackring::exchange
