// Parking on a bell. When to park is told by lib/shm/backoff.hpp.
//
// Protocol (F10): the side that wants to sleep stores its parked word, calls `barrier_for_parker()`, looks once more
// for work, and only then sleeps. The side that makes work stores it, calls `fence_for_waker()` (nothing where
// membarrier works), loads the parked word, and rings the bell if it is set. membarrier makes the two-sided fence out
// of one slow call on the side that has time. Parks are bounded all the same.
#pragma once

#include <cstdint>
#include <utility>

#include "lib/shm/descriptor.hpp"
#include "lib/shm/memory.hpp"

namespace ackring::shm {

/// Registers this process for membarrier; false where the kernel does not have it. Once per process; thread-safe.
bool register_membarrier() noexcept;
/// Full barrier in every running thread of every registered process. Falls back to a fence of this thread.
void barrier_for_parker() noexcept;
/// What the waking side needs between its store and its load of the parked word. `fence_required`: some process of
/// the bus has no membarrier.
inline void fence_for_waker(bool fence_required) noexcept {
  if (fence_required) {
    Memory::fence(std::memory_order_seq_cst);  // seq_cst(park.fallback) both sides fence without membarrier
  } else {
    // seq_cst(park.compiler) order only; the parker's barrier orders
    Memory::compiler_fence(std::memory_order_seq_cst);
  }
}

/// One end of a doorbell: a non-blocking socket. Ringing never blocks; a full socket means that it is rung already.
class Bell {
 public:
  Bell() noexcept = default;
  explicit Bell(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  /// Both ends. Throws Error (no_space when descriptors are exhausted).
  static std::pair<Bell, Bell> make_pair();

  /// False: the other end is closed.
  bool ring() const noexcept;
  /// Takes back all rings. False: the other end is closed.
  bool drain() const noexcept;
  /// Sleeps until rung or `timeout_ns` passed. True if rung (rings are drained). False after a millisecond already where
  /// the other end is closed: nobody rings then, so the caller looks by itself.
  bool wait(std::uint64_t timeout_ns) const noexcept;
  /// Goes on with the end `other` of another pair, under the number of the present one. Throws Error (no_space, system).
  void replace(const UniqueFd& other);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] int release() noexcept { return fd_.release(); }
  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }

 private:
  UniqueFd fd_;
};

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

}  // namespace ackring::shm
