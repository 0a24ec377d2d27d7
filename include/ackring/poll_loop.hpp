// The smallest event loop that awaits deliveries: poll(2), one thread. For programs that have none of their own.
#pragma once

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "ackring/coroutine.hpp"
#include "ackring/error.hpp"

namespace ackring {

/// Runs coroutines that await take(). One thread, except for stop().
class PollLoop {
 public:
  /// Throws Error (system) where no descriptor is left.
  PollLoop() : stop_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (stop_fd_ < 0) throw Error(ErrorCode::system, "PollLoop", "can't make an eventfd", "raise ulimit -n", errno);
  }
  ~PollLoop() { ::close(stop_fd_); }
  PollLoop(const PollLoop&) = delete;
  PollLoop& operator=(const PollLoop&) = delete;

  /// As ReadableLoop wants it. Once it was stopped, the wait ends at the next round.
  void when_readable(int fd, Deadline deadline, Resume resume) { waits_.push_back({fd, deadline, resume}); }

  /// Goes on with what waits as soon as it can, until nothing waits any more. Throws Error (system) where poll() fails.
  void run() {
    std::vector<pollfd> polled;
    while (!waits_.empty()) {
      polled.assign(1, {stop_fd_, POLLIN, 0});
      Deadline first = Deadline::max();
      for (const Wait& wait : waits_) {
        polled.push_back({wait.fd, POLLIN, 0});
        first = std::min(first, wait.deadline);
      }
      if (::poll(polled.data(), polled.size(), milliseconds_until(first)) < 0) {
        if (errno == EINTR) continue;
        throw Error(ErrorCode::system, "PollLoop", "poll() failed", "see errno", errno);
      }
      end_waits(polled);
    }
  }

  /// Every wait ends with nothing, now and later, so that coroutines can come to their ends, and run() with them. Any
  /// thread; async-signal-safe.
  void stop() noexcept {
    const std::uint64_t one = 1;
    (void)!::write(stop_fd_, &one, sizeof one);  // never read: it stays readable
  }

 private:
  struct Wait {
    int fd;
    Deadline deadline;
    Resume resume;
  };

  static int milliseconds_until(Deadline deadline) {
    if (deadline == Deadline::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000));
  }

  void end_waits(const std::vector<pollfd>& polled) {
    const bool stopped = polled[0].revents != 0;
    const Deadline now = std::chrono::steady_clock::now();
    // What goes on may wait again: for the next round, which looks at a list of its own.
    std::vector<Wait> waits = std::exchange(waits_, {});
    for (std::size_t i = 0; i < waits.size(); ++i) {
      const bool readable = polled[i + 1].revents != 0 && !stopped;
      if (readable || stopped || waits[i].deadline <= now) {
        waits[i].resume(readable);
      } else {
        waits_.push_back(waits[i]);
      }
    }
  }

  int stop_fd_;
  std::vector<Wait> waits_;
};

}  // namespace ackring
