#include "lib/shm/clock.hpp"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace ackring::shm {

namespace {

std::uint64_t kernel_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail: the clock exists and the pointer is ours
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

#if defined(__x86_64__)

constexpr std::uint64_t baseline_ns = 100'000'000;  // shortest measurement of the counter's rate
constexpr std::uint64_t new_bearings_ns = 1'000'000'000;
constexpr unsigned rate_shift = 32;  // rate: nanoseconds per tick, as a fraction of 2^32

// The kernel uses the counter for its own clocks only after it has found it constant and in step on all cores.
bool kernel_trusts_counter() noexcept {
  char name[16] = {};
  std::FILE* file = std::fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
  if (file == nullptr) return false;
  const bool trusted = std::fgets(name, sizeof name, file) != nullptr && std::strncmp(name, "tsc\n", 4) == 0;
  std::fclose(file);
  return trusted;
}

__extension__ using Wide = unsigned __int128;

struct Bearings {
  std::uint64_t first_tick = 0;  // where the measurement of the rate began; 0: not yet
  std::uint64_t first_ns = 0;
  std::uint64_t tick = 0;  // last bearings
  std::uint64_t ns = 0;
  std::uint64_t rate = 0;  // 0: unknown, ask the kernel
  std::uint64_t last_ns = 0;
};

thread_local Bearings bearings;

std::uint64_t take_bearings(Bearings& at) noexcept {
  static const bool trusted = kernel_trusts_counter();
  // The two reads belong together: of a few pairs, the one with the least between them.
  std::uint64_t best_tick = 0;
  std::uint64_t best_ns = 0;
  std::uint64_t best_gap = ~std::uint64_t{0};
  for (int i = 0; i < (trusted ? 3 : 1); ++i) {
    const std::uint64_t before = __rdtsc();
    const std::uint64_t ns = kernel_ns();
    const std::uint64_t gap = __rdtsc() - before;
    if (gap < best_gap) {
      best_gap = gap;
      best_tick = before + gap / 2;
      best_ns = ns;
    }
  }
  at.last_ns = std::max(at.last_ns, best_ns);
  if (!trusted) return at.last_ns;
  if (at.first_tick == 0) {
    at.first_tick = best_tick;
    at.first_ns = best_ns;
  }
  const std::uint64_t ticks = best_tick - at.first_tick;
  const std::uint64_t ns = best_ns - at.first_ns;
  if (ns >= baseline_ns) at.rate = static_cast<std::uint64_t>((static_cast<Wide>(ns) << rate_shift) / ticks);
  at.tick = best_tick;
  at.ns = best_ns;
  return at.last_ns;
}

#endif

}  // namespace

std::uint64_t monotonic_ns() noexcept {
#if defined(__x86_64__)
  Bearings& at = bearings;
  if (at.rate != 0) {
    const auto since = static_cast<std::uint64_t>(static_cast<Wide>(__rdtsc() - at.tick) * at.rate >> rate_shift);
    if (since < new_bearings_ns) {
      // A counter read a moment before the bearings, or a corrected rate, must not take time back.
      at.last_ns = std::max(at.last_ns, at.ns + since);
      return at.last_ns;
    }
  } else if (at.first_tick != 0) {
    const std::uint64_t now = kernel_ns();
    if (now - at.first_ns < baseline_ns) return at.last_ns = std::max(at.last_ns, now);
  }
  return take_bearings(at);
#else
  return kernel_ns();
#endif
}

}  // namespace ackring::shm
