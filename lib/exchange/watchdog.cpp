// Watchdog: looks for verdicts that are not in order, and for deliveries that were taken too long ago. No timer per event:
// each tick notes (time, taken), and what was taken before a mark older than ack_timeout has timed out.
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

using ring::Verdict;
using shm::DeliveryState;

void Exchange::sweep_verdicts(Queue& queue, std::uint64_t now_ns) {
  if (!queue.has_member() || queue.at_most_once()) return;
  const std::uint64_t through = queue.acks.acked_through();
  const std::uint64_t open = queue.taken - queue.floor_entry;
  const std::uint64_t through_open = through - queue.floor_entry <= open ? through - queue.floor_entry : 0;
  const std::uint64_t floor = queue.floor_entry;
  for (std::uint64_t at = 0; at < open; ++at) {
    const std::uint64_t entry = floor + at;
    const std::uint8_t state = queue.state_of(entry);
    if ((state & shm::let_go_bit) != 0) continue;
    std::uint32_t delay_ms = ring::delay_default;
    const Verdict verdict = queue.acks.verdict(entry, &delay_ms);
    const bool acked = verdict == Verdict::ack || (verdict == Verdict::none && at < through_open);
    if (state != 0) {
      if (!acked && verdict == Verdict::none) continue;
      if (acked) {
        ++queue.ring_block.totals[static_cast<std::size_t>(DeliveryState::late_ack)];
        (void)complete_late(queue, entry);
      }
      queue.waiting.erase(entry);
      set_state(queue, entry, static_cast<DeliveryState>(state), true);
    } else if (acked) {
      set_state(queue, entry, DeliveryState::acked, true);
    } else if (verdict == Verdict::nack || verdict == Verdict::reject || verdict == Verdict::returned) {
      Failure failure;
      failure.cause = verdict == Verdict::reject ? DeliveryState::rejected : DeliveryState::nacked;
      if (verdict == Verdict::nack && delay_ms != ring::delay_default) failure.delay_ns = delay_ms * 1'000'000ull;
      (void)fail(queue, entry, failure, now_ns);  // where there is no room, the next tick tries again
    }
  }
}

void Exchange::expire(Queue& queue, std::uint64_t now_ns) {
  if (!queue.has_member() || queue.at_most_once()) return;
  const auto timeout_ns = static_cast<std::uint64_t>(queue.options.ack_timeout.count());
  while (!queue.marks.empty() && static_cast<std::int64_t>(queue.floor_entry - queue.marks.front().taken) >= 0) {
    queue.timed_out_below = queue.marks.front().taken;  // all settled: nothing can time out
    queue.marks.pop_front();
  }
  while (!queue.marks.empty() && now_ns - queue.marks.front().time_ns >= timeout_ns &&
         now_ns >= queue.marks.front().time_ns) {
    const std::uint64_t taken = queue.marks.front().taken;
    std::uint64_t entry = queue.timed_out_below;
    if (queue.floor_entry - entry <= queue.taken - entry) entry = queue.floor_entry;
    for (; static_cast<std::int64_t>(taken - entry) > 0; ++entry) {
      if (queue.state_of(entry) != 0) continue;
      Failure failure;
      failure.cause = DeliveryState::timed_out;
      failure.let_go = false;
      if (!fail(queue, entry, failure, now_ns)) return;
    }
    queue.timed_out_below = taken;
    queue.marks.pop_front();
  }
  const bool moved =
      queue.marks.empty() ? queue.taken != queue.timed_out_below : queue.taken != queue.marks.back().taken;
  if (moved) queue.marks.push_back({now_ns, queue.taken});
}

void Exchange::sweep(Queue& queue, std::uint64_t now_ns) {
  settle(queue);
  sweep_verdicts(queue, now_ns);
  expire(queue, now_ns);
  release_due(queue, now_ns);
  settle(queue);
}

}  // namespace ackring::exchange
