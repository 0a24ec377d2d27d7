#include "lib/shm/clock.hpp"

#include <time.h>

#include <cstdio>
#include <cstring>

#if defined(__x86_64__)
#include <x86intrin.h>

#include "lib/shm/tick_clock.hpp"
#endif

namespace ackring::shm {

namespace {

std::uint64_t kernel_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail: the clock exists and the pointer is ours
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

#if defined(__x86_64__)

// The kernel uses the counter for its own clocks only after it has found it constant and in step on all cores.
bool kernel_trusts_counter() noexcept {
  char name[16] = {};
  std::FILE* file = std::fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
  if (file == nullptr) return false;
  const bool trusted = std::fgets(name, sizeof name, file) != nullptr && std::strncmp(name, "tsc\n", 4) == 0;
  std::fclose(file);
  return trusted;
}

thread_local TickClock ticks;

std::uint64_t take_bearings(TickClock& clock) noexcept {
  // The two reads belong together: of a few pairs, the one with the least between them.
  std::uint64_t best_tick = 0;
  std::uint64_t best_ns = 0;
  std::uint64_t best_gap = ~std::uint64_t{0};
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t before = __rdtsc();
    const std::uint64_t ns = kernel_ns();
    const std::uint64_t gap = __rdtsc() - before;
    if (gap < best_gap) {
      best_gap = gap;
      best_tick = before + gap / 2;
      best_ns = ns;
    }
  }
  return clock.take(best_tick, best_ns);
}

#endif

}  // namespace

std::uint64_t monotonic_ns() noexcept {
#if defined(__x86_64__)
  TickClock& clock = ticks;
  std::uint64_t ns = 0;
  if (clock.read(__rdtsc(), ns)) return ns;
  static const bool trusted = kernel_trusts_counter();
  ns = kernel_ns();
  return trusted && clock.wants_bearings(ns) ? take_bearings(clock) : clock.take(ns);
#else
  return kernel_ns();
#endif
}

}  // namespace ackring::shm
