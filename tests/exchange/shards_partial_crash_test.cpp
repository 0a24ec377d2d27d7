// One shard dies, and the other goes on for a while before it dies, too: two open transactions, of which each may have seen
// something of the other. Many points of the one, with many of the other.
#include <array>

#include "tests/exchange/shards_scenario.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

unsigned long long printed(std::uint64_t number) { return number; }

std::size_t shards_after(std::uint64_t n) { return n % 5 == 1 ? 1 : n % 5 == 3 ? 4 : 2; }

// Points of each shard, when none dies.
std::array<std::uint64_t, 2> points_of_each(bool letters) {
  ShardsScenario scenario(Partial{}, 2, letters);
  REQUIRE(scenario.run() == 0);
  return {scenario.points_of(0), scenario.points_of(1)};
}

void die_one_by_one(bool letters, std::uint64_t stride) {
  const Depth depth;
  if (depth.deep) stride = 1;
  stride *= depth.stride();
  const std::array<std::uint64_t, 2> points = points_of_each(letters);
  std::uint64_t played = 0;
  std::uint64_t both = 0;
  Pairs pairs;
  Pairs spoilt[2];
  for (const std::size_t first : {0u, 1u}) {
    for (std::uint64_t at = depth.first(); at < points[first]; at += stride) {
      for (const std::uint64_t then : {at % 7, 3 + at % 41, 50 + at % 211, ~std::uint64_t{0}}) {
        CAPTURE(first);
        CAPTURE(at);
        CAPTURE(then);
        ShardsScenario scenario({first, at, then}, shards_after(++played), letters);
        scenario.on_death([&](const auto& dead) {
          if (played % 11 == 0) die_in_recovery(dead, false, played * 7, pairs, {}, {}, shards_after(played / 11));
          if (played % 13 != 0) return;
          const std::size_t shard = played / 13 % 2;
          die_in_recovery(
              dead, false, 0, spoilt[shard], {}, [&](auto& copy) { skip_redo_of(copy, shard); }, 2);
        });
        CHECK(scenario.run() == 1);
        both += scenario.both_died() ? 1 : 0;
      }
      if (depth.point != nullptr) break;
    }
  }
  std::printf(
      "one by one%s: points %llu and %llu; %llu deaths of one, in %llu of these of both; pairs %llu; spoilt %llu of "
      "%llu and %llu of %llu\n",
      letters ? ", dead letters" : "", printed(points[0]), printed(points[1]), printed(played), printed(both),
      printed(pairs.played), printed(spoilt[0].different), printed(spoilt[0].played), printed(spoilt[1].different),
      printed(spoilt[1].played));
  if (depth.point != nullptr) return;
  CHECK(both > played / 2);
  if (depth.stride() != 1 || letters) return;
  for (const Pairs& some : spoilt) CHECK(some.different > some.played / 50);
}

}  // namespace

// Primes, so that no step of a round is passed over each time.
TEST_CASE("one shard may die at any point, and the other some time later: the books are exact") {
  die_one_by_one(false, 11);
}

TEST_CASE("… and while dead letters are published") { die_one_by_one(true, 43); }
