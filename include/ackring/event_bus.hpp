// EventBus: calls handlers with what subscriptions deliver, and turns how they end into verdicts.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ackring/bus.hpp"
#include "ackring/circuit_breaker.hpp"
#include "ackring/serializer.hpp"

namespace ackring {

namespace runtime {
class Runner;
}

/// Called with one delivery. Returning acks it, unless the handler has given a verdict itself or moved the Delivery away, to
/// give it later. An exception nacks it, with its what() as the reason; a Reject rejects it.
using Handler = std::function<void(Delivery&)>;

/// Thrown by a handler: this event can't be handled, ever. It becomes a dead letter with what() as the reason, and is no
/// failure of the handler.
class Reject : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct EventBusOptions {
  /// Threads per handler, unless the handler says otherwise, 0 to 256. 0: handlers are called by the thread that is in run(),
  /// one after the other: no hand-over, but one that hangs holds up all that are called there.
  std::size_t workers = 1;
  /// How long run() waits, when it is stopped, for what has been taken to be handled. What has not begun by then is given back.
  /// A call that has begun can't be ended: run() and the destructor wait for it.
  Nanoseconds drain_timeout = std::chrono::seconds(10);
};

struct HandlerOptions {
  /// Of its subscription: name (empty: ephemeral), ack timeout, limits, … Patterns are those given to on(), if any. With
  /// `ordered_by_key`, events of a key are called one after the other, by the same worker.
  SubscriptionOptions subscription = {};
  /// Threads that call it, of its own: one that hangs or fails takes none from others.
  std::optional<std::size_t> workers = std::nullopt;
  /// As long as a call runs, its delivery is extended, so that it does not time out; up to this time since it was taken. 0: ten
  /// times the ack timeout. Later it counts as timed out, is delivered again, perhaps to another member, and what the call
  /// returns means nothing.
  Nanoseconds longest_call = Nanoseconds{0};
  CircuitBreakerOptions breaker = {};
  /// Told of each failure, on the thread that called the handler; must not throw.
  std::function<void(const Delivery& delivery, std::string_view what)> on_failure = {};
};

/// What a handler is at.
struct HandlerStatus {
  std::string subscription;
  std::size_t workers = 0;
  std::size_t busy = 0;          ///< workers that are calling it
  std::uint64_t handled = 0;     ///< calls that returned
  std::uint64_t failed = 0;      ///< … that threw
  std::uint64_t rejected = 0;    ///< … that threw a Reject
  std::uint64_t given_back = 0;  ///< deliveries that were taken and not counted as tried
  std::uint64_t overdue = 0;     ///< calls that ran longer than `longest_call`
  CircuitState breaker = CircuitState::closed;
  std::uint32_t failures_in_a_row = 0;
  bool closed = false;  ///< its subscription was removed
};

/// Handlers on one bus. Each has a subscription of its own, one thread that takes for it, and workers that call it, which
/// a lock-free queue feeds (moodycamel's ConcurrentQueue). It takes only what a free worker will begin at once: one delivery,
/// or, where calls are short, as many as take about a millisecond.
///
/// Thread-safe, except that run(), run_one() and the destructor are for one thread at a time.
class EventBus {
 public:
  explicit EventBus(Bus bus, EventBusOptions options = {});
  /// Stops, as stop() and run() do.
  ~EventBus();
  EventBus(const EventBus&) = delete;
  EventBus& operator=(const EventBus&) = delete;

  /// Calls `handler` with events whose topics match `pattern`. Joins the subscription at once, so that nothing is missed from
  /// now on; calls begin with run() or start(), or at once if it runs already. Throws Error, as Bus::subscribe() does.
  void on(std::string_view pattern, Handler handler, HandlerOptions options = {});

  /// The same for events of a type: `handler` takes a `const T&`, or a `const T&` and the Delivery. An event that is no T
  /// is rejected.
  template <class T, class S = DefaultSerializer<T>, class F>
  requires Serializer<S, T>
  void on(std::string_view pattern, F handler, HandlerOptions options = {}) {
    on(
        pattern,
        [handler = std::move(handler)](Delivery& delivery) mutable {
          const T value = decode_or_reject<T, S>(delivery);
          if constexpr (std::is_invocable_v<F&, const T&, Delivery&>) {
            handler(value, delivery);
          } else {
            handler(value);
          }
        },
        std::move(options));
  }

  /// Calls handlers until stop(), or until all of their subscriptions are gone; then waits for what has begun. What was stopped
  /// can run again.
  void run();
  /// The same on threads of its own; join() waits for its end.
  void start();
  void join();
  /// Calls a handler with one delivery, on this thread, waiting up to `timeout` for it. False: none came. Not while it runs:
  /// throws Error (busy).
  bool run_one(Nanoseconds timeout = Nanoseconds{0});
  /// Makes run() return. Any thread; async-signal-safe.
  void stop() noexcept;

  [[nodiscard]] std::vector<HandlerStatus> status() const;

 private:
  template <class T, class S>
  static T decode_or_reject(const Delivery& delivery) {
    try {
      return S::decode(delivery.payload());
    } catch (const std::exception& error) {
      throw Reject(std::string("can't decode it: ") + error.what());
    }
  }
  std::unique_ptr<runtime::Runner> runner_;
};

}  // namespace ackring
