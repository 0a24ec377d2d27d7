// Ingress: what X knows of one publisher: its ring (read-only, never trusted), its cursor file, its topics.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ackring/limits.hpp"
#include "lib/control/access.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

struct Route;

/// The cursor file with room for as many topics as a publisher may have; the file grows to what is used.
inline constexpr std::size_t cursor_reserve_bytes = shm::page_bytes + limits::topics * sizeof(shm::Word32);

struct Ingress {
  ring::RingReader reader;
  shm::IngressBlock block{};
  std::vector<Route*> routes;                   // by publisher-local topic number - 1
  const shm::IngressRing* ring_page = nullptr;  // nullptr: no live incarnation
  shm::ShardCursor* cursor = nullptr;           // of this shard
  shm::IngressCursor* cursor_page = nullptr;    // of all shards
  shm::Word32* topic_map = nullptr;

  std::uint16_t slot = 0;
  bool hot = false;       // X polls the ring
  bool has_bell = false;  // the client can wake X; as all of the client below, the lead's knows
  bool own = false;       // X itself is the publisher
  bool closing = false;   // the publisher is gone; drain, then retire the ring
  bool quarantined = false;
  bool said_not_polled = false;  // the bit of this shard, if there are several
  bool ring_left = false;        // the file of its retired ring, which the system did not remove, is there still
  std::uint64_t client = 0;
  std::uint64_t incarnation = 0;
  std::uint64_t last_moved_ns = 0;
  std::string name;
  control::Identity owner;           // of this incarnation's client, or the last one's
  control::Permissions permissions;  // … and what it may publish
  std::string withdrawn_topic;       // one that it defined, and may not publish to any more

  /// The cursor of shard 0, with what all shards share.
  [[nodiscard]] shm::ShardCursor& first() const noexcept { return cursor_page->shards[0]; }
  /// Do the access rules keep this topic of its own numbering from it?
  [[nodiscard]] bool is_denied(std::uint32_t topic) const noexcept {
    // relaxed: X's thread is the only writer
    return topic - 1 < routes.size() && topic_map[topic - 1].load(std::memory_order_relaxed) == shm::denied_topic;
  }

  shm::Segment ring_segment;
  std::shared_ptr<shm::Segment> cursor_segment;  // the lead's: a file grows through one mapping
  shm::Bell bell;
};

}  // namespace ackring::exchange
