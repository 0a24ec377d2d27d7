// What `shmtool sub` and `shmtool tail` have in common: take deliveries one by one, print each, give its verdict.
//
// Thread rules: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ackring/bus.hpp"
#include "tools/shmtool/delivery_text.hpp"

namespace ackring::tools {

enum class Verdict { ack, nack, reject, none };

struct TakeOptions {
  std::string command;  // for messages
  Verdict verdict = Verdict::ack;
  DeliveryFormat format = DeliveryFormat::ndjson;
  std::uint64_t count = 0;  // 0: no limit
  Nanoseconds timeout{0};   // 0: none

  /// Adds --format, --count and --timeout. This object must live as long as `app`.
  void add_to(CLI::App& app);
};

class TakeLoop {
 public:
  using Clock = std::chrono::steady_clock;

  /// `started`: where the time-out counts from.
  TakeLoop(Bus bus, Subscriber subscriber, const TakeOptions& options, Clock::time_point started);

  /// Until the count is reached, time is up, a signal came, nobody reads the output or the subscription is gone; then
  /// verdicts are settled. Answers the exit status; throws Failure (status_not_so) where the count was not reached.
  int run();

 private:
  [[nodiscard]] bool finished() const;
  void take_one();
  bool settle(Nanoseconds most);
  [[nodiscard]] Nanoseconds time_left() const;

  Bus bus_;
  Subscriber subscriber_;
  const TakeOptions& options_;
  const Clock::time_point started_;
  std::vector<Delivery> held_;
  std::uint64_t printed_ = 0;
};

}  // namespace ackring::tools
