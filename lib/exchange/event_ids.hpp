// EventIds: which ids of events are known. The subscription `@ids` keeps them, for as long as its TTL and its limits say:
// its backlog holds a record of each, without payload. An event with the header `event-id` whose id is there is a duplicate.
//
// This index is not shared: it is what a walk over the backlog finds, and follows its head and tail.
// Thread rules: X's thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "lib/exchange/queue.hpp"

namespace ackring::exchange {

/// Of an id. Not yet: it can't be said before another shard has come by the event.
enum class Familiar : std::uint8_t { no, yes, not_yet };

class EventIds {
 public:
  explicit EventIds(Queue& queue) noexcept : queue_(&queue) {}

  [[nodiscard]] Queue& queue() const noexcept { return *queue_; }
  /// The record of an id, and its position; nullptr: it is not known.
  const shm::RecordHeader* find(std::string_view id, std::uint64_t& position);

  /// The value of the header `event-id` among encoded headers, which may be any bytes; empty: there is none.
  [[nodiscard]] static std::string_view id_in(std::string_view headers) noexcept;

  std::string headers;  // of the event that is being routed, read once
  std::string_view id;  // in it

 private:
  void catch_up();

  Queue* queue_;
  std::uint64_t next_ = 0;                                       // up to where the backlog is known
  std::unordered_multimap<std::uint64_t, std::uint64_t> known_;  // hash of the id → position
};

}  // namespace ackring::exchange
