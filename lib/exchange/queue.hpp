// Queue: what X knows of one subscription: its segments, a private copy of every word that X writes, and the positions
// that can be recounted from them. Only X's thread touches it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>

#include "ackring/options.hpp"
#include "lib/log/segment_log.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

/// Everything below entry `taken` was taken before `time_ns`.
struct TakenMark {
  std::uint64_t time_ns;
  std::uint64_t taken;
};

/// The last extension of a delivery that X has seen.
struct Extension {
  std::uint32_t count = 0;
  std::uint64_t deadline_ns = 0;
};

/// A record of the retry log, and when it goes back.
struct Due {
  std::uint64_t due_ns;
  std::uint64_t position;
  friend bool operator>(const Due& left, const Due& right) noexcept {
    return left.due_ns != right.due_ns ? left.due_ns > right.due_ns : left.position > right.position;
  }
};

struct Queue {
  static constexpr std::size_t later_segment_bytes = 64u << 10;  // few events fail: small files, until there are many

  Queue(shm::Directory& directory, std::uint64_t number, std::uint64_t generation)
      : id(number),
        backlog(directory, "sub." + std::to_string(number) + ".backlog", generation),
        retry(directory, "sub." + std::to_string(number) + ".retry", generation, later_segment_bytes),
        dead(directory, "sub." + std::to_string(number) + ".dead", generation, later_segment_bytes) {}

  // What routing and delivering an event touches.
  ring::RingWriter ring;          // of the member ring; meaningless without has_ring
  std::uint64_t entries = 0;      // entry number behind the last record written
  std::uint64_t floor_entry = 0;  // entries below are reusable
  std::uint64_t slot_mask = 0;
  std::uint64_t largest_record = 0;  // a quarter of the member ring, less room for AttemptInfo
  // The window: what this transaction may write into the ring without another look at anything. Closed: both 0.
  std::uint64_t window_bytes = 0;
  std::uint64_t window_entries = 0;
  std::uint64_t counted_entries = 0;    // entries that block.ring_of_n and block.matched know of
  std::uint64_t delivery_of_entry = 0;  // while the window is open: delivery number - entry number
  std::uint32_t* ends = nullptr;        // by slot: low half of the ring position behind the entry's record
  std::uint64_t touched_n = 0;          // last transaction that wrote into this queue
  std::uint64_t skip_through = 0;       // redo: events of the transaction up to this sequence are in the sinks already
  std::uint64_t counted_through = 0;    // … and those up to this one are in the counters already
  bool has_ring = false;
  bool to_backlog = true;  // the backlog holds events, so the next one goes behind them
  bool dropping = false;   // this transaction dropped an event of this queue; it drops the later ones too
  bool ring_touched = false;
  bool backlog_touched = false;
  bool retry_touched = false;
  bool dead_touched = false;

  shm::SubscriptionBlock block{};
  shm::RingBlock ring_block{};
  shm::SubscriptionSegment* state = nullptr;
  shm::MemberRing* ring_page = nullptr;
  shm::Word8* states = nullptr;  // by slot: DeliveryState, let_go_bit

  // Settling.
  ring::AckReader acks;       // of the member's ack page; invalid without a member
  std::uint64_t taken = 0;    // as last seen; never beyond `entries`
  std::uint64_t decided = 0;  // state bytes that are not zero in [floor_entry, entries)
  std::uint64_t invalid_acks = 0;
  std::deque<TakenMark> marks;
  std::uint64_t timed_out_below = 0;  // entries below were looked at for a time-out
  std::uint64_t full_since_ns = 0;    // when the ring was found full, 0: it is not

  // Identity.
  std::uint64_t id = 0;
  std::uint32_t index = 0;  // in Exchange's table, and in the pattern tree
  SubscriptionOptions options;
  bool ephemeral = false;
  std::uint64_t ring_incarnation = 0;
  std::uint64_t ack_incarnation = 0;
  std::uint64_t client = 0;  // client incarnation of the member, 0: none
  bool active = false;       // on the list of queues that the tick looks at
  bool leaving = false;      // its member is gone, but could not be detached yet

  // What failed. `due` may hold records that have left the log; `waiting`: by entry, those whose view is still held.
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due;
  std::unordered_map<std::uint64_t, std::uint64_t> waiting;
  std::unordered_map<std::uint64_t, Extension> extended;  // by entry
  std::uint64_t dead_held = 0;  // times that a delivery could not be dead-lettered for want of room

  log::SegmentLog backlog;
  log::SegmentLog retry;
  log::SegmentLog dead;
  std::unique_ptr<std::uint32_t[]> ends_storage;  // as it comes: pages that are never used are never there
  shm::Segment state_segment;
  shm::Segment ring_segment;
  shm::Segment ack_segment;
  shm::Bell bell;

  [[nodiscard]] bool at_most_once() const noexcept { return options.guarantee == Guarantee::at_most_once; }
  [[nodiscard]] bool has_member() const noexcept { return acks.valid(); }
  [[nodiscard]] std::uint64_t slots() const noexcept { return slot_mask + 1; }
  [[nodiscard]] bool has_credit() const noexcept { return entries - floor_entry <= slot_mask; }
  /// Ring position behind the record of an entry in [floor_entry, entries).
  [[nodiscard]] std::uint64_t end_of(std::uint64_t entry) const noexcept {
    const std::uint64_t floor = ring_block.floor_position;
    return floor + static_cast<std::uint32_t>(ends[entry & slot_mask] - static_cast<std::uint32_t>(floor));
  }
  /// Ring position where the record of an entry in [floor_entry, entries] is looked for (padding may come first).
  [[nodiscard]] std::uint64_t begin_of(std::uint64_t entry) const noexcept {
    return entry == floor_entry ? ring_block.floor_position : end_of(entry - 1);
  }
  /// The record of an entry in [floor_entry, entries).
  [[nodiscard]] const std::byte* record_of(std::uint64_t entry) const noexcept {
    const std::byte* record = ring.data() + (begin_of(entry) & (ring.ring_bytes() - 1));
    const auto* header = reinterpret_cast<const shm::RecordHeader*>(record);
    return header->kind == static_cast<std::uint16_t>(shm::RecordKind::padding) ? ring.data() : record;
  }
  [[nodiscard]] std::uint8_t state_of(std::uint64_t entry) const noexcept {
    return states[entry & slot_mask].load(std::memory_order_relaxed);  // relaxed: X's thread is the only writer
  }
};

}  // namespace ackring::exchange
