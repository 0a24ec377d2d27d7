// Lane: one member ring of a subscription, and what X knows of the member that reads it. Only X's thread touches it.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "lib/exchange/taken_marks.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

/// The last extension of a delivery that X has seen. Its end is of X's served time, as all deadlines of what is taken.
struct Extension {
  std::uint32_t count = 0;
  std::uint64_t deadline_ns = 0;
};

struct Queue;

struct Lane {
  explicit Lane(Queue& of) noexcept : queue(&of) {}
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // What delivering an event touches.
  ring::RingWriter ring;          // meaningless without has_ring
  std::uint64_t entries = 0;      // entry number behind the last record written
  std::uint64_t floor_entry = 0;  // entries below are reusable
  std::uint64_t slot_mask = 0;
  // The window: what this transaction may write into the ring without another look at anything. Closed: both 0.
  std::uint64_t window_bytes = 0;
  std::uint64_t window_entries = 0;
  std::uint64_t counted_entries = 0;    // entries that the queue's block knows of, as ring_of_n and matched
  std::uint64_t delivery_of_entry = 0;  // while the window is open: delivery number - entry number
  std::uint32_t* ends = nullptr;        // by slot: low half of the ring position behind the entry's record
  std::uint64_t touched_n = 0;          // last transaction that wrote into the ring
  bool has_ring = false;

  shm::RingBlock ring_block{};
  shm::MemberRing* ring_page = nullptr;
  shm::Word8* states = nullptr;  // by slot: DeliveryState, let_go_bit

  // Settling.
  ring::AckReader acks;       // of the member's ack page; invalid without a member
  std::uint64_t taken = 0;    // as last seen; never beyond `entries`
  std::uint64_t decided = 0;  // state bytes that are not zero in [floor_entry, entries)
  ring::AckMarks seen;        // the page's counts at the last look of a tick
  TakenMarks marks;
  std::uint64_t timed_out_below = 0;                         // entries below were looked at for a time-out
  std::uint64_t full_since_ns = 0;                           // when the ring was found full, 0: it is not
  std::unordered_map<std::uint64_t, std::uint64_t> waiting;  // by entry: records of the retry log of views still held
  std::unordered_map<std::uint64_t, Extension> extended;     // by entry

  std::uint64_t revoked_from = 0;  // entries from here to `revoked_to` were not taken when X took them back
  std::uint64_t revoked_to = 0;
  std::uint64_t idle_taken = 0;     // `taken` has had this value …
  std::uint64_t idle_since_ns = 0;  // … since then, of X's served time; 0: not known

  // Identity.
  Queue* queue;
  std::uint64_t ring_incarnation = 0;
  std::uint64_t ack_incarnation = 0;
  std::uint16_t number = 0;  // MemberRing::number
  std::uint64_t client = 0;  // client incarnation of the member, 0: none
  bool leaving = false;      // its member is gone, but could not be detached yet
  bool distrusted =
      false;  // its ack page is not a possible one: X reads it no more, and all in the ring counts as taken

  std::unique_ptr<std::uint32_t[]> ends_storage;  // as it comes: pages that are never used are never there
  shm::Segment ring_segment;
  shm::Segment ack_segment;
  shm::Bell bell;

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
  [[nodiscard]] bool is_open(std::uint64_t entry) const noexcept { return entry - floor_entry < entries - floor_entry; }
  /// X takes back what was not taken when it stored `revoked`: has the member not come past it yet?
  [[nodiscard]] bool revoked() const noexcept { return static_cast<std::int64_t>(revoked_to - taken) > 0; }
  /// Was this entry, which is not settled, taken back? A member that finds out only when it takes it says so.
  [[nodiscard]] bool is_returned(std::uint64_t entry) const noexcept {
    if (static_cast<std::int64_t>(revoked_to - entry) <= 0) return false;
    return static_cast<std::int64_t>(entry - revoked_from) >= 0 || acks.verdict(entry) == ring::Verdict::returned;
  }
  /// Entries that are not settled, taken or not.
  [[nodiscard]] std::uint64_t open_entries() const noexcept { return entries - floor_entry - decided; }
};

}  // namespace ackring::exchange
