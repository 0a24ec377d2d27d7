// ShardThreads: runs the shards of a bus that has several. The thread of the host steps the lead and whatever is not left to
// a thread of its own; it alone serves clients, and holds all others while it changes what they share.
//
// Each thread keeps a mutex of its own while it runs, and lets go of it between two steps where it is wanted, and while it
// sleeps. Order of locks: the mutexes of the threads in their order, then Peers::topics_mutex. No thread but the host's waits
// for another one.
// Thread rules: everything from the host's thread, but for what says otherwise.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ackring/options.hpp"
#include "lib/exchange/peers.hpp"
#include "lib/shm/descriptor.hpp"
#include "lib/shm/word.hpp"

namespace ackring::exchange {

struct ShardThreadOptions {
  std::size_t threads = 1;  // the host's included
  Wait wait = Wait::adaptive;
  std::vector<int> cpus;            // of the threads in turn, the host's first; empty: where the host's is
  bool guard_bus_errors = false;    // HostOptions
  std::function<void()> wake_host;  // any thread
};

class ShardThreads final : public ShardHolder {
 public:
  /// Starts them. Throws Error (no_space: the system refuses a thread or a descriptor).
  ShardThreads(Exchange& lead, ShardThreadOptions options);
  ~ShardThreads() override;

  /// After a step of the lead, which has moved something or not: steps the other shards of this thread, and wakes sleepers
  /// for which there may be something. True if anything has moved.
  bool step(std::uint64_t now_ns, bool lead_moved);
  /// Ticks the other shards of this thread, and looks after those that called. Throws what has ended a thread.
  void tick(std::uint64_t now_ns);
  [[nodiscard]] bool needs_tick() const noexcept;
  [[nodiscard]] bool prepare_park();
  void unpark();
  /// Ends the threads: from here on, this one does it all.
  void stop();

  void hold_all() override;
  void let_go() override;
  void call_lead() noexcept override;

 private:
  struct Runner {
    std::vector<Exchange*> shards;
    std::mutex running;  // held while it runs
    std::condition_variable let_go;
    shm::Word32 wanted{};  // 1: the host waits for `running`
    shm::Word32 asleep{};  // 1: it sleeps, or is about to
    shm::UniqueFd event;   // wakes it
    std::exception_ptr error;
    std::thread thread;
  };

  void run(Runner& runner);
  void serve(Runner& runner);
  static void wake(Runner& runner) noexcept;

  Exchange& lead_;
  ShardThreadOptions options_;
  std::vector<Exchange*> own_;  // shards that the host's thread steps, but for the lead
  std::vector<std::unique_ptr<Runner>> runners_;
  shm::Word32 called_{};
  shm::Word32 stopping_{};
};

}  // namespace ackring::exchange
