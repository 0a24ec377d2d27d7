// The counter of a CPU and the clock of a kernel, as machines let them go, and what TickClock makes of them.
#include <doctest/doctest.h>

#include <cstdint>
#include <random>

#include "lib/shm/tick_clock.hpp"

using ackring::shm::TickClock;

namespace {

constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t second = 1'000 * ms;
// A suspend that is too short to be told from slewing, in the rate of the second that follows.
constexpr std::int64_t behind = 1'200'000;

struct Machine {
  double ghz = 2.4;
  double tick = 1e12;
  std::uint64_t kernel_ns = 5'000 * second;
  TickClock clock;
  std::uint64_t bearings = 0;
  std::uint64_t last = 0;

  void run(std::uint64_t ns) {
    kernel_ns += ns;
    tick += static_cast<double>(ns) * ghz;
  }
  // As monotonic_ns() does it. Never backwards, whatever happens.
  std::uint64_t now() {
    std::uint64_t ns = 0;
    if (!clock.read(static_cast<std::uint64_t>(tick), ns)) {
      const bool wanted = clock.wants_bearings(kernel_ns);
      bearings += wanted ? 1 : 0;
      ns = wanted ? clock.take(static_cast<std::uint64_t>(tick), kernel_ns) : clock.take(kernel_ns);
    }
    CHECK(ns >= last);
    return last = ns;
  }
  // How far the answer is from the kernel's.
  std::int64_t error() { return static_cast<std::int64_t>(now() - kernel_ns); }
  // Looks each millisecond; the largest error in either direction.
  std::int64_t watch(std::uint64_t for_ns) {
    std::int64_t worst = 0;
    for (std::uint64_t past = 0; past < for_ns; past += ms) {
      run(ms);
      const std::int64_t one = error();
      if (std::abs(one) > std::abs(worst)) worst = one;
    }
    return worst;
  }
  [[nodiscard]] bool uses_counter() {
    std::uint64_t ns = 0;
    return clock.read(static_cast<std::uint64_t>(tick), ns);
  }
};

}  // namespace

TEST_CASE("the counter tells the kernel's time, and asks the kernel once a second") {
  Machine machine;
  CHECK(std::abs(machine.watch(second)) <= 1);
  CHECK(machine.uses_counter());
  machine.bearings = 0;
  CHECK(std::abs(machine.watch(60 * second)) <= 1'000);
  CHECK(machine.bearings >= 55);
  CHECK(machine.bearings <= 61);
}

TEST_CASE("a kernel clock that is slewed is followed") {
  Machine machine;
  machine.watch(2 * second);
  machine.ghz *= 1.0005;  // as if the kernel's second were longer by as much as it may be
  machine.watch(2 * second);
  CHECK(machine.uses_counter());
  CHECK(std::abs(machine.watch(10 * second)) <= 1'000);
}

TEST_CASE("a suspend: CLOCK_MONOTONIC stands still, the counter goes on, stands still, or begins anew (F17)") {
  for (const std::uint64_t asleep_ns : {100 * second, 3'600 * second, 1'000'000 * second}) {
    for (int kind = 0; kind < 4; ++kind) {
      CAPTURE(asleep_ns);
      CAPTURE(kind);
      Machine machine;
      machine.watch(10 * second);
      REQUIRE(machine.uses_counter());
      if (kind == 0) machine.tick += static_cast<double>(asleep_ns) * machine.ghz;
      if (kind == 2) machine.tick = 1'000;
      if (kind == 3) machine.tick += 7.3e17;  // firmware leaves anything
      CHECK(std::abs(machine.error()) <= 1'000);
      CHECK(std::abs(machine.watch(10 * second)) <= 1'000);
      CHECK(machine.uses_counter());
    }
  }
}

TEST_CASE("a short suspend in which the counter goes on: ahead by no more than it was, and for a second at most") {
  for (const std::uint64_t asleep_ns : {1 * ms, 50 * ms, 400 * ms, 900 * ms}) {
    CAPTURE(asleep_ns);
    Machine machine;
    machine.watch(10 * second + 37 * ms);
    machine.tick += static_cast<double>(asleep_ns) * machine.ghz;
    const std::int64_t ahead = machine.watch(2 * second);
    CHECK(ahead >= -behind);
    CHECK(ahead <= static_cast<std::int64_t>(asleep_ns) + 1'000);
    CHECK(std::abs(machine.watch(10 * second)) <= 1'000);
    CHECK(machine.uses_counter());
  }
}

TEST_CASE("a suspend while the rate is being measured is measured again, not believed") {
  for (std::uint64_t before_ns = 0; before_ns <= 400 * ms; before_ns += 10 * ms) {
    for (const std::uint64_t asleep_ns : {30 * ms, 3'600 * second}) {
      CAPTURE(before_ns);
      CAPTURE(asleep_ns);
      Machine machine;
      machine.watch(before_ns);
      machine.tick += static_cast<double>(asleep_ns) * machine.ghz;
      const std::int64_t worst = machine.watch(2 * second);
      CHECK(worst >= -1'000);
      CHECK(worst <= static_cast<std::int64_t>(std::min(asleep_ns, second)) + 1'000);
      CHECK(std::abs(machine.watch(10 * second)) <= 1'000);
    }
  }
}

TEST_CASE("looks at any intervals, suspends at any moment: never a second ahead, never more than a little behind") {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    Machine machine;
    machine.ghz = 1.0 + static_cast<double>(random() % 4'000) / 1'000;
    for (int i = 0; i < 2'000; ++i) {
      machine.run(random() % (std::uint64_t{1} << (10 + random() % 24)));
      if (random() % 100 == 0)
        machine.tick += static_cast<double>(random() % (std::uint64_t{1} << (20 + random() % 30)));
      const std::int64_t error = machine.error();
      CHECK(error >= -behind);
      CHECK(error <= static_cast<std::int64_t>(second));
    }
  }
}
