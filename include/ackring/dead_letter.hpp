// Dead letters: events that were rejected, or failed too often, and wait for people.
#pragma once

#include <cstdint>
#include <string>

namespace ackring {

/// Which dead letters of a subscription are meant. What is not set matches any.
struct DeadLetterSelection {
  /// Delivery number; 0: any.
  std::uint64_t delivery = 0;
  /// The event `publisher`/`sequence`; sequence 0: any.
  std::string publisher = {};
  std::uint64_t sequence = 0;
  /// Empty: any. `rejected` also means the rejections that say why (`rejected: …`).
  std::string reason = {};
};

/// How far a walk over the dead letters of one subscription has come. Its first step decides where it ends: what dies
/// later, perhaps because it was requeued, is for another walk.
struct DeadLetterCursor {
  std::uint64_t from = 0;   ///< opaque
  std::uint64_t until = 0;  ///< opaque
  bool more = true;         ///< false: the walk has come to its end
};

}  // namespace ackring
