// Watchdog: looks for verdicts that are not in order, and for deliveries that were taken too long ago. No timer per event:
// each tick notes (time, taken), and what was taken before a mark older than ack_timeout has timed out. Here, time is
// served time: it stands still while there is no exchange or it can't run, since members can't be heard then.
#include <algorithm>
#include <iterator>

#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

using ring::Verdict;
using shm::DeliveryState;

namespace {

// Moves of one queue in one sweep: what fails all at once does not hold up the others (F37).
constexpr std::uint64_t moves_per_sweep = 1024;
constexpr std::uint64_t ns_per_ms = 1'000'000;

}  // namespace

void Exchange::sweep_verdicts(Lane& lane, std::uint64_t now_ns) {
  if (!lane.has_member() || lane.distrusted || lane.queue->at_most_once()) return;
  const std::uint64_t through = lane.acks.acked_through();
  const std::uint64_t open = lane.taken - lane.floor_entry;
  const std::uint64_t through_open = through - lane.floor_entry <= open ? through - lane.floor_entry : 0;
  const std::uint64_t floor = lane.floor_entry;
  std::uint64_t moves = 0;
  for (std::uint64_t at = 0; at < open; ++at) {
    const std::uint64_t entry = floor + at;
    const std::uint8_t state = lane.state_of(entry);
    if ((state & shm::let_go_bit) != 0) continue;
    const ring::AckSeen seen = lane.acks.seen(entry);
    if (seen.undefined) [[unlikely]] {
      distrust(lane, "a word of it is no verdict");
      return;
    }
    const bool open_verdict = seen.verdict == Verdict::none || seen.verdict == Verdict::extend;
    const bool acked = seen.verdict == Verdict::ack || (open_verdict && at < through_open);
    if (state != 0) {
      if (open_verdict && !acked) continue;
      if (acked) (void)complete_late(lane, entry);
      lane.waiting.erase(entry);
      set_state(lane, entry, static_cast<DeliveryState>(acked ? state | shm::late_ack_bit : state), true);
    } else if (acked) {
      set_state(lane, entry, DeliveryState::acked, true);
    } else if (seen.verdict == Verdict::extend) {
      extend(lane, entry, seen, now_ns);
    } else if (seen.verdict != Verdict::none && moves < moves_per_sweep && !lane.is_returned(entry)) {
      ++moves;
      // Where there is no room for what it becomes, it stays, and the next tick tries again.
      (void)fail(lane, entry, failure_of(lane, entry, seen), now_ns);
    }
  }
}

Failure Exchange::failure_of(const Lane& lane, std::uint64_t entry, const ring::AckSeen& seen) {
  Failure failure;
  if (seen.verdict == Verdict::reject) {
    failure.cause = DeliveryState::rejected;
    failure.reason = lane.acks.reason(entry, seen.delay);
  } else if (seen.verdict == Verdict::nack_reason) {
    failure.reason = lane.acks.reason(entry, seen.delay);
  } else if (seen.verdict == Verdict::give_back) {
    failure.cause = DeliveryState::returned;
    failure.delay_ns = seen.delay != ring::delay_default ? seen.delay * ns_per_ms : 0;
  } else if (seen.verdict == Verdict::nack && seen.delay != ring::delay_default) {
    failure.delay_ns = seen.delay * ns_per_ms;
  }
  return failure;
}

// A new extension counts from when X sees it, at most a tick after it was given; also if that X is not this one.
void Exchange::extend(Lane& lane, std::uint64_t entry, const ring::AckSeen& seen, std::uint64_t now_ns) const {
  const auto [at, fresh] = lane.extended.try_emplace(entry);
  if (!fresh && at->second.count == seen.count) return;
  const std::uint64_t until_ns = TakenMarks::rounded(served_at(now_ns) + seen.delay * ns_per_ms);
  if (fresh) {
    if (const auto kept = TakenMarks::kept_extension(*lane.ring_page, entry, seen.count)) {
      at->second = {seen.count, std::min(*kept, until_ns)};
      return;
    }
  }
  at->second = {seen.count, until_ns};
  TakenMarks::keep_extension(*lane.ring_page, entry, seen.count, until_ns);
}

// What has a verdict that could not be carried out yet has not timed out: the sweep comes back to it.
bool Exchange::time_out(Lane& lane, std::uint64_t entry, std::uint64_t now_ns) {
  if (lane.acks.verdict(entry) != Verdict::none) return true;
  Failure failure;
  failure.cause = DeliveryState::timed_out;
  failure.let_go = false;
  return fail(lane, entry, failure, now_ns);
}

