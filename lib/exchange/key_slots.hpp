// Key slots: the keys of a subscription that is ordered by key, hashed into 1,024 slots. A slot belongs to one member at a
// time, and in an ordered subscription has one delivery open at a time.
//
// Thread rules: X's thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "lib/ring/record.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

struct KeySlots {
  // Of ordered subscriptions: deliveries in a ring that are not settled, and such as wait for a retry.
  std::array<std::uint32_t, shm::key_slots> in_rings{};
  std::array<std::uint32_t, shm::key_slots> waiting{};

  /// The slot of an event; none without a key, which has no order to keep.
  /// FNV-1a (Fowler, Noll, Vo; draft-eastlake-fnv): the owners of slots outlive the process, so the function must, too.
  [[nodiscard]] static std::optional<std::uint32_t> of(const shm::RecordHeader& record) noexcept {
    if (record.key_bytes == 0) return std::nullopt;
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t i = 0; i < record.key_bytes; ++i) {
      hash = (hash ^ static_cast<std::uint64_t>(event.key[i])) * 0x100000001b3;
    }
    return static_cast<std::uint32_t>((hash ^ hash >> 32) % shm::key_slots);
  }
};

}  // namespace ackring::exchange
