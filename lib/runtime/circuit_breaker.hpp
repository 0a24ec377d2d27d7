// CircuitBreaker: closed, open, half-open (Nygard, "Release It!", 2007). Decides alone, by what it is told; the time is the
// caller's, so that a test can let it pass.
//
// Thread rules: any thread; a mutex guards the state. Workers tell it once per batch, not per event.
// Invariants: 1. Half-open, no more than `probes` deliveries are out that count as probes. 2. What was begun before it
// opened and fails after it does not open it again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>

#include "ackring/circuit_breaker.hpp"

namespace ackring::runtime {

/// What a handler may take.
struct Permit {
  std::size_t deliveries = std::numeric_limits<std::size_t>::max();
  bool probe = false;          // they are tried: whoever takes them tells began()
  std::uint64_t again_ns = 0;  // none: when it is worth asking again
};

/// What the breaker shows.
struct BreakerView {
  CircuitState state = CircuitState::closed;
  std::uint32_t failures = 0;  // in a row
  std::uint64_t since_ns = 0;  // of the state
  std::uint64_t opened = 0;    // times

  friend bool operator==(const BreakerView&, const BreakerView&) = default;
};

class CircuitBreaker {
 public:
  /// Throws Error (invalid_argument).
  CircuitBreaker(const CircuitBreakerOptions& options, std::uint64_t now_ns);

  /// How many deliveries may be taken now.
  [[nodiscard]] Permit permit(std::uint64_t now_ns);
  /// So many were taken as probes.
  void began(std::size_t probes);
  /// Probes that were taken and never tried.
  void dropped(std::size_t probes);
  /// Calls succeeded.
  void succeeded(std::uint64_t calls, bool probe, std::uint64_t now_ns);
  /// A call failed. False: the breaker is open (now), and the delivery shall not count as tried for `delay_ns`; true: it is a
  /// failure like any other.
  [[nodiscard]] bool failed(bool probe, std::uint64_t now_ns, std::uint64_t& delay_ns);
  /// What an operator wants: none, or that it is open or closed whatever happens.
  void order(BreakerOrder order, std::uint64_t now_ns);

  [[nodiscard]] BreakerView view() const;
  /// Would a delivery that is not begun yet better be given back?
  [[nodiscard]] bool is_open() const;

 private:
  static constexpr std::size_t slices = 10;  // of the window

  struct Slice {
    std::uint64_t number = 0;  // of the slice, from the clock's zero
    std::uint64_t calls = 0;
    std::uint64_t failures = 0;
  };

  void enter(CircuitState state, std::uint64_t now_ns);
  void open(std::uint64_t now_ns, bool again);
  void count(std::uint64_t calls, std::uint64_t failures, std::uint64_t now_ns);
  [[nodiscard]] bool too_many(std::uint64_t now_ns) const;
  [[nodiscard]] std::uint64_t slice_ns() const noexcept;

  const CircuitBreakerOptions options_;
  mutable std::mutex mutex_;
  BreakerView view_;
  BreakerOrder order_ = BreakerOrder::automatic;
  std::uint64_t open_ns_ = 0;    // how long it stays open this time
  std::size_t out_ = 0;          // probes that were taken and have not ended
  std::uint32_t succeeded_ = 0;  // of the probes
  std::array<Slice, slices> window_{};
};

}  // namespace ackring::runtime
