// Consumed: up to where the bytes of an ingress ring may be used again, when several shards of X read it.
//
// Each shard stores its own position, and nobody their minimum: two that move at once could each miss the other's store. So
// who writes into the ring takes it, whenever the ring looks full.
//
// Thread rules: any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/shm/format.hpp"

namespace ackring::ring {

/// The position that every shard of the mask `shards` has passed. It may be an old one, and even less than an earlier
/// answer, but nothing before it is still to be read.
inline std::uint64_t consumed_by_all(const shm::IngressCursor& cursor, const shm::Word32& shards) noexcept {
  // acquire(ingress.consumed): this shard has read the bytes before it; and what shards there were when it stored that
  std::uint64_t least = cursor.shards[0].consumed.load(std::memory_order_acquire);
  // After shard 0's word: a shard that is not in the mask yet begins where shard 0 is when it adds it, so no earlier than
  // there; the word of one that has left it stands still, which only makes this wait for the next look.
  // acquire(ingress.consumed): a shard that is not in the mask any more has read what it ever will
  std::uint32_t others = shards.load(std::memory_order_acquire) >> 1;
  for (std::size_t shard = 1; others != 0; others >>= 1, ++shard) {
    if ((others & 1) == 0) continue;
    // acquire(ingress.consumed): as above
    const std::uint64_t position = cursor.shards[shard].consumed.load(std::memory_order_acquire);
    if (static_cast<std::int64_t>(position - least) < 0) least = position;
  }
  return least;
}

}  // namespace ackring::ring
