#include "lib/exchange/shard_threads.hpp"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/backoff.hpp"
#include "lib/shm/bus_error_guard.hpp"

namespace ackring::exchange {

namespace {

// Signals are for the threads of the program, but for faults, which are for the thread that makes them.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    ::sigfillset(&all);
    ::sigdelset(&all, SIGBUS);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_{};
};

void pin(std::thread& thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  const int error = ::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
  if (error != 0) {
    throw Error(ErrorCode::invalid_argument, "core " + std::to_string(cpu), "a thread of the exchange can't run on it",
                "name cores that this process may use", error);
  }
}

bool needs_tick(const std::vector<Exchange*>& shards) noexcept {
  return std::any_of(shards.begin(), shards.end(), [](const Exchange* shard) { return shard->needs_tick(); });
}

// Not to be cut short: each of them says that it sleeps, and unpark() takes it back.
bool prepare_park(const std::vector<Exchange*>& shards) {
  bool idle = true;
  for (Exchange* shard : shards) idle = shard->prepare_park() && idle;
  return idle;
}

}  // namespace

ShardThreads::ShardThreads(Exchange& lead, ShardThreadOptions options) : lead_(lead), options_(std::move(options)) {
  called_.store(1, std::memory_order_relaxed);  // relaxed: no thread yet. Recovery may have left something to say.
  for (std::size_t i = 1; i < options_.threads; ++i) {
    runners_.push_back(std::make_unique<Runner>());
    runners_.back()->event = shm::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!runners_.back()->event) {
      throw Error(ErrorCode::no_space, "exchange", "no descriptors left for its shards",
                  "raise the limit of open files, or use fewer shards", errno);
    }
  }
  std::size_t turn = 0;
  for (Exchange* shard : lead.shards()) {
    if (shard == nullptr) continue;
    const std::size_t thread = turn++ % (runners_.size() + 1);
    if (shard != &lead) (thread == 0 ? own_ : runners_[thread - 1]->shards).push_back(shard);
  }
  std::erase_if(runners_, [](const auto& runner) { return runner->shards.empty(); });
  if (runners_.empty()) return;
  lead_.set_holder(this);
  const BlockedSignals blocked;
  try {
    for (std::size_t i = 0; i < runners_.size(); ++i) {
      Runner& runner = *runners_[i];
      runner.thread = std::thread([this, &runner] { run(runner); });
      if (options_.cpus.size() > 1) pin(runner.thread, options_.cpus[(i + 1) % options_.cpus.size()]);
    }
  } catch (const std::system_error& error) {
    stop();
    throw Error(ErrorCode::no_space, "exchange", "the system refuses a thread for each of its shards",
                "raise the limit of processes, or use fewer shards", error.code().value());
  } catch (const Error&) {
    stop();
    throw;
  }
}

ShardThreads::~ShardThreads() { stop(); }

void ShardThreads::stop() {
  stopping_.store(1, std::memory_order_relaxed);  // relaxed: the event below wakes the loop, which looks again
  for (const auto& runner : runners_) {
    wake(*runner);
    if (runner->thread.joinable()) runner->thread.join();
    own_.insert(own_.end(), runner->shards.begin(), runner->shards.end());
  }
  runners_.clear();
  lead_.set_holder(nullptr);
}

void ShardThreads::wake(Runner& runner) noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(runner.event.get(), &one, sizeof one);
}

// ---------------------------------------------------------------------------------------------- threads of other shards

void ShardThreads::run(Runner& runner) {
  try {
    serve(runner);
  } catch (...) {
    const std::lock_guard running(runner.running);
    runner.error = std::current_exception();
    call_lead();
  }
}

