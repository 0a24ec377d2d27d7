#include "lib/shm/backoff.hpp"

#include <doctest/doctest.h>

using namespace ackring::shm;

namespace {

using Step = Backoff::Step;

constexpr std::uint64_t us = 1'000;
constexpr std::uint64_t short_ns = us / 2;  // a yield for nobody
constexpr std::uint64_t long_ns = 20 * us;  // one that let another thread run
constexpr std::uint64_t most_ns = 150 * us;
constexpr std::uint32_t spins = 10;

// Waits by a clock of its own.
struct Waiter {
  Backoff backoff;
  std::uint64_t now_ns = 1'000 * us;

  std::uint32_t spin() {
    std::uint32_t rounds = 0;
    for (; backoff.next() == Step::spin; ++rounds) backoff.spun();
    return rounds;
  }
  // Until it parks; how long it has yielded.
  std::uint64_t yield(std::uint64_t each_ns = short_ns) {
    backoff.slow_down(now_ns);
    const std::uint64_t start_ns = now_ns;
    while (backoff.next() == Step::yield) yield_once(each_ns);
    REQUIRE(backoff.next() == Step::park);
    return now_ns - start_ns;
  }
  void yield_once(std::uint64_t took_ns) {
    const std::uint64_t before_ns = now_ns;
    now_ns += took_ns;
    backoff.yielded(before_ns, now_ns);
  }
  // A wait of this length, spins excepted; how long of it was yielded.
  std::uint64_t wait(std::uint64_t ns) {
    (void)spin();
    backoff.slow_down(now_ns);
    const std::uint64_t end_ns = now_ns + ns;
    std::uint64_t yielded_ns = 0;
    for (; now_ns < end_ns && backoff.next() == Step::yield; yielded_ns += short_ns) yield_once(short_ns);
    if (now_ns < end_ns) backoff.woke(now_ns = end_ns);
    backoff.found();
    return yielded_ns;
  }
};

Waiter adaptive(bool only_core = false) {
  return {Backoff({.spins = spins, .most_yield_ns = most_ns, .only_core = only_core})};
}

}  // namespace

TEST_CASE("a wait spins, yields, then parks until there is work") {
  Waiter waiter = adaptive();
  for (int i = 0; i < 2; ++i) {
    CHECK(waiter.spin() == spins);
    CHECK_FALSE(waiter.backoff.slow());
    CHECK(waiter.yield() == most_ns);
    CHECK(waiter.backoff.slow());
    waiter.backoff.woke(waiter.now_ns);
    CHECK(waiter.backoff.next() == Step::park);  // woken for something else
    waiter.backoff.found();
  }
}

