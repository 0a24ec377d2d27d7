// Latency histograms: which times are in which bucket, and what can be said of many of them.
#include "lib/shm/latency.hpp"
#include "lib/client/latency_writer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

using namespace ackring;

namespace {

constexpr std::uint64_t last_floor = shm::latency_floor(shm::latency_buckets - 1);

shm::LatencyCounts counts_of(const std::vector<std::uint64_t>& times) {
  const auto histogram = std::make_unique<shm::LatencyHistogram>();
  for (const std::uint64_t ns : times) client::add_latency(*histogram, ns, 1);
  shm::LatencyCounts counts{};
  shm::accumulate(counts, *histogram);
  return counts;
}

}  // namespace

TEST_CASE("a bucket begins at its floor and ends before the next one's, at most an eighth later") {
  for (std::size_t bucket = 0; bucket < shm::latency_buckets; ++bucket) {
    CAPTURE(bucket);
    const std::uint64_t floor = shm::latency_floor(bucket);
    const std::uint64_t end = shm::latency_floor(bucket + 1);
    CHECK(shm::latency_bucket(floor) == bucket);
    CHECK(end > floor);
    CHECK(shm::latency_bucket(end - 1) == bucket);
    if (bucket >= 8) CHECK((end - floor) * 8 <= floor);
  }
  CHECK(shm::latency_floor(0) == 0);
  CHECK(shm::latency_bucket(last_floor * 2) == shm::latency_buckets - 1);
  CHECK(shm::latency_bucket(~std::uint64_t{0}) == shm::latency_buckets - 1);
}

TEST_CASE("longer times are in no earlier bucket") {
  std::mt19937_64 random(7);
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t one = random() >> random() % 64;
    const std::uint64_t other = random() >> random() % 64;
    if (shm::latency_bucket(std::min(one, other)) <= shm::latency_bucket(std::max(one, other))) continue;
    FAIL(one << " and " << other);
  }
}

TEST_CASE("quantiles are those of the exact times, at most an eighth more, and never beyond the longest") {
  for (const std::uint64_t seed : {1, 2, 3}) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    std::vector<std::uint64_t> times(20'000);
    for (std::uint64_t& ns : times) ns = random() >> (30 + random() % 30);  // up to 17 s
    const shm::LatencyCounts counts = counts_of(times);
    std::sort(times.begin(), times.end());
    CHECK(shm::count_of(counts) == times.size());
    CHECK(counts.max_ns == times.back());
    for (const double fraction : {0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999}) {
      CAPTURE(fraction);
      const auto place = static_cast<std::size_t>(fraction * static_cast<double>(times.size()));
      const std::uint64_t exact = times[place];
      const std::uint64_t said = shm::quantile(counts, fraction);
      CHECK(said >= exact);
      CHECK(said <= exact + std::max<std::uint64_t>(exact / 8, 31));
    }
  }
}

TEST_CASE("of times beyond the last bucket's floor, no quantile promises less than the longest") {
  const std::uint64_t hour = 3'600'000'000'000;
  const shm::LatencyCounts counts = counts_of({1000, hour});
  CHECK(shm::quantile(counts, 0.99) == hour);
  CHECK(shm::quantile(counts, 0.0) < 1200);
  CHECK(shm::quantile(shm::LatencyCounts{}, 0.5) == 0);
}