void Exchange::expire(Lane& lane, std::uint64_t now_ns) {
  Queue& queue = *lane.queue;
  if (!lane.has_member() || lane.distrusted || queue.at_most_once()) return;
  const std::uint64_t served_ns = served_at(now_ns);
  const std::uint64_t timed_out_before = lane.timed_out_below;
  std::uint64_t moves = 0;
  for (auto at = lane.extended.begin(); at != lane.extended.end();) {
    const std::uint64_t entry = at->first;
    const bool open = entry - lane.floor_entry < lane.entries - lane.floor_entry && lane.state_of(entry) == 0;
    // Until its mark has expired, an extended delivery has the time of all others.
    const bool due = served_ns >= at->second.deadline_ns && static_cast<std::int64_t>(lane.timed_out_below - entry) > 0;
    const bool kept = open && (!due || moves >= moves_per_sweep || !time_out(lane, entry, now_ns));
    if (open && !kept) ++moves;
    at = kept ? std::next(at) : lane.extended.erase(at);
  }
  const auto timeout_ns = static_cast<std::uint64_t>(queue.options.ack_timeout.count());
  while (!lane.marks.empty() && static_cast<std::int64_t>(lane.floor_entry - lane.marks.front().taken) >= 0) {
    lane.timed_out_below = lane.marks.front().taken;  // all settled: nothing can time out
    lane.marks.pop_front();
  }
  bool more = false;
  while (!more && !lane.marks.empty() && served_ns - lane.marks.front().time_ns >= timeout_ns) {
    const std::uint64_t taken = lane.marks.front().taken;
    std::uint64_t entry = lane.timed_out_below;
    if (lane.floor_entry - entry <= lane.taken - entry) entry = lane.floor_entry;
    for (; !more && static_cast<std::int64_t>(taken - entry) > 0; ++entry) {
      if (lane.state_of(entry) != 0 || lane.extended.contains(entry) || lane.is_returned(entry)) continue;
      more = moves++ >= moves_per_sweep;
      if (more) break;
      // Where dead letters have no room it is tried again each tick, and holds up no other.
      if (!time_out(lane, entry, now_ns)) lane.extended[entry] = {0, served_ns};
    }
    lane.timed_out_below = entry;
    if (!more) lane.marks.pop_front();
  }
  if (lane.timed_out_below != timed_out_before) {
    // relaxed: X's own word; what its successor finds below it, and not settled, it looks at again
    lane.ring_page->timed_out_below.store(lane.timed_out_below, std::memory_order_relaxed);
  }
  if (more) return;
  const bool moved = lane.marks.empty() ? lane.taken != lane.timed_out_below : lane.taken != lane.marks.back().taken;
  if (moved) lane.marks.note(*lane.ring_page, {served_ns, lane.taken}, timeout_ns, lane.timed_out_below);
}

// What an earlier exchange knew of the deliveries that a member has taken.
void Exchange::adopt_marks(Lane& lane, std::uint64_t served_ns) {
  const shm::MemberRing& page = *lane.ring_page;
  // relaxed, to the end: X's own words
  const std::uint64_t below = page.timed_out_below.load(std::memory_order_relaxed);
  lane.timed_out_below = below - lane.floor_entry <= lane.taken - lane.floor_entry ? below : lane.floor_entry;
  lane.marks.adopt(page, lane.taken, lane.timed_out_below, served_ns);
  lane.idle_taken = page.idle_taken.load(std::memory_order_relaxed);
  lane.idle_since_ns = std::min(page.idle_since_ns.load(std::memory_order_relaxed), served_ns);
  // Their time is over, but for extensions, which the sweep finds; there was no room for where they have to go.
  for (std::uint64_t entry = lane.floor_entry; entry != lane.timed_out_below; ++entry) {
    if (lane.state_of(entry) != 0 || lane.acks.seen(entry).verdict == Verdict::extend) continue;
    if (!lane.is_returned(entry)) lane.extended[entry] = {0, 0};
  }
}

std::uint64_t Exchange::served_at(std::uint64_t now_ns) const noexcept {
  return served_ns_ + (now_ns_ == 0 || now_ns < now_ns_ ? 0 : std::min(now_ns - now_ns_, longest_gap_ns));
}

// A tick that is late, or the first one, does not count as a long one: X was stopped or away, or the machine slept.
void Exchange::serve(std::uint64_t now_ns) {
  served_ns_ = served_at(now_ns);
  if (shard_ != 0) {
    // The lead's is what a successor goes on with. This one may be ahead of it, by what the lead alone could not run, and
    // never goes back: what was taken a moment ago would have timed out.
    // relaxed: a time
    served_ns_ = std::max(served_ns_, page_->served_ns.load(std::memory_order_relaxed));
    return;
  }
  // relaxed: X's own word; before the marks that this tick makes, so that no mark is of the future
  page_->served_ns.store(served_ns_, std::memory_order_relaxed);
}

void Exchange::sweep(Queue& queue, std::uint64_t now_ns) {
  if (queue.shard != shard_) return owner_of(queue).sweep(queue, now_ns);
  now_ns = latest_ns_ = std::max(latest_ns_, now_ns);
  queue.each_lane([&](Lane& lane) {
    if (lane.leaving) return;
    check_ack_page(lane);
    settle(lane);
    sweep_verdicts(lane, now_ns);
    expire(lane, now_ns);
  });
  if (queue.options.group) revoke_idle(queue, served_at(now_ns));
  release_due(queue, now_ns);
  queue.each_lane([&](Lane& lane) { settle(lane); });
}

}  // namespace ackring::exchange
