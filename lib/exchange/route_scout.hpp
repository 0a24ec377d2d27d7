// RouteScout: walks ahead of X over the headers that a publisher has committed, and asks for the cache lines of their topics'
// routes, so that they are there when X comes by. Only hints: what it reads is validated again by who uses it.
// Thread rules: X's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/exchange/route_table.hpp"
#include "lib/ring/spsc_ring.hpp"

namespace ackring::exchange {

class RouteScout {
 public:
  /// With fewer topics their routes stay in the nearest caches, and a scout would cost more than it gains.
  static constexpr std::size_t worth_it = 512;
  /// Records between the scout and X: about as long as a line takes from memory.
  static constexpr int distance = 12;

  RouteScout(const ring::RingReader& reader, const std::vector<Route*>& routes) noexcept
      : reader_(reader), routes_(routes), position_(reader.position()) {
    for (int i = 0; i < distance; ++i) go_on();
  }
  /// One record further.
  void go_on() noexcept {
    ring::RecordHint hint;
    if (!reader_.hint_at(position_, hint)) return;
    position_ += hint.bytes;
    if (hint.topic - 1 < routes_.size()) __builtin_prefetch(routes_[hint.topic - 1]);
  }

 private:
  const ring::RingReader& reader_;
  const std::vector<Route*>& routes_;
  std::uint64_t position_;
};

}  // namespace ackring::exchange
