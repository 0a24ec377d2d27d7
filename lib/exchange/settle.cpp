// Settle: reads what members decided and gives back the space of deliveries that are settled and let go.
// A delivery below the floor is counted in the ring block's totals; above it, by its state byte. The usual case, acks in
// order, writes no state byte: the floor passes them in one store.
#include "lib/exchange/exchange.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using ring::Verdict;
using shm::DeliveryState;

void Exchange::set_state(Queue& queue, std::uint64_t entry, DeliveryState state, bool let_go) {
  const std::uint8_t old = queue.state_of(entry);
  if (old == 0) ++queue.decided;
  const auto value = static_cast<std::uint8_t>(static_cast<std::uint8_t>(state) | (let_go ? shm::let_go_bit : 0));
  // release(delivery.state): whatever moved the event is done before its source counts as settled
  queue.states[entry & queue.slot_mask].store(value, std::memory_order_release);
}

void Exchange::move_floor(Queue& queue, std::uint64_t entry) {
  const std::uint64_t old = queue.floor_entry;
  if (entry == old) return;
  const std::uint64_t position = queue.end_of(entry - 1);
  queue.ring_block.floor_entry = entry;
  queue.ring_block.floor_position = position;
  shm::write_block(queue.ring_page->version, queue.ring_page->blocks, queue.ring_block);
  queue.floor_entry = entry;
  queue.ring.set_head(position);
  if (queue.decided == 0) return;
  for (std::uint64_t at = old; at != entry; ++at) {
    if (queue.state_of(at) == 0) continue;
    // relaxed: a byte below the floor means nothing; recovery clears what a crash leaves
    queue.states[at & queue.slot_mask].store(0, std::memory_order_relaxed);
    --queue.decided;
  }
}

void Exchange::settle(Queue& queue) {
  if (!queue.has_member()) return;
  // `acked_through` before `taken`: the member stores them the other way round, so it can't be seen ahead.
  const std::uint64_t through = queue.acks.acked_through();
  const std::uint64_t refused = queue.acks.refused();
  const std::uint64_t released = queue.acks.released();
  const std::uint64_t taken = queue.acks.taken();
  if (taken - queue.taken > queue.entries - queue.taken) {
    ++queue.invalid_acks;  // beyond what was delivered, or rewound (F25, F28): X keeps what it knows
    return;
  }
  queue.taken = taken;
  const std::uint64_t floor = queue.floor_entry;
  const std::uint64_t open = taken - floor;
  auto& totals = queue.ring_block.totals;

  if (queue.at_most_once()) {
    if (released - floor > open) return;  // behind the floor or forged
    totals[static_cast<std::size_t>(DeliveryState::acked)] += released - floor;
    move_floor(queue, released);
    return;
  }

  const std::uint64_t through_open = through - floor <= open ? through - floor : 0;
  const std::uint64_t refused_open = refused - floor <= open ? refused - floor : 0;
  const std::uint64_t released_open = released - floor <= open ? released - floor : 0;
  std::uint64_t at = 0;  // entries passed, from the floor
  while (at < open) {
    const std::uint64_t entry = floor + at;
    const std::uint8_t state = queue.decided != 0 ? queue.state_of(entry) : 0;
    if (state == 0) {
      if (at < through_open && queue.decided == 0 && refused_open <= at) {
        totals[static_cast<std::size_t>(DeliveryState::acked)] += through_open - at;
        at = through_open;
        continue;
      }
      const Verdict verdict = queue.acks.verdict(entry);
      if (verdict != Verdict::ack && !(verdict == Verdict::none && at < through_open)) break;
      ++totals[static_cast<std::size_t>(DeliveryState::acked)];
    } else {
      if ((state & shm::let_go_bit) == 0) {
        const Verdict verdict = queue.acks.verdict(entry);
        if (verdict == Verdict::none && at >= through_open && at >= released_open) break;  // pins the ring (F47)
        const bool acked = verdict == Verdict::ack || (verdict == Verdict::none && at < through_open);
        if (acked && queue.waiting.contains(entry)) break;  // it still counts: the sweep takes it out of the retry log
        if (acked) ++totals[static_cast<std::size_t>(DeliveryState::late_ack)];
      }
      ++totals[state & ~shm::let_go_bit];
    }
    ++at;
  }
  move_floor(queue, floor + at);
}

}  // namespace ackring::exchange
