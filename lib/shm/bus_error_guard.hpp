// BusErrorGuard: reads of a mapped file survive that another process makes the file shorter.
//
// The kernel answers a read behind the end of a mapped file with SIGBUS. The handler looks whether the address lies in a
// guarded range; then it puts zero pages over the whole of that range, marks it, and lets the read go on, which finds
// zeros. Whoever owns the range sees the mark at its next look. Any other SIGBUS goes to the handler that was there before.
//
// Thread rules: guard_bus_errors() from any thread; a range belongs to one thread at a time, and is read by nobody while it
// comes or goes. The handler uses atomics and system calls only (async-signal-safe), and takes no lock; nor does anything
// else here, so that the child of a fork can use it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ackring::shm {

/// Installs the handler, once per process. The one that was there before is asked about all that is not in a guarded range.
/// Throws Error (system).
void guard_bus_errors();
/// Has guard_bus_errors() been called?
[[nodiscard]] bool bus_errors_guarded() noexcept;
/// Lets SIGBUS reach this thread: where a thread blocks it, the kernel ends the process whatever handler there is.
void unblock_bus_errors() noexcept;
/// Ranges that were found cut short so far: a cheap way to see that there is no new one. Never less than before.
[[nodiscard]] std::uint64_t bus_errors() noexcept;

/// A mapping of a file that others can make shorter, from its construction to its destruction.
class GuardedRange {
 public:
  GuardedRange() noexcept = default;
  /// Throws Error (no_space) where 1,048,576 ranges are guarded already.
  GuardedRange(const void* begin, std::size_t bytes);
  GuardedRange(GuardedRange&& other) noexcept;
  GuardedRange& operator=(GuardedRange&& other) noexcept;
  ~GuardedRange();

  /// Was it read where the file had ended? It is zero everywhere then, and stays so.
  [[nodiscard]] bool faulted() const noexcept;

  struct Entry;

 private:
  Entry* entry_ = nullptr;
};

}  // namespace ackring::shm
