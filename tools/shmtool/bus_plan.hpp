// What a bus will take: its files, by the functions that the exchange itself sizes them with; descriptors and mappings.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ackring/options.hpp"

namespace ackring::tools {

struct BusShape {
  std::uint64_t publishers = 1;
  std::uint64_t subscriptions = 1;
  std::uint64_t members = 1;  ///< of each subscription
  std::uint64_t topics = 1000;
  std::uint64_t shards = 1;
  std::uint64_t publisher_ring_bytes = limits::default_ring_bytes;
  std::uint64_t event_bytes = 0;  ///< of the largest event, with key and headers; 0: the largest that the ring takes
  SubscriptionOptions options;    ///< of each subscription
};

/// Files of one kind. `rest`: when everybody is there and nothing waits; `most`: when all that may wait does. Bytes are
/// what the file system allocates, whole pages.
struct PlannedFiles {
  std::string kind;
  std::uint64_t rest_files = 0;
  std::uint64_t rest_bytes = 0;
  std::uint64_t most_files = 0;
  std::uint64_t most_bytes = 0;
};

struct BusPlan {
  std::vector<PlannedFiles> files;
  PlannedFiles total;
  /// Of the exchange, and of a process that has one publisher or is one member. Each of them is taken to be a process.
  std::uint64_t exchange_descriptors = 0;
  std::uint64_t client_descriptors = 0;
  /// Mappings of the exchange, at rest and at most.
  std::uint64_t rest_mappings = 0;
  std::uint64_t most_mappings = 0;
};

/// Throws Error (invalid_argument) where an option, or Failure (status_usage) where a number, is out of limits.
[[nodiscard]] BusPlan plan_bus(BusShape shape);

}  // namespace ackring::tools
