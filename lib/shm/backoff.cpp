#include "lib/shm/backoff.hpp"

#include <sched.h>
#include <sys/sysinfo.h>

#include <algorithm>

#include "lib/shm/environment.hpp"
#include "lib/shm/park.hpp"

namespace ackring::shm {
namespace {

// Rounds that a side spins before it yields: what a burst's next event needs to come, and less than sleeping would cost.
constexpr std::uint32_t adaptive_spins = 128;
// As long as about two sleeps and wake-ups take on a virtual machine, both hops of an event.
constexpr std::uint64_t adaptive_most_ns = 150'000;
// A shorter window is none.
constexpr std::uint64_t least_window_ns = 5'000;
// A yield that takes longer has let another thread run: there and back are two switches, and none is a fraction of this.
constexpr std::uint64_t lone_yield_ns = 3'000;
// One let the other side begin, perhaps with what a third one made; what the next ones brought was not for us.
constexpr std::uint32_t most_vain_yields = 10;
// A yield that takes so long went to a thread that uses its slice up (2.8 ms and more) and gives nothing back before. Who sleeps
// is let run in place of such a thread as soon as it is woken; who yields has to wait for it.
constexpr std::uint64_t slice_ns = 2'500'000;
// One alone may have been the hypervisor; a second one within so many waits is not.
constexpr std::uint32_t waits_between_slices = 16;
// So many waits sleep at once after that: what looking anew costs then is in no p99.
constexpr std::uint32_t waits_after_slices = 1'000;
// So much work between two long waits is a stream: while it has a gap, looking for its end costs little beside it.
constexpr std::uint32_t stream = 16;

Backoff::Limits limits_of(Wait wait, Side side) noexcept {
  switch (wait) {
    case Wait::spin:
      return {.spins = Backoff::endless};
    case Wait::park:
      return {};
    case Wait::adaptive:
      break;
  }
  static const bool only_core = ::get_nprocs() == 1;
  return {.spins = adaptive_spins,
          .most_yield_ns = adaptive_most_ns,
          .only_core = only_core,
          .gives_way = side == Side::exchange};
}

}  // namespace

Backoff::Backoff(Wait wait, Side side) noexcept : Backoff(limits_of(wait, side)) {}

Backoff::Step Backoff::next() const noexcept {
  if (crowded_waits_ != 0) return Step::park;
  if (round_ < spins_ && !shared_) return Step::spin;
  if (limits_.only_core && alone_) return Step::park;
  if (vain_ >= most_vain_yields) return Step::park;
  return last_ns_ - since_ns_ < window_ns_ ? Step::yield : Step::park;
}

void Backoff::slow_down(std::uint64_t now_ns) noexcept {
  if (slow_) return;
  slow_ = true;
  since_ns_ = last_ns_ = now_ns;
}

void Backoff::yielded(std::uint64_t before_ns, std::uint64_t after_ns) noexcept {
  last_ns_ = after_ns;
  alone_ = after_ns - before_ns < lone_yield_ns;
  if (alone_) return;
  ++vain_;
  if (limits_.gives_way && after_ns - before_ns >= slice_ns) {
    if (slice_waits_ != 0) crowded_waits_ = waits_after_slices + 1;  // this one, too
    slice_waits_ = waits_between_slices + 1;
  }
  since_ns_ += after_ns - before_ns;  // nothing was wasted on looking
}

Backoff::Step Backoff::wait() noexcept {
  const Step step = next();
  if (step == Step::spin) {
    spun();
    if (round_ > spins_without_pause) cpu_relax();
    return step;
  }
  if (limits_.most_yield_ns == 0) return step;
  const std::uint64_t before_ns = Environment::now_ns();
  slow_down(before_ns);
  if (step == Step::yield) {
    ::sched_yield();
    yielded(before_ns, Environment::now_ns());
  }
  return step;
}

void Backoff::end(bool found) noexcept {
  const std::uint64_t waited_ns = last_ns_ - since_ns_;
  if (quick_ >= stream) {
    window_ns_ = limits_.most_yield_ns;
  } else if (found && waited_ns <= limits_.most_yield_ns) {
    window_ns_ = std::max(window_ns_, std::min(limits_.most_yield_ns, 2 * waited_ns));
  } else {
    window_ns_ = window_ns_ < 2 * least_window_ns ? 0 : window_ns_ / 2;
  }
  shared_ = vain_ != 0;
  if (crowded_waits_ != 0) --crowded_waits_;
  if (slice_waits_ != 0) --slice_waits_;
  slow_ = alone_ = false;
  vain_ = quick_ = 0;
  since_ns_ = last_ns_ = 0;
}

}  // namespace ackring::shm
