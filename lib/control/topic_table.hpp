// TopicTable: the bus's interned topics, in the `topics` segment. Append-only: a number, once given, names its topic as
// long as the bus exists. Number = offset in the arena / 8 + 1, so a reader needs no index.
//
// Crash rule: the text is written first, then arena_bytes, then count; recovery walks the arena up to arena_bytes and
// recounts. Interning the same topic again (redo) finds it.
// Thread rules: TopicTable is X's, one thread; TopicReader may be used by any thread of a client.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "lib/shm/segment.hpp"

namespace ackring::control {

/// Address space that a topics mapping needs: the arena may grow to 1,048,576 topics of 255 bytes.
inline constexpr std::size_t topics_reserve_bytes = shm::page_bytes + std::size_t{1'048'576} * 264;

/// Bytes of the file when it holds so many topics of `topic_bytes` each.
[[nodiscard]] std::uint64_t topics_file_bytes(std::uint64_t topics, std::size_t topic_bytes) noexcept;

class TopicTable {
 public:
  /// Creates the segment, or adopts the existing one. Throws Error (no_space, permission; damaged where the arena is
  /// not what intern() writes; layout_mismatch).
  TopicTable(shm::Directory& directory, std::uint64_t generation);

  /// Number of `topic` (valid, 1 to 255 bytes), interning it if new; 0 if the table is full (limits::topics) or the
  /// file can't grow, which later calls may find cured.
  std::uint32_t intern(std::string_view topic);
  /// Text of a number that intern() gave; empty for any other.
  [[nodiscard]] std::string_view text(std::uint32_t number) const noexcept;
  [[nodiscard]] std::uint64_t count() const noexcept;
  [[nodiscard]] const shm::Segment& segment() const noexcept { return segment_; }

 private:
  void adopt();
  [[nodiscard]] bool make_room(std::uint64_t arena_bytes);

  shm::Segment segment_;
  std::unordered_map<std::string_view, std::uint32_t> numbers_;  // views into the arena
};

/// A client's view of the table. `segment` is attached with topics_reserve_bytes, so that it shows what X adds later.
class TopicReader {
 public:
  TopicReader() = default;
  explicit TopicReader(shm::Segment segment) : segment_(std::move(segment)) {}
  /// Text of a topic's number; empty for a number that was not given out. The view lives as long as this object.
  [[nodiscard]] std::string_view text(std::uint32_t number) const noexcept;
  /// How many topics there are; 0 without a segment. A moment later there may be more.
  [[nodiscard]] std::uint64_t count() const noexcept;

 private:
  shm::Segment segment_;
};

}  // namespace ackring::control
