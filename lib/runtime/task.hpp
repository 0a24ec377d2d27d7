// Task: one handler at work: the thread that takes for it, the workers that call it, and what its monitor does.
//
// The reader takes for a worker that is free, and hands it a batch: one delivery, or, where calls are short, as many as take
// about a millisecond. Batches go round: idle → filled → worked on → idle. Where events of a key have an order, each worker
// has a queue of its own, and a key always goes to the same one.
//
// Thread rules: read() on one thread, work() on one per worker, watch() on the monitor's; work_inline() and run_one() on a
// thread that does all of it, where there are no workers. stop() comes from whoever waits for the threads.
// Invariants: 1. A delivery that was taken is in one batch until somebody has claimed it. 2. What a reader or a worker waits
// for wakes it, or it looks again within `longest_wait`.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <concurrentqueue/blockingconcurrentqueue.h>

#include "ackring/event_bus.hpp"
#include "lib/runtime/batch.hpp"
#include "lib/runtime/caller.hpp"
#include "lib/runtime/circuit_breaker.hpp"

namespace ackring::runtime {

/// Two cores are not enough to spin for long: a queue's semaphore looks a few times before it sleeps.
struct QueueTraits : moodycamel::ConcurrentQueueDefaultTraits {
  static const int MAX_SEMA_SPINS = 64;
};
using BatchQueue = moodycamel::BlockingConcurrentQueue<Batch*, QueueTraits>;

class Task {
 public:
  /// Joins the subscription. Throws Error.
  Task(Bus& bus, Handler handler, HandlerOptions options, std::size_t workers);
  ~Task();
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  [[nodiscard]] std::size_t workers() const noexcept { return workers_; }
  /// A descriptor that is readable when there may be something to take.
  [[nodiscard]] int fd() { return subscriber_.fd(); }
  [[nodiscard]] bool closed() const noexcept { return subscriber_.closed(); }
  [[nodiscard]] HandlerStatus status() const;

  /// Starts reader and workers, if there are any workers; `stop_fd` is readable when they shall end. Throws Error.
  void start(int stop_fd);
  /// Takes no more. Then: waits for what was taken; what has not begun at `deadline_ns` is given back. Then, when nobody
  /// watches any more: forgets batches.
  void finish_reading();
  void finish(std::uint64_t deadline_ns);
  void forget_batches();

  /// Where there are no workers: takes what there is, without waiting, at most `most`, and calls the handler. Answers how
  /// many were taken.
  std::size_t work_inline(std::size_t most);
  /// The same with one delivery, whether there are workers or not; not between start() and finish().
  bool run_one();
  /// Does the breaker let it take anything?
  [[nodiscard]] bool may_take() { return breaker_.permit(shm::Environment::now_ns()).deliveries != 0; }
  /// Before fd() is polled. True: there is something already.
  [[nodiscard]] bool arm() { return member_->arm(); }
  /// The monitor's look. Is anything being worked on?
  bool watch(std::uint64_t now_ns);
  /// How soon the monitor has to look again, in nanoseconds.
  [[nodiscard]] std::uint64_t watch_every_ns(bool busy) const noexcept;

 private:
  struct Lane {  // workers that share a queue
    explicit Lane(std::size_t threads)
        : filled(4 * threads), idle(4 * threads), producer(filled), consumer(idle), workers(threads) {}
    BatchQueue filled;
    BatchQueue idle;
    BatchQueue::producer_token_t producer;  // the reader's
    BatchQueue::consumer_token_t consumer;  // the reader's
    std::vector<Batch*> stash;              // idle ones that the reader has
    std::size_t workers;
    std::size_t batches = 0;
  };

  void read();
  void work(Lane& lane);
  void run(Batch& batch, std::shared_ptr<client::Member>& member);
  void call_each(Batch& batch, std::shared_ptr<client::Member>& member);
  void give_back_rest(Batch& batch);
  void watch(Batch& batch, std::uint64_t now_ns);
  [[nodiscard]] std::size_t batch_size() const noexcept;
  [[nodiscard]] Batch* free_batch(Lane& lane);
  [[nodiscard]] bool read_for_any(Lane& lane);
  [[nodiscard]] bool read_by_key();
  [[nodiscard]] std::size_t take(std::span<DeliveryView> views, bool& probe);
  void fill(Batch& batch, std::span<const DeliveryView> views, bool probe);
  void look_at_breaker(std::uint64_t now_ns);
  void add_batches(Lane& lane);
  [[nodiscard]] std::size_t lane_of(const DeliveryView& view);
  [[nodiscard]] bool stopping() const noexcept {
    return stopping_.load(std::memory_order_relaxed) != 0;  // relaxed: threads are joined; the event wakes them
  }

  const HandlerOptions options_;
  const std::size_t workers_;
  const bool by_key_;
  Subscriber subscriber_;
  std::shared_ptr<client::Member> member_;
  bool at_most_once_ = false;
  std::uint64_t ack_timeout_ns_ = 0;
  std::uint64_t longest_call_ns_ = 0;
  CircuitBreaker breaker_;
  Caller caller_;

  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::unique_ptr<Batch>> batches_;  // all; made before the threads are
  std::shared_ptr<client::Member> own_member_;   // work_inline()'s
  std::size_t next_lane_ = 0;
  int stop_fd_ = -1;
  std::thread reader_;
  std::vector<std::thread> threads_;

  shm::Word32 stopping_{};
  shm::Word32 discarding_{};  // what has not begun is given back
  shm::Word64 call_ns_{};     // of a call, about; 0: not known
  shm::Word64 handled_{};
  shm::Word64 overdue_{};
  shm::Word32 busy_{};
  std::uint64_t breaker_look_ns_ = 0;  // the monitor's
  BreakerView shown_{};                // … as the ack page has it
  bool shown_once_ = false;

  std::mutex mutex_;
  std::condition_variable ended_changed_;
  std::size_t ended_ = 0;  // workers
};

}  // namespace ackring::runtime
