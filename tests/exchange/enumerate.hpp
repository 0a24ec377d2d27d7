// Every shared store and file call of a scenario as a point to die at, and pairs of such points with the second
// one in the recovery.
//
// A Scenario is made from the hook of its exchange; run() answers how often that died. It shows what a death left, before
// the recovery, to on_death(); the pairs are played there, on copies of the bus: a second death anywhere in the recovery,
// and a recovery after that, have to come to the same bus as the recovery that nothing disturbs. What follows from that
// bus is what run() goes on with, to the exact books. So a pair costs two recoveries, and not a run of the scenario.
//
// ACKRING_POINT=N plays one point, with all its pairs; ACKRING_DEEP=1 all pairs of all points; ACKRING_STRIDE=N every N-th
// point only, for a quick look.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>

#include "tests/exchange/bus_digest.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/kill_hook.hpp"

namespace ackring::test {

using OnDeath = std::function<void(const shm::MemoryDirectory&)>;

/// What the environment asks of an enumeration.
struct Depth {
  const char* point = std::getenv("ACKRING_POINT");
  bool deep = std::getenv("ACKRING_DEEP") != nullptr;
  const char* every = std::getenv("ACKRING_STRIDE");
  [[nodiscard]] std::uint64_t stride() const { return every != nullptr ? std::strtoull(every, nullptr, 10) : 1; }
  [[nodiscard]] std::uint64_t first() const { return point != nullptr ? std::strtoull(point, nullptr, 10) : 0; }
};

struct Pairs {
  std::uint64_t played = 0;
  std::uint64_t possible = 0;   // of the points at which some were played
  std::uint64_t most = 0;       // points of the longest recovery
  std::uint64_t different = 0;  // pairs that came to another bus
};

/// Recovers copies of `dead` with a death in the recovery: at each of its points, or only at the one that `turn` chooses.
/// `spoil` may change a copy before it is recovered; `access` are the rules that the exchanges which recover hold clients to;
/// `shards`: into how many they divide the bus, 0: as it is.
inline void die_in_recovery(const shm::MemoryDirectory& dead, bool all, std::uint64_t turn, Pairs& pairs,
                            const control::AccessRules& access = {},
                            const std::function<void(shm::MemoryDirectory&)>& spoil = {}, std::size_t shards = 0) {
  const auto recover = [&](shm::MemoryDirectory& directory) {
    return shards == 0 ? std::make_unique<exchange::Exchange>(directory, access)
                       : exchange::Exchange::open(directory, access, shards);
  };
  const std::uint64_t now_ns = 1;
  KillHook count;
  count.clock = &now_ns;
  count.virtual_time = true;
  std::string undisturbed;
  {
    const auto copy = dead.clone();
    shm::Environment::hook = &count;
    const auto x = recover(*copy);
    shm::Environment::hook = nullptr;
    undisturbed = bus_digest(*x, *copy);
  }
  pairs.possible += count.points;
  pairs.most = std::max(pairs.most, count.points);
  const std::uint64_t first = all ? 0 : turn % count.points;
  for (std::uint64_t m = first; m < (all ? count.points : first + 1); ++m) {
    CAPTURE(m);
    KillHook hook;
    hook.clock = &now_ns;
    hook.virtual_time = true;
    hook.die_before = m;
    const auto copy = dead.clone();
    if (spoil) spoil(*copy);
    bool died = false;
    try {
      shm::Environment::hook = &hook;
      (void)recover(*copy);
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      died = true;
    }
    REQUIRE(died);
    ++pairs.played;
    if (shards != 0 && !spoil) check_sound(*copy);
    const auto x = recover(*copy);
    if (!spoil) check_found_sound(*x);
    const std::string digest = bus_digest(*x, *copy);
    if (digest == undisturbed) continue;
    ++pairs.different;
    if (!spoil) CHECK(difference(undisturbed, digest) == "");
  }
}

/// A redo that does nothing: the open transaction of a dead bus says that it needs none. The enumeration has to see that.
inline void skip_redo_of(shm::MemoryDirectory& dead, std::size_t shard) {
  const auto segment = shm::Segment::attach(dead, "exchange", shm::SegmentKind::exchange, shm::Access::read_write);
  for (shm::Intent& intent : segment.as<shm::ExchangeSegment>()->intents[shard]) {
    intent.kind.store(static_cast<std::uint32_t>(shm::TransactionKind::begin_with), std::memory_order_relaxed);
  }
}

inline void skip_redo(shm::MemoryDirectory& dead) { skip_redo_of(dead, 0); }

/// Lets the exchange die at every point of a scenario, and again at one point of the recovery of every `pair_stride`-th.
template <class Scenario>
void die_at_every_point(const char* what, std::uint64_t pair_stride, const control::AccessRules& access = {}) {
  const Depth depth;
  std::uint64_t points = 0;
  {
    KillHook count;
    Scenario scenario(count);
    REQUIRE(scenario.run() == 0);
    points = count.points;
  }
  REQUIRE(points > 1000);
  Pairs pairs;
  Pairs spoilt;
  std::uint64_t reached = 0;
  for (std::uint64_t n = depth.first(); n < points; n += depth.stride()) {
    CAPTURE(n);
    KillHook hook;
    hook.die_before = n;
    Scenario scenario(hook);
    scenario.on_death([&](const shm::MemoryDirectory& dead) {
      const bool all = depth.deep || depth.point != nullptr;
      if (all || n % pair_stride == 0) die_in_recovery(dead, all, n / pair_stride * 7, pairs, access);
      // A prime: the rounds of a scenario are alike, and a step that fits them would see the same few points of each.
      if (n % 31 == 0) die_in_recovery(dead, false, 0, spoilt, access, skip_redo);
    });
    if (scenario.run() > 0) ++reached;
    if (depth.point != nullptr) break;
  }
  std::printf("%s: points %llu of %llu, pairs %llu of %llu; the longest recovery has %llu points\n", what,
              static_cast<unsigned long long>(reached), static_cast<unsigned long long>(points),
              static_cast<unsigned long long>(pairs.played), static_cast<unsigned long long>(pairs.possible),
              static_cast<unsigned long long>(pairs.most));
  if (depth.point != nullptr) return;
  CHECK(reached == (points - 1) / depth.stride() + 1);
  if (depth.stride() != 1) return;
  CHECK(pairs.played > 100);
  // So many recoveries without a redo were caught: a checker that can't fail shows nothing.
  CHECK(spoilt.different > spoilt.played / 50);
}

/// Prints how often each of `expected` was the place of a death in this program, and fails where one never was.
inline void check_named_points(std::initializer_list<shm::CrashPoint> expected) {
  const bool all = Depth().stride() == 1 && Depth().point == nullptr;
  for (const shm::CrashPoint point : expected) {
    const std::uint64_t deaths = deaths_at[static_cast<std::size_t>(point)];
    std::printf("  %-24s %8llu deaths\n", name_of(point), static_cast<unsigned long long>(deaths));
    // What only a redo does is among a sample of the pairs, or not.
    const bool sampled = std::string(name_of(point)).starts_with("redo.") && !Depth().deep;
    if (deaths == 0 && !passed_at[static_cast<std::size_t>(point)])
      std::printf("  %s was not even passed\n", name_of(point));
    CHECK_MESSAGE((!all || sampled || deaths != 0), "nothing died at ", std::string(name_of(point)));
  }
}

}  // namespace ackring::test
