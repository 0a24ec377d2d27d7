// Watchdog: looks for verdicts that are not in order, and for deliveries that were taken too long ago. No timer per event:
// each tick notes (time, taken), and what was taken before a mark older than ack_timeout has timed out.
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

using ring::Verdict;
using shm::DeliveryState;

namespace {

// Moves of one queue in one sweep: what fails all at once does not hold up the others (F37).
constexpr std::uint64_t moves_per_sweep = 1024;
constexpr std::uint64_t ns_per_ms = 1'000'000;

}  // namespace

void Exchange::sweep_verdicts(Queue& queue, std::uint64_t now_ns) {
  if (!queue.has_member() || queue.at_most_once()) return;
  const std::uint64_t through = queue.acks.acked_through();
  const std::uint64_t open = queue.taken - queue.floor_entry;
  const std::uint64_t through_open = through - queue.floor_entry <= open ? through - queue.floor_entry : 0;
  const std::uint64_t floor = queue.floor_entry;
  std::uint64_t moves = 0;
  for (std::uint64_t at = 0; at < open; ++at) {
    const std::uint64_t entry = floor + at;
    const std::uint8_t state = queue.state_of(entry);
    if ((state & shm::let_go_bit) != 0) continue;
    const ring::AckSeen seen = queue.acks.seen(entry);
    const bool open_verdict = seen.verdict == Verdict::none || seen.verdict == Verdict::extend;
    const bool acked = seen.verdict == Verdict::ack || (open_verdict && at < through_open);
    if (state != 0) {
      if (open_verdict && !acked) continue;
      if (acked) {
        ++queue.ring_block.totals[static_cast<std::size_t>(DeliveryState::late_ack)];
        (void)complete_late(queue, entry);
      }
      queue.waiting.erase(entry);
      set_state(queue, entry, static_cast<DeliveryState>(state), true);
    } else if (acked) {
      set_state(queue, entry, DeliveryState::acked, true);
    } else if (seen.verdict == Verdict::extend) {
      extend(queue, entry, seen, now_ns);
    } else if (seen.verdict != Verdict::none && moves < moves_per_sweep) {
      ++moves;
      // Where there is no room for what it becomes, it stays, and the next tick tries again.
      (void)fail(queue, entry, failure_of(queue, entry, seen), now_ns);
    }
  }
}

Failure Exchange::failure_of(const Queue& queue, std::uint64_t entry, const ring::AckSeen& seen) {
  Failure failure;
  if (seen.verdict == Verdict::reject) {
    failure.cause = DeliveryState::rejected;
    failure.reason = queue.acks.reason(entry, seen.delay);
  } else if (seen.verdict == Verdict::nack && seen.delay != ring::delay_default) {
    failure.delay_ns = seen.delay * ns_per_ms;
  }
  return failure;
}

// A new extension counts from when X sees it, at most a tick after it was given.
void Exchange::extend(Queue& queue, std::uint64_t entry, const ring::AckSeen& seen, std::uint64_t now_ns) {
  const auto [at, fresh] = queue.extended.try_emplace(entry);
  if (!fresh && at->second.count == seen.count) return;
  at->second = {seen.count, now_ns + seen.delay * ns_per_ms};
}

// What has a verdict that could not be carried out yet has not timed out: the sweep comes back to it.
bool Exchange::time_out(Queue& queue, std::uint64_t entry, std::uint64_t now_ns) {
  if (queue.acks.verdict(entry) != Verdict::none) return true;
  Failure failure;
  failure.cause = DeliveryState::timed_out;
  failure.let_go = false;
  return fail(queue, entry, failure, now_ns);
}

void Exchange::expire(Queue& queue, std::uint64_t now_ns) {
  if (!queue.has_member() || queue.at_most_once()) return;
  std::uint64_t moves = 0;
  for (auto at = queue.extended.begin(); at != queue.extended.end();) {
    const std::uint64_t entry = at->first;
    const bool open = entry - queue.floor_entry < queue.entries - queue.floor_entry && queue.state_of(entry) == 0;
    // Until its mark has expired, an extended delivery has the time of all others.
    const bool due = now_ns >= at->second.deadline_ns && static_cast<std::int64_t>(queue.timed_out_below - entry) > 0;
    if (open && (!due || moves++ >= moves_per_sweep || !time_out(queue, entry, now_ns))) {
      ++at;
    } else {
      at = queue.extended.erase(at);
    }
  }
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
      if (queue.state_of(entry) != 0 || queue.extended.contains(entry)) continue;
      if (moves++ >= moves_per_sweep || !time_out(queue, entry, now_ns)) {
        queue.timed_out_below = entry;
        return;
      }
    }
    queue.timed_out_below = taken;
    queue.marks.pop_front();
  }
  const bool moved =
      queue.marks.empty() ? queue.taken != queue.timed_out_below : queue.taken != queue.marks.back().taken;
  if (moved) queue.marks.push_back({now_ns, queue.taken});
}

// X was stopped, or the machine slept: members could not be heard, so their time did not pass (F17).
void Exchange::shift_deadlines(std::uint64_t excess_ns) {
  for (Queue* queue : active_) {
    for (TakenMark& mark : queue->marks) mark.time_ns += excess_ns;
    for (auto& [entry, extension] : queue->extended) extension.deadline_ns += excess_ns;
  }
}

void Exchange::sweep(Queue& queue, std::uint64_t now_ns) {
  settle(queue);
  sweep_verdicts(queue, now_ns);
  expire(queue, now_ns);
  release_due(queue, now_ns);
  settle(queue);
}

}  // namespace ackring::exchange
