// RouteScout: goes ahead of X over the headers that a publisher has committed, and asks for the cache lines of their topics'
// routes, so that they are there when X comes by. Only hints: what it reads is validated again by who uses it.
// Thread rules: X's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/exchange/route_table.hpp"
#include "lib/ring/spsc_ring.hpp"

namespace ackring::exchange {

struct RouteScout {
  /// With fewer topics their routes stay in the nearest caches, and a scout would cost more than it gains.
  static constexpr std::size_t many_topics = 512;
  /// Records between the scout and X: about as long as a line takes from memory.
  static constexpr int distance = 12;

  /// Asks for the routes of up to `records` records from `position` on, which is between the reader and its limit. Answers
  /// the position behind the last of them. Not inlined, as X does so for few publishers, and has better uses for registers.
  [[gnu::noinline]] static std::uint64_t go_on(const ring::RingReader& reader, const std::vector<Route*>& routes,
                                               std::uint64_t position, int records) noexcept {
    ring::RecordHint hint;
    for (int i = 0; i < records && reader.hint_at(position, hint); ++i) {
      position += hint.bytes;
      if (hint.topic - 1 < routes.size()) __builtin_prefetch(routes[hint.topic - 1]);
    }
    return position;
  }
};

}  // namespace ackring::exchange
