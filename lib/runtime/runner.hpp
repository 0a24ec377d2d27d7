// Runner: the handlers of an EventBus, from run() to the end of what that has begun.
//
// Thread rules: those of EventBus. `mutex_` guards the list of tasks and whether they run; tasks are never removed, so that a
// pointer to one stays good.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "lib/runtime/task.hpp"
#include "lib/shm/descriptor.hpp"

namespace ackring::runtime {

class Runner {
 public:
  Runner(Bus bus, EventBusOptions options);
  ~Runner();

  void add(std::string_view pattern, Handler handler, HandlerOptions options);
  void run();
  void start();
  void join();
  bool run_one(Nanoseconds timeout);
  void stop() noexcept;
  [[nodiscard]] std::vector<HandlerStatus> status() const;

 private:
  enum class State { idle, running, ending };

  void begin();
  void end();
  void serve();
  void monitor();
  [[nodiscard]] std::vector<Task*> tasks() const;
  [[nodiscard]] std::size_t call_in_turn(const std::vector<Task*>& tasks, std::size_t most);
  void wait_for_news(const std::vector<Task*>& tasks, int timeout_ms) const;
  void check_idle() const;  // with the mutex
  [[nodiscard]] bool stop_asked() const noexcept;

  Bus bus_;
  const EventBusOptions options_;
  shm::UniqueFd stop_event_;
  shm::Word32 stop_asked_{};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Task>> tasks_;
  State state_ = State::idle;
  bool monitoring_ = false;

  std::thread monitor_;
  std::thread own_;            // of start()
  std::size_t next_task_ = 0;  // of those called inline: whose turn it is
};

}  // namespace ackring::runtime
