// Task: beginning and end.
#include "lib/runtime/task.hpp"

#include <utility>

#include "ackring/error.hpp"
#include "lib/client/thread.hpp"

namespace ackring::runtime {

namespace {

constexpr std::size_t most_workers = 256;

std::size_t checked(std::size_t workers) {
  if (workers > most_workers) {
    throw Error(ErrorCode::invalid_argument, "workers", std::to_string(workers) + " are too many",
                "give " + std::to_string(most_workers) + " at most");
  }
  return workers;
}

}  // namespace

Task::Task(Bus& bus, Handler handler, HandlerOptions options, std::size_t workers)
    : options_(std::move(options)),
      workers_(checked(workers)),
      by_key_(options_.subscription.ordered_by_key && workers > 1),
      subscriber_(bus.subscribe(options_.subscription)),
      member_(client::Access::member(subscriber_)),
      breaker_(options_.breaker, shm::Environment::now_ns()),
      caller_(std::move(handler), options_, member_, breaker_) {
  at_most_once_ = member_->at_most_once();
  // An existing subscription may have another time-out than the default; whoever gives none attaches to what it has.
  ack_timeout_ns_ = member_->ack_timeout_ns();
  longest_call_ns_ = options_.longest_call.count() > 0 ? static_cast<std::uint64_t>(options_.longest_call.count())
                                                       : 10 * ack_timeout_ns_;
  (void)subscriber_.fd();  // from now on whoever polls it is told
  look_at_breaker(shm::Environment::now_ns());
}

Task::~Task() = default;

void Task::add_batches(Lane& lane) {
  // Two per worker: while it works on one, the next one is filled.
  for (std::size_t i = 0; i < 2 * lane.workers; ++i) {
    batches_.push_back(std::make_unique<Batch>());
    lane.stash.push_back(batches_.back().get());
    ++lane.batches;
  }
}

void Task::start(int stop_fd) {
  stop_fd_ = stop_fd;
  // relaxed: no thread is there yet
  stopping_.store(0, std::memory_order_relaxed);
  discarding_.store(0, std::memory_order_relaxed);  // relaxed: as above
  lanes_.clear();
  batches_.clear();
  if (workers_ == 0) {
    batches_.push_back(std::make_unique<Batch>());
    return;
  }
  const std::size_t lanes = by_key_ ? workers_ : 1;
  for (std::size_t i = 0; i < lanes; ++i) {
    lanes_.push_back(std::make_unique<Lane>(workers_ / lanes));
    add_batches(*lanes_.back());
  }
  ended_ = 0;
  for (const auto& lane : lanes_) {
    for (std::size_t i = 0; i < lane->workers; ++i) {
      threads_.push_back(client::start_thread("ackring-work", [this, &lane = *lane] { work(lane); }));
    }
  }
  reader_ = client::start_thread("ackring-read", [this] { read(); });
}

void Task::finish_reading() {
  stopping_.store(1, std::memory_order_relaxed);  // relaxed: whoever waits is woken below, or by the event
  for (const auto& lane : lanes_) lane->idle.enqueue(nullptr);
  if (reader_.joinable()) reader_.join();
}

void Task::finish(std::uint64_t deadline_ns) {
  for (const auto& lane : lanes_) {
    for (std::size_t i = 0; i < lane->workers; ++i)
      lane->filled.enqueue(lane->producer, nullptr);  // behind all batches
  }
  {
    std::unique_lock lock(mutex_);
    const std::uint64_t now_ns = shm::Environment::now_ns();
    const std::chrono::nanoseconds left(deadline_ns > now_ns ? deadline_ns - now_ns : 0);
    if (!ended_changed_.wait_for(lock, left, [this] { return ended_ == threads_.size(); })) {
      discarding_.store(1, std::memory_order_relaxed);  // relaxed: workers look before each delivery
    }
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Task::forget_batches() {
  lanes_.clear();
  batches_.clear();
}

HandlerStatus Task::status() const {
  HandlerStatus status;
  const BreakerView breaker = breaker_.view();
  status.subscription = subscriber_.name();
  status.workers = workers_;
  // relaxed, to the end: numbers for people
  status.busy = busy_.load(std::memory_order_relaxed);
  status.handled = handled_.load(std::memory_order_relaxed);
  status.overdue = overdue_.load(std::memory_order_relaxed);
  status.failed = caller_.failed();
  status.rejected = caller_.rejected();
  status.given_back = caller_.given_back();
  status.breaker = breaker.state;
  status.failures_in_a_row = breaker.failures;
  status.closed = subscriber_.closed();
  return status;
}

}  // namespace ackring::runtime
