// co_await for subscribers (C++20 coroutines), on whatever event loop a program has. Apart from <ackring/ackring.hpp>,
// since a compiler may build all of that and have no <coroutine>.
#pragma once

#include <chrono>
#include <coroutine>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "ackring/subscriber.hpp"

namespace ackring {

/// When a wait ends at the latest; time_point::max() is never.
using Deadline = std::chrono::steady_clock::time_point;

/// What a wait goes on with: a copyable function object of two pointers. A loop calls it once, on its own thread and
/// not from within when_readable(): with true when the descriptor is readable, with false when the deadline has passed
/// or the loop stops.
class Resume {
 public:
  void operator()(bool readable) const { look_(waiting_, readable); }

 private:
  template <class Loop>
  friend class TakeAwaiter;
  Resume(void* waiting, void (*look)(void*, bool)) noexcept : waiting_(waiting), look_(look) {}
  void* waiting_;
  void (*look_)(void*, bool);
};

/// What take() asks of an event loop: that it calls `resume` once, as Resume says. The descriptor stays that of the
/// subscriber; there is one wait at a time per subscriber. May throw; that comes out of the co_await.
template <class Loop>
concept ReadableLoop = requires(Loop& loop, int fd, Deadline deadline, Resume resume) {
  loop.when_readable(fd, deadline, resume);
};

/// What take() returns: to be awaited at once.
template <class Loop>
class TakeAwaiter {
 public:
  TakeAwaiter(Subscriber& subscriber, Loop& loop, Deadline deadline) noexcept
      : subscriber_(subscriber), loop_(loop), deadline_(deadline) {}
  TakeAwaiter(const TakeAwaiter&) = delete;
  TakeAwaiter& operator=(const TakeAwaiter&) = delete;

  bool await_ready() {
    // The descriptor comes first: a take() that finds nothing arms it, and only if it is there.
    fd_ = subscriber_.fd();
    return found() || deadline_ <= std::chrono::steady_clock::now();
  }
  void await_suspend(std::coroutine_handle<> waiting) {
    waiting_ = waiting;
    wait();
  }
  std::optional<Delivery> await_resume() {
    if (failure_) std::rethrow_exception(failure_);
    return std::move(delivery_);
  }

 private:
  bool found() {
    delivery_ = subscriber_.take();
    return delivery_.has_value() || subscriber_.closed();
  }
  void wait() { loop_.when_readable(fd_, deadline_, Resume(this, &TakeAwaiter::look)); }
  // The descriptor may be readable for nothing: then the wait begins again, and the coroutine does not see it.
  static void look(void* self, bool readable) {
    auto& awaiter = *static_cast<TakeAwaiter*>(self);
    try {
      if (readable && !awaiter.found()) return awaiter.wait();
    } catch (...) {
      awaiter.failure_ = std::current_exception();
    }
    awaiter.waiting_.resume();
  }

  Subscriber& subscriber_;
  Loop& loop_;
  Deadline deadline_;
  int fd_ = -1;
  std::coroutine_handle<> waiting_;
  std::optional<Delivery> delivery_;
  std::exception_ptr failure_;
};

/// `auto delivery = co_await take(subscriber, loop)`: the next delivery; or nothing, if none came within `timeout` (0:
/// it does not wait), the loop stops, or the subscriber is closed() (its subscription was removed). What is there
/// already is returned without a round through the loop: a coroutine that is never without events should let others run
/// now and then.
///
/// For the thread of the loop. One at a time per subscriber, which must live until it ends; so must the coroutine: who
/// wants to destroy it while it waits ends the wait by Resume's false first. Throws Error where no descriptor is left,
/// and what the loop throws.
template <ReadableLoop Loop>
[[nodiscard]] TakeAwaiter<Loop> take(Subscriber& subscriber, Loop& loop, Nanoseconds timeout = Nanoseconds::max()) {
  const Deadline now = std::chrono::steady_clock::now();
  return TakeAwaiter<Loop>(subscriber, loop, timeout < Deadline::max() - now ? now + timeout : Deadline::max());
}

/// The simplest coroutine there is: begins at once, is awaited by nobody, and is gone at its end. An exception that it
/// lets out ends the program. For programs that have no coroutine type of their own.
struct DetachedCoroutine {
  struct promise_type {
    DetachedCoroutine get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
  };
};

}  // namespace ackring
