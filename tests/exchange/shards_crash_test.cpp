// Both shards of a bus die at every point of a scenario, and again in the recovery. The bus is recovered with as many shards,
// with fewer and with more. shards_partial_crash_test.cpp: one dies before the other.
#include "tests/exchange/shards_scenario.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

unsigned long long printed(std::uint64_t number) { return number; }

// The bus that this death leaves is recovered with this many shards.
std::size_t shards_after(std::uint64_t n) { return n % 5 == 1 ? 1 : n % 5 == 3 ? 4 : 2; }

std::uint64_t points_of(bool letters) {
  KillHook count;
  ShardsScenario scenario(count, 2, letters);
  REQUIRE(scenario.run() == 0);
  return count.points;
}

// At every `stride`-th point; with a second death in the recovery of every ninth of them, and of others that divide the bus.
void die_at(bool letters, std::uint64_t stride) {
  const Depth depth;
  const std::uint64_t points = points_of(letters);
  if (depth.deep) stride = 1;
  stride *= depth.stride();
  std::uint64_t reached = 0;
  std::uint64_t turn = 0;
  Pairs pairs;
  Pairs divided;
  Pairs spoilt[2];
  for (std::uint64_t n = depth.first(); n < points; n += stride) {
    CAPTURE(n);
    CAPTURE(letters);
    KillHook hook;
    hook.die_before = n;
    ShardsScenario scenario(hook, shards_after(n), letters);
    scenario.on_death([&](const shm::MemoryDirectory& dead) {
      const bool all = depth.deep || depth.point != nullptr;
      ++turn;
      if (all || turn % 19 == 0) die_in_recovery(dead, all, turn / 19 * 7, pairs, {}, {}, 2);
      if (all || turn % 19 == 9) die_in_recovery(dead, all, turn / 19 * 7, divided, {}, {}, turn % 2 == 0 ? 1 : 4);
      if (turn % 19 == 4) {
        const std::size_t shard = turn / 19 % 2;
        die_in_recovery(
            dead, false, 0, spoilt[shard], {}, [&](auto& copy) { skip_redo_of(copy, shard); }, 2);
      }
    });
    if (scenario.run() > 0) ++reached;
    if (depth.point != nullptr) break;
  }
  std::printf(
      "two shards%s: points %llu of %llu; pairs %llu, and %llu while the bus is divided; longest recovery %llu; "
      "spoilt %llu of %llu and %llu of %llu\n",
      letters ? ", dead letters" : "", printed(reached), printed(points), printed(pairs.played),
      printed(divided.played), printed(divided.most), printed(spoilt[0].different), printed(spoilt[0].played),
      printed(spoilt[1].different), printed(spoilt[1].played));
  if (depth.point != nullptr) return;
  CHECK(reached == (points - 1) / stride + 1);
  if (stride != 1) return;
  for (const Pairs& some : spoilt) CHECK(some.different > some.played / 50);
}

}  // namespace

TEST_CASE("both shards may die at any point, and again in the recovery: the books are exact") { die_at(false, 1); }

// Longer, and slower: a ring of four megabytes.
TEST_CASE("… and while dead letters are published") { die_at(true, 11); }

TEST_CASE("a bus may die at any point of the recovery in which it is divided") {
  const Depth depth;
  if (depth.point != nullptr || depth.stride() != 1) return;
  const std::uint64_t points = points_of(false);
  Pairs pairs;
  std::uint64_t turn = 0;
  for (std::uint64_t n = 17; n < points; n += points / 9) {
    const std::size_t shards = ++turn % 3 == 0 ? 2 : turn % 3 == 1 ? 1 : 4;
    CAPTURE(n);
    CAPTURE(shards);
    KillHook hook;
    hook.die_before = n;
    ShardsScenario scenario(hook, shards, false);
    scenario.on_death([&](const auto& dead) { die_in_recovery(dead, true, 0, pairs, {}, {}, shards); });
    CHECK(scenario.run() > 0);
  }
  std::printf("divided: pairs %llu of %llu\n", printed(pairs.played), printed(pairs.possible));
}
