// TickClock: what a counter of the CPU says, as nanoseconds of a clock of the kernel. Pure arithmetic: the caller reads
// both, so that a test can let them do what machines do.
//
// Bearings are readings of both at one moment. Two spans of at least `baseline_ns` between bearings have to agree on the
// counter's rate before it is used, and each further span confirms it or ends its use: during a suspend the counter may go
// on, stand still or begin anew, while CLOCK_MONOTONIC stands still, and a span with a suspend in it tells a rate that is
// none (F17). A rate is of the last span alone, so that nothing old spoils it and slewing is followed.
//
// What a suspend can do in the worst case: the counter goes on during one that is shorter than `new_bearings_ns`, less what had
// passed since the last bearings. Then the time is ahead by that until the next bearings, and waits for the kernel's. One so
// short that the rates still agree makes the next second shorter, by a thousandth or so, which its end corrects.
//
// Thread rules: one thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ackring::shm {

class TickClock {
 public:
  static constexpr std::uint64_t baseline_ns = 100'000'000;
  static constexpr std::uint64_t new_bearings_ns = 1'000'000'000;

  /// False: take bearings. Otherwise `ns` is the time at `tick`, never smaller than an answer before.
  bool read(std::uint64_t tick, std::uint64_t& ns) noexcept {
    if (rate_ == 0) return false;
    const auto since = static_cast<std::uint64_t>(static_cast<Wide>(tick - tick_) * rate_ >> rate_shift);
    if (since >= new_bearings_ns) return false;  // a counter that went back as well
    // A counter read a moment before the bearings, or a corrected rate, must not take time back.
    ns = last_ns_ = std::max(last_ns_, ns_ + since);
    return true;
  }
  /// Would bearings at this time tell more than the time? They cost some reads of both clocks.
  [[nodiscard]] bool wants_bearings(std::uint64_t kernel_ns) const noexcept {
    return rate_ != 0 || ns_ == 0 || kernel_ns - ns_ >= baseline_ns;
  }
  /// The kernel's time without bearings.
  std::uint64_t take(std::uint64_t kernel_ns) noexcept { return last_ns_ = std::max(last_ns_, kernel_ns); }
  /// Bearings: both clocks at one moment. Answers the time.
  std::uint64_t take(std::uint64_t tick, std::uint64_t kernel_ns) noexcept {
    const std::uint64_t measured = measure(tick - tick_, kernel_ns - ns_);
    rate_ = measured != 0 && agree(measured, measured_) ? measured : 0;
    measured_ = measured;
    tick_ = tick;
    ns_ = kernel_ns;
    return take(kernel_ns);
  }

 private:
  __extension__ using Wide = unsigned __int128;
  static constexpr unsigned rate_shift = 32;  // rates: nanoseconds per tick, as a fraction of 2^32
  static constexpr std::uint64_t slowest_khz = 1'000;

  // 0: no span to measure a rate by, or a counter that went back or stood still.
  [[nodiscard]] std::uint64_t measure(std::uint64_t ticks, std::uint64_t span_ns) const noexcept {
    constexpr std::uint64_t ns_per_ms = 1'000'000;
    if (ns_ == 0 || span_ns < baseline_ns || ticks >> 63 != 0 || ticks < span_ns / ns_per_ms * slowest_khz) return 0;
    return static_cast<std::uint64_t>((static_cast<Wide>(span_ns) << rate_shift) / ticks);
  }
  // The kernel slews by one in two thousand at most, in either direction.
  static bool agree(std::uint64_t one, std::uint64_t other) noexcept {
    return std::max(one, other) - std::min(one, other) <= one / 900;
  }

  std::uint64_t rate_ = 0;  // 0: unknown, ask the kernel
  std::uint64_t tick_ = 0;  // last bearings
  std::uint64_t ns_ = 0;    // 0: there were none
  std::uint64_t last_ns_ = 0;
  std::uint64_t measured_ = 0;  // over the span before the last bearings, 0: by none
};

}  // namespace ackring::shm
