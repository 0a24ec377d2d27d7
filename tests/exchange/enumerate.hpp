// Every shared store of a scenario as a point to die at, and pairs of such points with the second one in the recovery.
// A Scenario is made from the hook of its exchange; run() answers how often that died; die_again() sets the hook under which
// it recovers.
//
// ACKRING_POINT=N plays one point, ACKRING_DEEP=1 all pairs.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/exchange/kill_hook.hpp"

namespace ackring::test {

template <class Scenario>
std::uint64_t stores_of() {
  KillHook count;
  Scenario scenario(count);
  REQUIRE(scenario.run() == 0);
  return count.stores;
}

template <class Scenario>
void die_at_every_store(const char* what) {
  const std::uint64_t points = stores_of<Scenario>();
  REQUIRE(points > 1000);
  const char* from = std::getenv("ACKRING_POINT");
  std::uint64_t reached = 0;
  for (std::uint64_t n = from != nullptr ? std::strtoull(from, nullptr, 10) : 0; n < points; ++n) {
    CAPTURE(n);
    KillHook hook;
    hook.die_before = n;
    Scenario scenario(hook);
    if (scenario.run() > 0) ++reached;
    if (from != nullptr) break;
  }
  std::printf("crash points%s covered: %llu of %llu\n", what, static_cast<unsigned long long>(reached),
              static_cast<unsigned long long>(points));
  if (from == nullptr) CHECK(reached == points);
}

/// Every `first_stride`-th store, and every `second_stride`-th one of the recovery after it.
template <class Scenario>
void die_again_in_recovery(const char* what, std::uint64_t first_stride, std::uint64_t second_stride) {
  const std::uint64_t points = stores_of<Scenario>();
  const bool deep = std::getenv("ACKRING_DEEP") != nullptr;
  std::uint64_t pairs = 0;
  for (std::uint64_t n = 0; n < points; n += deep ? 1 : first_stride) {
    for (std::uint64_t m = 0;; m += deep ? 1 : second_stride) {
      CAPTURE(n);
      CAPTURE(m);
      KillHook first;
      first.die_before = n;
      KillHook second;
      second.die_before = m;
      Scenario scenario(first);
      scenario.die_again(&second);
      if (scenario.run() < 2) break;  // recovery has fewer than m stores
      ++pairs;
    }
  }
  std::printf("pairs of crash points%s covered: %llu\n", what, static_cast<unsigned long long>(pairs));
  CHECK(pairs > 100);
}

}  // namespace ackring::test
