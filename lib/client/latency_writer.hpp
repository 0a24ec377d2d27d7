// The member's side of its latency histograms; shm/latency.hpp reads them.
//
// Thread rules: any thread of the process that owns the histogram.
#pragma once

#include <cstdint>

#include "lib/shm/latency.hpp"

namespace ackring::client {

/// Counts `weight` events that took this long.
inline void add_latency(shm::LatencyHistogram& histogram, std::uint64_t ns, std::uint64_t weight) {
  // relaxed, to the end: numbers for people, which order nothing
  histogram.counts[shm::latency_bucket(ns)].fetch_add(weight, std::memory_order_relaxed);
  histogram.sum_ns.fetch_add(ns * weight, std::memory_order_relaxed);
  histogram.max_ns.raise(ns, std::memory_order_relaxed);
}

}  // namespace ackring::client