void ShardThreads::serve(Runner& runner) {
  if (options_.guard_bus_errors) shm::unblock_bus_errors();
  shm::Backoff backoff(options_.wait, shm::Side::exchange);
  std::unique_lock running(runner.running);
  std::uint64_t now_ns = shm::Environment::now_ns();
  std::uint64_t next_tick_ns = 0;
  std::uint32_t rounds = 0;
  const auto wanted = [&runner] {
    return runner.wanted.load(std::memory_order_relaxed) != 0;  // relaxed: the mutex orders the rest
  };
  const auto tick_if_due = [&] {
    now_ns = shm::Environment::now_ns();
    if (now_ns < next_tick_ns) return;
    for (Exchange* shard : runner.shards) shard->tick(now_ns);
    next_tick_ns = now_ns + tick_ns;
  };
  while (stopping_.load(std::memory_order_relaxed) == 0) {  // relaxed: stop() wakes it, and it looks again
    if (wanted()) [[unlikely]]
      runner.let_go.wait(running, [&wanted] { return !wanted(); });
    bool moved = false;
    for (Exchange* shard : runner.shards) moved = shard->step(now_ns) || moved;
    if ((++rounds & 63) == 0 || (!moved && backoff.slow())) tick_if_due();
    if (moved) {
      backoff.found();
      continue;
    }
    const bool yields = backoff.slow();
    if (yields) running.unlock();  // the host need not wait until this thread has its turn again
    const shm::Backoff::Step step = backoff.wait();
    if (yields) running.lock();
    if (wanted() || step != shm::Backoff::Step::park) continue;
    runner.asleep.store(1, std::memory_order_relaxed);  // relaxed: a hint; the bells of clients are the guarantee
    if (exchange::prepare_park(runner.shards)) {
      const std::uint64_t most_ns = exchange::needs_tick(runner.shards) ? tick_ns : idle_tick_ns;
      running.unlock();
      pollfd event{runner.event.get(), POLLIN, 0};
      ::poll(&event, 1, static_cast<int>(most_ns / 1'000'000));
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(runner.event.get(), &count, sizeof count);
      running.lock();
      if (wanted()) runner.let_go.wait(running, [&wanted] { return !wanted(); });
      tick_if_due();
    }
    runner.asleep.store(0, std::memory_order_relaxed);  // relaxed: as above
    for (Exchange* shard : runner.shards) shard->unpark();
    backoff.woke(now_ns);
  }
}

void ShardThreads::call_lead() noexcept {
  called_.store(1, std::memory_order_relaxed);  // relaxed: what it is about is read while all are held
  options_.wake_host();
}

// -------------------------------------------------------------------------------------------------------- host's thread

void ShardThreads::hold_all() {
  for (const auto& runner : runners_) runner->wanted.store(1, std::memory_order_relaxed);  // relaxed: the mutex orders
  for (const auto& runner : runners_) runner->running.lock();
}

void ShardThreads::let_go() {
  for (const auto& runner : runners_) {
    runner->wanted.store(0, std::memory_order_relaxed);  // relaxed: as above
    runner->running.unlock();
    runner->let_go.notify_one();
    wake(*runner);  // there may be something to do for it now
  }
}

bool ShardThreads::step(std::uint64_t now_ns, bool lead_moved) {
  bool moved = lead_moved;
  for (Exchange* shard : own_) moved = shard->step(now_ns) || moved;
  if (!lead_moved) return moved;
  // What the lead has found in a ring is there for others, too: sooner than by a bell that this thread has yet to hear.
  for (const auto& runner : runners_) {
    if (runner->asleep.load(std::memory_order_relaxed) == 0) continue;  // relaxed: a hint
    runner->asleep.store(0, std::memory_order_relaxed);                 // relaxed: once is enough
    wake(*runner);
  }
  return moved;
}

void ShardThreads::tick(std::uint64_t now_ns) {
  for (Exchange* shard : own_) shard->tick(now_ns);
  // relaxed: the mutex orders the rest. Where there is one thread, nobody has to call it.
  if (!runners_.empty() && called_.load(std::memory_order_relaxed) == 0) return;
  called_.store(0, std::memory_order_relaxed);  // relaxed: who calls from here on is heard at the next tick
  const ShardHold held(lead_.peers());
  for (const auto& runner : runners_) {
    if (runner->error) std::rethrow_exception(std::exchange(runner->error, nullptr));
  }
  lead_.look_after_shards(now_ns);
}

bool ShardThreads::needs_tick() const noexcept {
  return called_.load(std::memory_order_relaxed) != 0 || exchange::needs_tick(own_);  // relaxed: as in tick()
}

bool ShardThreads::prepare_park() { return exchange::prepare_park(own_); }

void ShardThreads::unpark() {
  for (Exchange* shard : own_) shard->unpark();
}

}  // namespace ackring::exchange
