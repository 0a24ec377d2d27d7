// Monitor: looks after what workers are at: long calls keep their deliveries, what waits behind one goes back to the queue,
// and the breaker's state gets to where people see it.
#include <algorithm>

#include "lib/runtime/task.hpp"

namespace ackring::runtime {

namespace {
constexpr std::uint64_t usual_look_ns = 20'000'000;
constexpr std::uint64_t idle_look_ns = 100'000'000;
constexpr std::uint64_t shortest_look_ns = 300'000;
}  // namespace

// Three looks within an ack timeout, at least: one that comes late does no harm.
std::uint64_t Task::watch_every_ns(bool busy) const noexcept {
  return std::clamp(ack_timeout_ns_ / 3, shortest_look_ns, busy ? usual_look_ns : idle_look_ns);
}

bool Task::watch(std::uint64_t now_ns) {
  look_at_breaker(now_ns);
  bool any = false;
  for (const auto& batch : batches_) {
    const std::lock_guard lock(batch->mutex);
    if (!batch->active) continue;
    any = true;
    if (!at_most_once_) watch(*batch, now_ns);
  }
  return any;
}

void Task::watch(Batch& batch, std::uint64_t now_ns) {
  if (now_ns < batch.taken_ns) return;  // it was filled since
  const bool overdue = now_ns - batch.taken_ns >= longest_call_ns_;
  if (overdue && !batch.overdue) {
    batch.overdue = true;
    (void)overdue_.fetch_add(1, std::memory_order_relaxed);  // relaxed: a number for people
  }
  if (!overdue && now_ns - batch.extended_ns >= ack_timeout_ns_ / 3) {
    batch.extended_ns = now_ns;
    // Those with a verdict answer that they have one.
    for (std::size_t at = 0; at < batch.count; ++at) {
      (void)member_->extend(batch.views[at].entry, Nanoseconds(ack_timeout_ns_));
    }
  }
  // A batch is meant to take a millisecond. One that stands still since the last look has met a long call: others, or this
  // handler later, can have what waits behind it. Where keys have an order it stays.
  const std::uint32_t claimed = batch.claimed.load(std::memory_order_relaxed);  // relaxed: two looks are compared
  if (claimed == batch.seen && claimed < batch.count && !by_key_) give_back_rest(batch);
  batch.seen = claimed;
}

void Task::look_at_breaker(std::uint64_t now_ns) {
  if (now_ns - breaker_look_ns_ < usual_look_ns && breaker_look_ns_ != 0) return;
  breaker_look_ns_ = now_ns;
  const shm::BreakerOrder order = member_->breaker_order();
  breaker_.order(order == shm::BreakerOrder::open     ? BreakerOrder::open
                 : order == shm::BreakerOrder::closed ? BreakerOrder::closed
                                                      : BreakerOrder::automatic,
                 now_ns);
  const BreakerView view = breaker_.view();
  if (view == shown_ && shown_once_) return;
  shown_ = view;
  shown_once_ = true;
  const auto state = view.state == CircuitState::closed      ? shm::BreakerState::closed
                     : view.state == CircuitState::half_open ? shm::BreakerState::half_open
                                                             : shm::BreakerState::open;
  member_->show_breaker(state, view.failures, view.since_ns, view.opened);
}

}  // namespace ackring::runtime
