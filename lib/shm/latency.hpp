// Latency histograms: log-linear buckets, as HdrHistogram's (Tene, 2012), of a fixed range: what is below 256 ns in steps of
// 32 ns, then eight buckets per power of two up to 7 min 27 s, from where on the last one has all. A bucket is at most an
// eighth as wide as its times are long, but for the last.
//
// Thread rules: plain functions; accumulate() from anywhere.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "lib/shm/format.hpp"

namespace ackring::shm {

namespace latency {
inline constexpr unsigned step_bits = 5;  // of the linear part
inline constexpr unsigned sub_bits = 3;   // buckets per power of two
inline constexpr unsigned first_octave = step_bits + sub_bits;
}  // namespace latency

/// The bucket of a time in nanoseconds.
constexpr std::size_t latency_bucket(std::uint64_t ns) noexcept {
  if (ns < std::uint64_t{1} << latency::first_octave) return static_cast<std::size_t>(ns >> latency::step_bits);
  const auto octave = static_cast<unsigned>(std::bit_width(ns)) - 1;
  const auto sub = static_cast<std::size_t>(ns >> (octave - latency::sub_bits)) & ((1u << latency::sub_bits) - 1);
  const std::size_t bucket = ((octave - latency::first_octave + 1) << latency::sub_bits) + sub;
  return std::min(bucket, latency_buckets - 1);
}

/// The shortest time of a bucket; of `latency_buckets`: where the last one would end.
constexpr std::uint64_t latency_floor(std::size_t bucket) noexcept {
  if (bucket < std::size_t{1} << latency::sub_bits) return std::uint64_t{bucket} << latency::step_bits;
  const std::size_t octave = (bucket >> latency::sub_bits) - 1 + latency::first_octave;
  const std::uint64_t sub = bucket & ((1u << latency::sub_bits) - 1);
  return ((std::uint64_t{1} << latency::sub_bits) + sub) << (octave - latency::sub_bits);
}

static_assert(latency_bucket(255) == 7 && latency_bucket(256) == 8 && latency_floor(8) == 256);
static_assert(latency_floor(latency_bucket(1'000'000)) <= 1'000'000 &&
              latency_floor(latency_bucket(1'000'000) + 1) > 1'000'000);

/// Adds what another process has counted so far. It may have written anything: the sums are numbers, nothing more.
inline void accumulate(LatencyCounts& into, const LatencyHistogram& from) noexcept {
  // relaxed, to the end: numbers for people, which order nothing
  for (std::size_t i = 0; i < latency_buckets; ++i) {
    into.counts[i] += from.counts[i].load(std::memory_order_relaxed);
  }
  into.sum_ns += from.sum_ns.load(std::memory_order_relaxed);
  into.max_ns = std::max(into.max_ns, from.max_ns.load(std::memory_order_relaxed));
}

/// Events counted.
constexpr std::uint64_t count_of(const LatencyCounts& counts) noexcept {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : counts.counts) sum += count;
  return sum;
}

/// The time that `fraction` (0 to 1) of the events did not exceed: the end of its bucket, and no more than the longest; the
/// longest, if it is in the last bucket. 0: nothing was counted.
constexpr std::uint64_t quantile(const LatencyCounts& counts, double fraction) noexcept {
  const std::uint64_t all = count_of(counts);
  if (all == 0) return 0;
  const auto wanted = static_cast<std::uint64_t>(fraction * static_cast<double>(all));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < latency_buckets - 1; ++i) {
    seen += counts.counts[i];
    if (seen > wanted || seen == all) return std::min(latency_floor(i + 1) - 1, counts.max_ns);
  }
  return counts.max_ns;
}

}  // namespace ackring::shm