TEST_CASE("who is to park at once does, who is to spin never stops") {
  Backoff park(ackring::Wait::park);
  for (int i = 0; i < 3; ++i) CHECK(park.wait() == Step::park);
  park.woke(5);
  park.found();
  CHECK(park.wait() == Step::park);
  CHECK(park.window_ns() == 0);
  Backoff spin(ackring::Wait::spin);
  for (int i = 0; i < 100'000; ++i) REQUIRE(spin.wait() == Step::spin);
  Backoff few({.spins = 100});
  for (int i = 0; i < 100; ++i) CHECK(few.wait() == Step::spin);
  CHECK(few.wait() == Step::park);
}

TEST_CASE("the real clock and the real yield end in parking") {
  Backoff backoff(ackring::Wait::adaptive);
  std::uint64_t rounds = 0;
  while (backoff.wait() != Step::park) REQUIRE(++rounds < 1'000'000);
  CHECK(backoff.slow());
}

TEST_CASE("waits that take longer than looking may make it park at once, those that don't let it look again") {
  Waiter waiter = adaptive();
  std::uint64_t yielded_ns = most_ns;
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t now_ns = waiter.wait(1'000 * us);
    CHECK((i == 0 ? now_ns == most_ns : now_ns < yielded_ns));
    yielded_ns = now_ns;
  }
  CHECK(waiter.wait(1'000 * us) == 0);
  CHECK(waiter.backoff.window_ns() == 0);
  CHECK(waiter.spin() == spins);  // what comes at once is still met awake
  waiter.backoff.found();

  CHECK(waiter.wait(40 * us) == 0);
  CHECK(waiter.backoff.window_ns() == 80 * us);
  CHECK(waiter.wait(50 * us) == 50 * us);
  CHECK(waiter.wait(10 * us) == 10 * us);
  CHECK(waiter.backoff.window_ns() == 100 * us);  // a shorter one is no reason to look shorter
  CHECK(waiter.wait(most_ns) == 100 * us);
  CHECK(waiter.backoff.window_ns() == most_ns);
  CHECK(waiter.wait(most_ns + us) == most_ns);
  CHECK(waiter.backoff.window_ns() == most_ns / 2);
}

TEST_CASE("a sleep that was none takes no time") {
  Waiter waiter = adaptive();
  CHECK(waiter.wait(1'000 * us) == most_ns);
  (void)waiter.spin();
  (void)waiter.yield();
  waiter.backoff.woke(waiter.now_ns - most_ns - us);
  waiter.backoff.found();
  CHECK(waiter.backoff.window_ns() == most_ns);  // it took what it yielded: long, but not too long
}

TEST_CASE("what came while it spun says nothing about waits") {
  Waiter waiter = adaptive();
  (void)waiter.wait(1'000 * us);
  for (int i = 0; i < 10; ++i) {
    waiter.backoff.spun();
    waiter.backoff.found();
  }
  CHECK(waiter.backoff.window_ns() == most_ns / 2);
}

TEST_CASE("a wait that is given up was in vain, however short") {
  Waiter waiter = adaptive();
  (void)waiter.spin();
  waiter.backoff.slow_down(waiter.now_ns);
  waiter.yield_once(short_ns);
  waiter.backoff.gave_up();
  CHECK(waiter.backoff.window_ns() == most_ns / 2);
  CHECK(waiter.spin() == spins);
  waiter.backoff.gave_up();  // it was asked for less than its spins
  CHECK(waiter.backoff.window_ns() == most_ns / 2);
  CHECK(waiter.spin() == spins);
}

TEST_CASE("on a core that others need it parks after some yields, and does not spin the next time") {
  Waiter waiter = adaptive();
  CHECK(waiter.spin() == spins);
  CHECK(waiter.yield(long_ns) == 10 * long_ns);
  waiter.backoff.found();
  CHECK(waiter.backoff.window_ns() == most_ns);  // others had the time: none was wasted on looking
  CHECK(waiter.spin() == 0);

  // Yields that bring something are the way to share a core: it goes on by them, without spins between.
  for (int i = 0; i < 20; ++i) {
    waiter.backoff.slow_down(waiter.now_ns);
    waiter.yield_once(2'000 * us);
    CHECK(waiter.backoff.next() == Step::yield);
    waiter.backoff.found();
    CHECK(waiter.backoff.window_ns() == most_ns);
    CHECK(waiter.spin() == 0);
  }

  // Nobody else any more.
  waiter.backoff.slow_down(waiter.now_ns);
  waiter.yield_once(short_ns);
  waiter.backoff.found();
  CHECK(waiter.spin() == spins);
}

TEST_CASE("yields that let others run count within one wait, and not against its time") {
  Waiter waiter = adaptive();
  (void)waiter.spin();
  waiter.backoff.slow_down(waiter.now_ns);
  for (int i = 0; i < 9; ++i) waiter.yield_once(long_ns);
  const std::uint64_t start_ns = waiter.now_ns;
  while (waiter.backoff.next() == Step::yield) waiter.yield_once(short_ns);
  CHECK(waiter.now_ns - start_ns == most_ns);
  waiter.backoff.found();
  waiter.backoff.slow_down(waiter.now_ns);
  for (int i = 0; i < 9; ++i) waiter.yield_once(long_ns);
  waiter.yield_once(short_ns);
  CHECK(waiter.backoff.next() == Step::yield);
  waiter.yield_once(long_ns);
  CHECK(waiter.backoff.next() == Step::park);
}

TEST_CASE("where yields went to somebody who kept the core, it sleeps at once for many waits, if it is to give way") {
  for (const bool gives_way : {true, false}) {
    Waiter waiter{Backoff({.spins = spins, .most_yield_ns = most_ns, .gives_way = gives_way})};
    const auto wait_for_slice = [&waiter](std::uint64_t ns) {
      (void)waiter.spin();
      waiter.backoff.slow_down(waiter.now_ns);
      waiter.yield_once(ns);
      const Step next = waiter.backoff.next();
      waiter.backoff.found();
      return next;
    };
    // One alone may have been a core that the hypervisor took away.
    CHECK(wait_for_slice(2'500 * us) == Step::yield);
    for (int i = 0; i < 16; ++i) CHECK(wait_for_slice(i % 2 == 0 ? short_ns : long_ns) == Step::yield);
    CHECK(wait_for_slice(2'500 * us) == Step::yield);
    for (int i = 0; i < 15; ++i) CHECK(wait_for_slice(short_ns) == Step::yield);
    CHECK(wait_for_slice(2'500 * us) == (gives_way ? Step::park : Step::yield));
    if (!gives_way) continue;
    for (int i = 0; i < 1'000; ++i) {
      REQUIRE(waiter.spin() == 0);
      REQUIRE(waiter.backoff.next() == Step::park);
      REQUIRE(waiter.wait(20 * us) == 0);
    }
    CHECK(waiter.spin() == spins);
    CHECK(waiter.wait(20 * us) == 20 * us);
  }
}

TEST_CASE("a gap in a stream does not make it look shorter, one between single events does") {
  Waiter waiter = adaptive();
  const auto stream = [&waiter](int events) {
    for (int i = 0; i < events; ++i) {
      waiter.backoff.spun();
      waiter.backoff.found();
    }
  };
  for (int i = 0; i < 10; ++i) {
    stream(16);
    CHECK(waiter.wait(1'000 * us) == most_ns);
  }
  stream(15);
  CHECK(waiter.wait(1'000 * us) == most_ns);
  CHECK(waiter.backoff.window_ns() == most_ns / 2);
  stream(1);  // those before are past
  CHECK(waiter.wait(1'000 * us) == most_ns / 2);
  stream(16);
  CHECK(waiter.wait(1'000 * us) == most_ns / 4);
  CHECK(waiter.backoff.window_ns() == most_ns);  // a stream has begun meanwhile
}

TEST_CASE("on the only core it yields at once, and parks where nobody is there to yield to") {
  Waiter waiter = adaptive(true);
  CHECK(waiter.spin() == 0);
  waiter.backoff.slow_down(waiter.now_ns);
  CHECK(waiter.backoff.next() == Step::yield);
  waiter.yield_once(long_ns);
  CHECK(waiter.backoff.next() == Step::yield);
  waiter.yield_once(short_ns);
  CHECK(waiter.backoff.next() == Step::park);
  waiter.backoff.found();
  waiter.backoff.slow_down(waiter.now_ns);
  CHECK(waiter.backoff.next() == Step::yield);
  const Backoff spin({.spins = Backoff::endless, .only_core = true});
  CHECK(spin.next() == Step::spin);  // who asks for it gets it
}
