// Two buses side by side, of which one is measured at a time: a plain one, and one with what an event should not cost
// more for. Each has an exchange, one publisher and one subscriber, as processes that stay over all rounds.
//
// Thread rules: one thread, in a process without others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/common/child.hpp"
#include "tools/shmtool/bench.hpp"

namespace ackring::tools {

/// What is on the bus besides the events that are measured.
struct Load {
  std::uint64_t idle_subscriptions = 0;  // whose pattern matches nothing that is published
  unsigned holders = 0;                  // processes that hold a member of each of those; 0: they have no members
  std::uint64_t topics = 1;              // of the measured events
  bool random_topics = false;     // … not in the order in which they came first, but in a random one, again and again
  std::uint64_t idle_topics = 0;  // that the publisher used once
  std::uint64_t other_patterns = 0;  // that match nothing, 64 to a subscription
  std::uint64_t backlog = 0;         // events of one more subscription that gets all of them and has no member
  std::uint64_t unacked = 0;         // deliveries that a member of another subscription has taken and not acked
};

class World {
 public:
  /// `bus` must be a name of its own. Throws Failure.
  World(const BenchOptions& options, const std::string& bus, const Load& load);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// Publishes, takes and acks `events`; seconds from the first publish until all acks are settled. Throws Failure.
  double measure(std::uint64_t events);
  /// Stops the exchange where it is, so that it takes no time from others; thaw() lets it go on.
  void freeze() noexcept;
  void thaw() noexcept;

 private:
  BenchOptions options_;
  Load load_;
  Child exchange_;
  std::vector<Child> loads_;
  std::vector<Child> clients_;  // the subscriber, then the publisher
};

}  // namespace ackring::tools
