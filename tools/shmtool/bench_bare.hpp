// The yardstick of waiting: two bare wake-ups, one after the other, over sockets like those of the doorbells. One process
// rings and sleeps in ppoll; the other sleeps in epoll on another core, as an exchange does, and rings back.
//
// Thread rules: one thread. Made in a process without threads, before the process that calls there_and_back().
#pragma once

#include "lib/shm/park.hpp"
#include "tools/common/child.hpp"

namespace ackring::tools {

class BareWakeUps {
 public:
  /// Starts the other process, on core `cpu`. Throws Error (no_space) or Failure.
  explicit BareWakeUps(int cpu);

  /// Rings, and sleeps until the other side has been woken and has rung back. Throws Failure after 10 s.
  void there_and_back() const;
  /// Of the other process.
  [[nodiscard]] pid_t pid() const noexcept { return echo_->pid(); }

 private:
  std::pair<shm::Bell, shm::Bell> bells_;
  std::optional<Child> echo_;
};

}  // namespace ackring::tools
