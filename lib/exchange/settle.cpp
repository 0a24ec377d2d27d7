// Settle: reads what members decided and gives back the space of deliveries that are settled and let go.
// A delivery below the floor is counted in the ring block's totals; above it, by its state byte. The usual case, acks in
// order, writes no state byte: the floor passes them in one store.
#include "lib/exchange/exchange.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using ring::Verdict;
using shm::DeliveryState;

namespace {

// Counts a settled delivery that the floor passes.
void count_state(shm::RingBlock& block, std::uint8_t state) {
  ++block.totals[state & shm::state_mask];
  if ((state & shm::late_ack_bit) != 0) ++block.totals[static_cast<std::size_t>(DeliveryState::late_ack)];
}

}  // namespace

void Exchange::set_state(Lane& lane, std::uint64_t entry, DeliveryState state, bool let_go) {
  const std::uint8_t old = lane.state_of(entry);
  if (old == 0) {
    ++lane.decided;
    if (lane.queue->keys)
      count_slot(*lane.queue, *reinterpret_cast<const shm::RecordHeader*>(lane.record_of(entry)), -1, 0);
  }
  const auto value = static_cast<std::uint8_t>(static_cast<std::uint8_t>(state) | (let_go ? shm::let_go_bit : 0));
  shm::Environment::at(shm::CrashPoint::settle_state);
  // release(delivery.state): whatever moved the event is done before its source counts as settled
  lane.states[entry & lane.slot_mask].store(value, std::memory_order_release);
}

void Exchange::move_floor(Lane& lane, std::uint64_t entry) {
  const std::uint64_t old = lane.floor_entry;
  if (entry == old) return;
  const std::uint64_t position = lane.end_of(entry - 1);
  lane.ring_block.floor_entry = entry;
  shm::Environment::at(shm::CrashPoint::settle_floor);
  lane.ring_block.floor_position = position;
  shm::write_block(lane.ring_page->version, lane.ring_page->blocks, lane.ring_block);
  lane.floor_entry = entry;
  lane.ring.set_head(position);
  if (lane.decided == 0) return;
  for (std::uint64_t at = old; at != entry; ++at) {
    if (lane.state_of(at) == 0) continue;
    // relaxed: a byte below the floor means nothing; recovery clears what a crash leaves
    lane.states[at & lane.slot_mask].store(0, std::memory_order_relaxed);
    --lane.decided;
  }
}

// Counts what has been decided at the floor of a ring whose member is gone, up to `until`.
void Exchange::pass_decided(Lane& lane, std::uint64_t until) {
  std::uint64_t entry = lane.floor_entry;
  for (; entry != until && lane.state_of(entry) != 0; ++entry) {
    count_state(lane.ring_block, lane.state_of(entry));
  }
  move_floor(lane, entry);
  if (static_cast<std::int64_t>(entry - lane.taken) > 0) lane.taken = entry;  // nobody is there to take them
}

void Exchange::settle(Lane& lane) {
  if (!lane.has_member() || lane.distrusted) return;
  // `acked_through` before `taken`: the member stores them the other way round, so it can't be seen ahead.
  const std::uint64_t through = lane.acks.acked_through();
  const std::uint64_t refused = lane.acks.refused();
  const std::uint64_t released = lane.acks.released();
  const std::uint64_t taken = lane.acks.taken();
  if (taken - lane.taken > lane.entries - lane.taken) [[unlikely]] {
    distrust(lane, "taken is not a possible count");  // beyond what was delivered, or rewound (F25, F28)
    return;
  }
  lane.taken = taken;
  const std::uint64_t floor = lane.floor_entry;
  const std::uint64_t open = taken - floor;
  auto& totals = lane.ring_block.totals;

  if (lane.queue->at_most_once()) {
    if (released - floor > open) return;  // behind the floor or forged
    if (lane.decided == 0 && static_cast<std::int64_t>(lane.revoked_to - floor) <= 0) {
      totals[static_cast<std::size_t>(DeliveryState::acked)] += released - floor;
      move_floor(lane, released);
      return;
    }
    std::uint64_t entry = floor;  // some of them were taken back
    for (; entry != released && (lane.state_of(entry) != 0 || !lane.is_returned(entry)); ++entry) {
      const std::uint8_t state = lane.state_of(entry) & shm::state_mask;
      ++totals[state != 0 ? state : static_cast<std::size_t>(DeliveryState::acked)];
    }
    move_floor(lane, entry);
    return;
  }

  const std::uint64_t through_open = through - floor <= open ? through - floor : 0;
  const std::uint64_t refused_open = refused - floor <= open ? refused - floor : 0;
  const std::uint64_t released_open = released - floor <= open ? released - floor : 0;
  std::uint64_t at = 0;  // entries passed, from the floor
  while (at < open) {
    const std::uint64_t entry = floor + at;
    const std::uint8_t state = lane.decided != 0 ? lane.state_of(entry) : 0;
    if (state == 0) {
      if (at < through_open && lane.decided == 0 && refused_open <= at) {
        totals[static_cast<std::size_t>(DeliveryState::acked)] += through_open - at;
        at = through_open;
        continue;
      }
      const Verdict verdict = lane.acks.verdict(entry);
      if (verdict != Verdict::ack && !(verdict == Verdict::none && at < through_open)) break;
      ++totals[static_cast<std::size_t>(DeliveryState::acked)];
    } else {
      if ((state & shm::let_go_bit) == 0) {
        const Verdict verdict = lane.acks.verdict(entry);
        if (verdict == Verdict::none && at >= through_open && at >= released_open) break;  // pins the ring (F47)
        const bool acked = verdict == Verdict::ack || (verdict == Verdict::none && at < through_open);
        if (acked && lane.waiting.contains(entry)) break;  // it still counts: the sweep takes it out of the retry log
        if (acked) ++totals[static_cast<std::size_t>(DeliveryState::late_ack)];
      }
      count_state(lane.ring_block, state);
    }
    ++at;
  }
  if (lane.queue->keys) settle_slots(lane, floor + at);
  move_floor(lane, floor + at);
}

}  // namespace ackring::exchange
