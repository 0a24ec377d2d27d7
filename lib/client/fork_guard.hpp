// What a fork does to a client (F8): the child must neither keep the parent's kernel lock and sockets alive nor touch
// its shared memory. Every connection and endpoint owns one ForkGuard; in the child of a fork each guard is marked gone
// and the descriptors it tracks are replaced by /dev/null, so that their numbers stay taken and harmless. A client that hosts
// the exchange has a HostForkGuard as well: the child has neither the lock of the bus nor the connections of its clients, so
// that they see the death of the parent, and one of them can take over.
//
// Thread rules: any thread. Descriptors are tracked, and received, while hold() is held: no fork happens meanwhile.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "lib/shm/format.hpp"

namespace ackring::client {

enum class Gone : std::uint32_t {
  no = 0,
  closed = 1,  // the exchange does not know it any more, or it was closed
  left = 2,    // its handle was destroyed
  forked = 3,  // this process is a child of the one that owns it
};

class ForkGuard {
 public:
  using Hold = std::unique_lock<std::mutex>;

  ForkGuard();
  ~ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

  /// As long as it is held, no fork happens in this process.
  [[nodiscard]] static Hold hold();

  /// The hot path asks this before it touches shared memory.
  [[nodiscard]] bool open() const noexcept {
    // relaxed: in the child of a fork its only thread stored it; elsewhere a late look does no harm
    return gone_.load(std::memory_order_relaxed) == 0;
  }
  [[nodiscard]] Gone gone() const noexcept {
    return static_cast<Gone>(gone_.load(std::memory_order_relaxed));  // relaxed: as in open()
  }
  /// The first reason stays, but for a fork.
  void close(Gone why) {
    // relaxed: nothing is published by it
    (void)gone_.compare_exchange(0, static_cast<std::uint32_t>(why), std::memory_order_relaxed);
  }

  /// `fd` (or -1: none any more) goes in the child. `index` < 4.
  void track(const Hold& held, std::size_t index, int fd) noexcept;

 private:
  friend struct ForkRegistry;
  shm::Word32 gone_{};
  std::array<int, 4> descriptors_{-1, -1, -1, -1};
  ForkGuard* next_ = nullptr;
  ForkGuard* previous_ = nullptr;
};

/// Of an exchange on a thread of this process. What a child keeps of it (its ends of doorbells, descriptors of lock files
/// that it does not lock) holds nobody up, and goes with an exec.
class HostForkGuard {
 public:
  HostForkGuard();
  ~HostForkGuard();
  HostForkGuard(const HostForkGuard&) = delete;
  HostForkGuard& operator=(const HostForkGuard&) = delete;

  /// These go in the child, and so does every socket that has the address of `listener` (or -1), as all have which came
  /// out of it: the exchange's thread takes connections without holding anything.
  void track(const ForkGuard::Hold& held, std::span<const int> descriptors, int listener) noexcept;
  /// Before the exchange closes them.
  void forget(const ForkGuard::Hold& held) noexcept;

 private:
  friend struct ForkRegistry;
  std::array<int, 4> descriptors_{-1, -1, -1, -1};
  sockaddr_un address_{};
  socklen_t address_bytes_ = 0;  // 0: there is none
  HostForkGuard* next_ = nullptr;
  HostForkGuard* previous_ = nullptr;
};

/// Deleter of shared handles: what belongs to the parent of a fork is left alone, since its threads and mappings are
/// not there.
struct UnlessForked {
  template <class T>
  void operator()(T* object) const {
    if (object->guard().gone() != Gone::forked) delete object;
  }
};

}  // namespace ackring::client
