// Circuit breakers: what keeps a handler that fails from burning the attempts of everything that is queued for it.
#pragma once

#include <chrono>
#include <cstdint>

#include "ackring/options.hpp"

namespace ackring {

enum class CircuitState {
  closed,     ///< deliveries are handled
  open,       ///< none is taken: they wait in their queue, and no attempt counts
  half_open,  ///< a few are tried; if all succeed it closes, if one fails it opens again
};

/// Name of a state, such as "half-open".
const char* to_string(CircuitState state) noexcept;

/// When a handler's breaker opens and closes. A failure is a call that ended with an exception, other than a Reject.
///
/// Failures of a closed breaker are nacks and count as attempts. Those of probes do not: the delivery is given back. An event
/// that fails whenever it is probed would be kept for ever by that; after `free_probes` its failures count.
struct CircuitBreakerOptions {
  /// Without one, every failure is a nack.
  bool enabled = true;
  /// Opens after so many failures in a row, without a success of any worker between; 0: however many.
  std::uint32_t failures = 5;
  /// Opens when this part of the calls within `window` failed (0 to 1], …
  double failure_rate = 0.5;
  /// … of so many at least; 0: the rate does not count.
  std::uint32_t minimum_calls = 20;
  /// >= 10 ms.
  Nanoseconds window = std::chrono::seconds(10);
  /// How long it stays open before it tries again; twice as long after each probe that fails, up to `longest_open`.
  Nanoseconds open_for = std::chrono::seconds(1);
  Nanoseconds longest_open = std::chrono::seconds(30);
  /// Successes that close it again; so many are tried at a time at most; >= 1.
  std::uint32_t probes = 3;
  /// Probes of one event that may fail without counting as an attempt of it.
  std::uint32_t free_probes = 10;
};

}  // namespace ackring
