// What `shmtool pub` and `shmtool replay` have in common: publish events one by one, wait for room, and end when all is
// routed.
//
// Thread rules: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "ackring/bus.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/pub_input.hpp"

namespace ackring::tools {

class PublishLoop {
 public:
  using Clock = std::chrono::steady_clock;

  /// Attaches. `timeout` counts from here on; 0: none. Throws Failure, Error.
  PublishLoop(const Globals& globals, const PublisherOptions& options, Nanoseconds timeout);

  /// Calls `publish_all`, waits until all of it is routed, and says how many events that were; also where `publish_all`
  /// throws a Failure, which then goes on. Answers the exit status.
  int run(const std::function<void()>& publish_all);

  /// One event, with its key and headers. `attributes`: what else is to be said of it; `where`: for messages. Waits for
  /// room. False: a signal came. Throws Failure where this event can't be published.
  bool publish(const Event& event, EventAttributes attributes, const std::string& where);
  /// False: a signal came. Throws Failure if time is over before, with `why`.
  bool wait_until(Clock::time_point due, const std::string& why);
  [[nodiscard]] std::uint64_t published() const noexcept { return published_; }

 private:
  bool settle(Nanoseconds most);
  void report() const;
  [[nodiscard]] Nanoseconds time_left() const;
  [[nodiscard]] Failure late(const std::string& what) const;
  [[nodiscard]] Failure refused(Outcome outcome, const Event& event, const std::string& where) const;

  const Globals& globals_;
  const Nanoseconds timeout_;
  const Clock::time_point started_;
  Publisher publisher_;
  std::uint64_t published_ = 0;
};

}  // namespace ackring::tools
