// Which event of a subscription is meant.
#pragma once

#include <cstdint>
#include <string>

namespace ackring {

/// An event as a subscription knows it: by its delivery number, or as `publisher`/`sequence`.
struct EventSelection {
  /// Delivery number, 1 or more; 0: the other two say which.
  std::uint64_t delivery = 0;
  /// A named publisher, and the number that it gave the event, 1 or more.
  std::string publisher = {};
  std::uint64_t sequence = 0;
};

}  // namespace ackring
