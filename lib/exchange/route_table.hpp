// Routes: topic → subscriptions, cached per topic and recomputed lazily after a subscription changed.
// Thread rules: X's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/control/topic_pattern.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

struct Queue;

/// One cache line: with many topics each event brings its own.
struct alignas(shm::cache_line_bytes) Route {
  std::uint64_t version = 0;  // of the route table when `sinks` was computed
  Queue* only = nullptr;      // the one sink, if there is one, and it is not timed
  std::uint32_t topic = 0;    // number in the topic table
  bool timed = false;         // events of some of `sinks` expire, or have ids that count
  bool ids = false;           // an event is routed only if its id is not known
  bool matched = false;       // some subscription gets the events, of whichever shard
  std::vector<Queue*> sinks;
};
static_assert(sizeof(Route) == shm::cache_line_bytes);

class RouteTable {
 public:
  /// The route of a topic; stays where it is as long as the table lives.
  Route* route_of(std::uint32_t topic) {
    Route*& route = by_topic_[topic];
    if (route == nullptr) {
      route = &routes_.emplace_back();
      route->topic = topic;
    }
    return route;
  }
  [[nodiscard]] bool current(const Route& route) const noexcept { return route.version == version_; }
  /// Recomputes the sinks, which are those of this shard; `queues` is indexed by the numbers given to add().
  void refresh(Route& route, std::string_view text, const std::vector<std::unique_ptr<Queue>>& queues,
               std::size_t shard);

  void add(const std::vector<std::string>& patterns, std::uint32_t number);
  void remove(const std::vector<std::string>& patterns, std::uint32_t number);

 private:
  std::uint64_t version_ = 1;
  control::PatternTree tree_;
  std::deque<Route> routes_;  // they never move
  std::unordered_map<std::uint32_t, Route*> by_topic_;
  std::vector<std::uint32_t> found_;
};

}  // namespace ackring::exchange
