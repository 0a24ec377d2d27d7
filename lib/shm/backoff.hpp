// What a side does that finds no work: spin, yield, park; and for how long, learnt from its last waits.
//
// Looking for work pays where it comes sooner than a wake-up takes, and only on a core that nobody else needs. So a side
// goes on looking for about as long as its last waits took, up to a bound; not at all where they took longer than that
// (after KVM's halt polling: Documentation/virt/kvm/halt-polling.rst); and parks early where its yields let others run and
// brought nothing, or went to somebody who kept the core.
//
// Thread rules: one thread.
#pragma once

#include <cstdint>
#include <limits>

#include "ackring/options.hpp"

namespace ackring::shm {

/// A pause takes about as long as half the way of a cache line: what comes at once is not made to wait for its end.
inline constexpr std::uint32_t spins_without_pause = 64;

/// Who waits.
enum class Side { client, exchange };

class Backoff {
 public:
  enum class Step { spin, yield, park };

  struct Limits {
    std::uint32_t spins = 0;          // rounds before the first yield; `endless`: it never yields and never parks
    std::uint64_t most_yield_ns = 0;  // how long it yields at most; 0: it parks after the spins, and learns nothing
    bool only_core = false;           // of this machine: whoever is to make work must be let run for it
    // Whether it leaves a core to a thread that keeps it. Clients do not: many that share a core take turns by yields, and a
    // turn of all the others is long too.
    bool gives_way = false;
  };
  static constexpr std::uint32_t endless = std::numeric_limits<std::uint32_t>::max();

  /// With the bounds of this way to wait on this machine.
  explicit Backoff(Wait wait, Side side = Side::client) noexcept;
  explicit Backoff(const Limits& limits) noexcept
      : limits_(limits),
        spins_(limits.only_core && limits.spins != endless ? 0 : limits.spins),
        window_ns_(limits.most_yield_ns) {}

  /// Nothing was there: spins or yields once, or answers park, which is then for the caller to do.
  Step wait() noexcept;
  /// It slept until `now_ns`, or did not: the clock may have been read before. Whether there is work, the next look tells.
  void woke(std::uint64_t now_ns) noexcept {
    if (now_ns > last_ns_) last_ns_ = now_ns;
  }
  /// Work came: the next wait begins anew.
  void found() noexcept {
    round_ = 0;
    if (slow_) {
      end(true);
    } else {
      ++quick_;
    }
  }
  /// No work came, and nobody waits for it any longer.
  void gave_up() noexcept {
    round_ = 0;
    if (slow_) end(false);
  }
  /// It has spun enough: time matters no more from round to round.
  [[nodiscard]] bool slow() const noexcept { return slow_; }

  // What wait() decides by, without a clock of its own.

  [[nodiscard]] Step next() const noexcept;
  void spun() noexcept {
    if (spins_ != endless || round_ <= spins_without_pause) ++round_;
  }
  /// The spins are over.
  void slow_down(std::uint64_t now_ns) noexcept;
  void yielded(std::uint64_t before_ns, std::uint64_t after_ns) noexcept;
  /// How long the next wait yields.
  [[nodiscard]] std::uint64_t window_ns() const noexcept { return window_ns_; }

 private:
  void end(bool found) noexcept;

  Limits limits_;
  std::uint32_t spins_;
  std::uint32_t round_ = 0;
  bool slow_ = false;                // this wait is beyond its spins
  bool shared_ = false;              // somebody else needed the core during the last wait
  bool alone_ = false;               // nobody did at the last yield
  std::uint32_t vain_ = 0;           // yields of this wait that let somebody else run
  std::uint32_t quick_ = 0;          // how often work came without a slow wait since the last one
  std::uint32_t slice_waits_ = 0;    // in which another yield that takes a slice tells that somebody keeps the core
  std::uint32_t crowded_waits_ = 0;  // that park at once, as a yield went to somebody who kept the core
  std::uint64_t window_ns_;
  std::uint64_t since_ns_ = 0;  // when it slowed down
  std::uint64_t last_ns_ = 0;   // of the clock
};

}  // namespace ackring::shm
