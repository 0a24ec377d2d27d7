// How long small events wait while another publisher's large ones pass through the exchange.
//
// Thread rules: for a process without threads.
#pragma once

#include <cstdint>
#include <string>

#include "tools/common/histogram.hpp"
#include "tools/shmtool/bench.hpp"

namespace ackring::tools {

struct DelayResult {
  Histogram latency;    // of the small events, from when each was due until it was taken
  double batch_ns = 0;  // what the exchange takes for one batch of the large ones, into all of their subscriptions
};

/// `count` small events of 64 bytes at options.rate, from one publisher to one subscriber. `beside`: another publisher has
/// large ones of options.size for options.subscribers all the time. All clients are one thread on the core of the first
/// client; it does not write the payloads of large events (a loan is committed as it is), so that it has time to see small
/// ones when they come: what they wait for is the exchange. Throws Failure.
[[nodiscard]] DelayResult small_delay(const BenchOptions& options, const std::string& run, std::uint64_t count,
                                      bool beside);

}  // namespace ackring::tools
