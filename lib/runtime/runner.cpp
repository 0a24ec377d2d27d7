#include "lib/runtime/runner.hpp"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "ackring/error.hpp"
#include "lib/client/thread.hpp"
#include "lib/shm/backoff.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::runtime {

namespace {

constexpr std::uint64_t longest_look_ns = 100'000'000;  // of the monitor, between two
constexpr int longest_wait_ms = 100;
constexpr std::size_t deliveries_in_turn = 64;  // of one handler, before the next one is looked at

}  // namespace

Runner::Runner(Bus bus, EventBusOptions options) : bus_(std::move(bus)), options_(options) {
  stop_event_ = shm::UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!stop_event_) throw shm::system_error("event bus", "can't make an eventfd", errno);
}

Runner::~Runner() {
  stop();
  join();
}

void Runner::add(std::string_view pattern, Handler handler, HandlerOptions options) {
  if (!handler) throw Error(ErrorCode::invalid_argument, "handler", "it is empty", "give a function");
  if (!pattern.empty()) options.subscription.patterns = {std::string(pattern)};
  const std::size_t workers = options.workers.value_or(options_.workers);
  auto task = std::make_unique<Task>(bus_, std::move(handler), std::move(options), workers);
  const std::lock_guard lock(mutex_);
  if (state_ == State::running) task->start(stop_event_.get());
  tasks_.push_back(std::move(task));
}

std::vector<Task*> Runner::tasks() const {
  const std::lock_guard lock(mutex_);
  std::vector<Task*> tasks;
  tasks.reserve(tasks_.size());
  for (const auto& task : tasks_) tasks.push_back(task.get());
  return tasks;
}

bool Runner::stop_asked() const noexcept {
  return stop_asked_.load(std::memory_order_relaxed) != 0;  // relaxed: the event wakes whoever waits
}

void Runner::stop() noexcept {
  stop_asked_.store(1, std::memory_order_relaxed);  // relaxed: as above
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_event_.get(), &one, sizeof one);
}

void Runner::begin() {
  const std::lock_guard lock(mutex_);
  check_idle();
  try {
    for (const auto& task : tasks_) task->start(stop_event_.get());
    monitoring_ = true;
    monitor_ = client::start_thread("ackring-watch", [this] { monitor(); });
  } catch (...) {
    monitoring_ = false;
    for (const auto& task : tasks_) {
      task->finish_reading();
      task->finish(0);
      task->forget_batches();
    }
    throw;
  }
  state_ = State::running;
}

void Runner::check_idle() const {
  if (state_ != State::idle) throw Error(ErrorCode::busy, "event bus", "it runs already", "stop it first");
}

void Runner::end() {
  std::uint64_t count = 0;
  const std::uint64_t deadline_ns =
      shm::Environment::now_ns() + static_cast<std::uint64_t>(std::max(options_.drain_timeout, Nanoseconds{0}).count());
  std::unique_lock lock(mutex_);
  state_ = State::ending;  // no task is begun any more that nobody would end
  lock.unlock();
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_event_.get(), &one, sizeof one);  // also where nobody asked
  for (Task* task : tasks()) task->finish_reading();
  for (Task* task : tasks()) task->finish(deadline_ns);  // long calls are still looked after
  lock.lock();
  monitoring_ = false;
  lock.unlock();
  changed_.notify_all();
  monitor_.join();
  for (Task* task : tasks()) task->forget_batches();
  [[maybe_unused]] const ssize_t got = ::read(stop_event_.get(), &count, sizeof count);
  stop_asked_.store(0, std::memory_order_relaxed);  // relaxed: all threads have ended
  lock.lock();
  state_ = State::idle;
}

void Runner::monitor() {
  std::unique_lock lock(mutex_);
  while (monitoring_) {
    lock.unlock();
    const std::uint64_t now_ns = shm::Environment::now_ns();
    std::uint64_t wait_ns = longest_look_ns;
    for (Task* task : tasks()) {
      const bool busy = task->watch(now_ns);
      wait_ns = std::min(wait_ns, task->watch_every_ns(busy));
    }
    lock.lock();
    if (monitoring_) changed_.wait_for(lock, std::chrono::nanoseconds(wait_ns));
  }
}

void Runner::run() {
  begin();
  serve();
  end();
}

void Runner::start() {
  begin();
  join();  // what ran before has ended by itself
  try {
    own_ = client::start_thread("ackring-bus", [this] {
      serve();
      end();
    });
  } catch (...) {
    end();
    throw;
  }
}

void Runner::join() {
  if (own_.joinable()) own_.join();
}

// What those without workers have is called here; the others need nobody, until it is time to end.
void Runner::serve() {
  shm::Backoff backoff(Wait::adaptive);
  while (!stop_asked()) {
    const std::vector<Task*> all = tasks();
    if (!all.empty() && std::all_of(all.begin(), all.end(), [](Task* task) { return task->closed(); })) return;
    if (call_in_turn(all, deliveries_in_turn) != 0) {
      backoff.found();
      continue;
    }
    const bool inline_ones = std::any_of(all.begin(), all.end(), [](Task* task) { return task->workers() == 0; });
    if (inline_ones && backoff.wait() != shm::Backoff::Step::park) continue;
    wait_for_news(all, longest_wait_ms);
    backoff.woke(shm::Environment::now_ns());
  }
}

std::size_t Runner::call_in_turn(const std::vector<Task*>& tasks, std::size_t most) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < tasks.size() && count < most; ++i) {
    Task* task = tasks[next_task_++ % tasks.size()];
    if (task->workers() == 0) count += task->work_inline(most - count);
  }
  return count;
}

void Runner::wait_for_news(const std::vector<Task*>& tasks, int timeout_ms) const {
  std::vector<pollfd> news{pollfd{stop_event_.get(), POLLIN, 0}};
  for (Task* task : tasks) {
    if (task->workers() != 0 || !task->may_take()) continue;
    if (task->arm()) return;
    news.push_back(pollfd{task->fd(), POLLIN, 0});
  }
  (void)::poll(news.data(), news.size(), timeout_ms);
}

bool Runner::run_one(Nanoseconds timeout) {
  {
    const std::lock_guard lock(mutex_);
    check_idle();
  }
  const std::vector<Task*> all = tasks();
  const std::uint64_t deadline_ns =
      shm::Environment::now_ns() + static_cast<std::uint64_t>(std::max(timeout, Nanoseconds{0}).count());
  while (true) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      Task* task = all[next_task_++ % all.size()];
      task->watch(shm::Environment::now_ns());
      if (task->run_one()) return true;
    }
    const std::uint64_t now_ns = shm::Environment::now_ns();
    if (now_ns >= deadline_ns || stop_asked()) return false;
    std::vector<pollfd> news{pollfd{stop_event_.get(), POLLIN, 0}};
    bool there = false;
    for (Task* task : all) {
      if (!task->may_take()) continue;
      there = task->arm() || there;
      news.push_back(pollfd{task->fd(), POLLIN, 0});
    }
    if (there) continue;
    const std::uint64_t wait_ms = (deadline_ns - now_ns) / 1'000'000 + 1;
    (void)::poll(news.data(), news.size(), static_cast<int>(std::min<std::uint64_t>(wait_ms, longest_wait_ms)));
  }
}

std::vector<HandlerStatus> Runner::status() const {
  std::vector<HandlerStatus> all;
  for (const Task* task : tasks()) all.push_back(task->status());
  return all;
}

}  // namespace ackring::runtime
