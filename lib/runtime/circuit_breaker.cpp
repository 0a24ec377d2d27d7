#include "lib/runtime/circuit_breaker.hpp"

#include <algorithm>

#include "ackring/error.hpp"

namespace ackring {

const char* to_string(CircuitState state) noexcept {
  switch (state) {
    case CircuitState::closed:
      return "closed";
    case CircuitState::open:
      return "open";
    case CircuitState::half_open:
      return "half-open";
  }
  return "?";
}

namespace runtime {
namespace {

void require(bool holds, const char* option, const char* why, const char* advice) {
  if (!holds) throw Error(ErrorCode::invalid_argument, std::string("CircuitBreakerOptions::") + option, why, advice);
}

std::uint64_t ns(Nanoseconds time) noexcept { return static_cast<std::uint64_t>(time.count()); }

}  // namespace

CircuitBreaker::CircuitBreaker(const CircuitBreakerOptions& options, std::uint64_t now_ns) : options_(options) {
  require(options.failure_rate > 0 && options.failure_rate <= 1, "failure_rate", "it is no part of the calls",
          "give more than 0, and 1 at most");
  require(options.window >= std::chrono::milliseconds(10), "window", "it is too short", "give 10 ms or more");
  require(options.open_for.count() > 0, "open_for", "it is no time", "give more than 0");
  require(options.longest_open >= options.open_for, "longest_open", "it is shorter than open_for",
          "give as much at least");
  require(options.probes >= 1, "probes", "it would never close again", "give 1 or more");
  view_.since_ns = now_ns;
  open_ns_ = ns(options.open_for);
}

Permit CircuitBreaker::permit(std::uint64_t now_ns) {
  constexpr std::uint64_t look_again_ns = 100'000'000;
  const std::lock_guard lock(mutex_);
  if (order_ == BreakerOrder::open) return {0, false, now_ns + look_again_ns};
  if (!options_.enabled || view_.state == CircuitState::closed) return {};
  if (view_.state == CircuitState::open) {
    const std::uint64_t until_ns = view_.since_ns + open_ns_;
    if (now_ns < until_ns) return {0, false, std::min(until_ns, now_ns + look_again_ns)};
    enter(CircuitState::half_open, now_ns);
    succeeded_ = 0;
    out_ = 0;
  }
  const std::size_t used = succeeded_ + out_;
  if (used >= options_.probes) return {0, true, now_ns + look_again_ns / 10};
  return {options_.probes - used, true, 0};
}

void CircuitBreaker::began(std::size_t probes) {
  const std::lock_guard lock(mutex_);
  out_ += probes;
}

void CircuitBreaker::dropped(std::size_t probes) {
  const std::lock_guard lock(mutex_);
  out_ -= std::min(out_, probes);
}

void CircuitBreaker::succeeded(std::uint64_t calls, bool probe, std::uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  if (view_.state == CircuitState::closed) {
    view_.failures = 0;
    if (options_.minimum_calls != 0) count(calls, 0, now_ns);
    return;
  }
  if (!probe || view_.state != CircuitState::half_open) return;
  out_ -= std::min<std::size_t>(out_, calls);
  succeeded_ += static_cast<std::uint32_t>(calls);
  if (succeeded_ < options_.probes) return;
  enter(CircuitState::closed, now_ns);
  view_.failures = 0;
  window_ = {};
  open_ns_ = ns(options_.open_for);
}

bool CircuitBreaker::failed(bool probe, std::uint64_t now_ns, std::uint64_t& delay_ns) {
  const std::lock_guard lock(mutex_);
  ++view_.failures;
  if (!options_.enabled || order_ == BreakerOrder::closed) return true;
  if (view_.state == CircuitState::closed) {
    count(1, 1, now_ns);
    if ((options_.failures != 0 && view_.failures >= options_.failures) || too_many(now_ns)) open(now_ns, false);
    return true;  // it was begun while nothing was known
  }
  if (probe && view_.state == CircuitState::half_open) open(now_ns, true);
  const std::uint64_t until_ns = view_.since_ns + open_ns_;
  delay_ns = until_ns > now_ns ? until_ns - now_ns : 0;
  return false;
}

void CircuitBreaker::order(BreakerOrder order, std::uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  if (order == order_) return;
  order_ = order;
  if (order == BreakerOrder::open && view_.state != CircuitState::open) {
    ++view_.opened;
    enter(CircuitState::open, now_ns);
  } else if (order != BreakerOrder::open && view_.state != CircuitState::closed) {
    enter(CircuitState::closed, now_ns);  // as it was before anybody ordered anything
    view_.failures = 0;
    window_ = {};
    open_ns_ = ns(options_.open_for);
  }
}

BreakerView CircuitBreaker::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

bool CircuitBreaker::is_open() const {
  const std::lock_guard lock(mutex_);
  return view_.state == CircuitState::open;
}

void CircuitBreaker::enter(CircuitState state, std::uint64_t now_ns) {
  view_.state = state;
  view_.since_ns = now_ns;
}

void CircuitBreaker::open(std::uint64_t now_ns, bool again) {
  if (again) open_ns_ = std::min(2 * open_ns_, ns(options_.longest_open));
  ++view_.opened;
  enter(CircuitState::open, now_ns);
}

std::uint64_t CircuitBreaker::slice_ns() const noexcept { return ns(options_.window) / slices; }

void CircuitBreaker::count(std::uint64_t calls, std::uint64_t failures, std::uint64_t now_ns) {
  const std::uint64_t number = now_ns / slice_ns();
  Slice& slice = window_[number % slices];
  if (slice.number != number) slice = {number, 0, 0};
  slice.calls += calls;
  slice.failures += failures;
}

bool CircuitBreaker::too_many(std::uint64_t now_ns) const {
  if (options_.minimum_calls == 0) return false;
  const std::uint64_t number = now_ns / slice_ns();
  std::uint64_t calls = 0;
  std::uint64_t failures = 0;
  for (const Slice& slice : window_) {
    if (number - slice.number >= slices) continue;
    calls += slice.calls;
    failures += slice.failures;
  }
  return calls >= options_.minimum_calls &&
         static_cast<double>(failures) >= options_.failure_rate * static_cast<double>(calls);
}

}  // namespace runtime
}  // namespace ackring
