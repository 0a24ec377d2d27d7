#include "lib/client/fork_guard.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

namespace ackring::client {

struct ForkRegistry {
  std::mutex mutex;
  ForkGuard* first = nullptr;

  // Never destroyed: a fork may happen while the program's statics go.
  static ForkRegistry& get() {
    static ForkRegistry* const registry = [] {
      auto* made = new ForkRegistry;
      ::pthread_atfork(prepare, parent, child);
      return made;
    }();
    return *registry;
  }

  static void prepare() { get().mutex.lock(); }
  static void parent() { get().mutex.unlock(); }
  // Only async-signal-safe calls: other threads of the parent may have held any other lock.
  static void child() {
    ForkRegistry& registry = get();
    int null = -1;
    for (ForkGuard* guard = registry.first; guard != nullptr; guard = guard->next_) {
      // relaxed: the child has one thread
      guard->gone_.store(static_cast<std::uint32_t>(Gone::forked), std::memory_order_relaxed);
      for (const int fd : guard->descriptors_) {
        if (fd < 0) continue;
        if (null < 0) null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0) {
          // The table is full: the place of the descriptor itself is enough.
          ::close(fd);
          null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
          if (null == fd) {
            null = -1;
            continue;
          }
        }
        if (null >= 0) ::dup3(null, fd, O_CLOEXEC);
      }
    }
    if (null >= 0) ::close(null);
    registry.mutex.unlock();
  }
};

ForkGuard::ForkGuard() {
  ForkRegistry& registry = ForkRegistry::get();
  const std::lock_guard lock(registry.mutex);
  next_ = registry.first;
  if (next_ != nullptr) next_->previous_ = this;
  registry.first = this;
}

ForkGuard::~ForkGuard() {
  ForkRegistry& registry = ForkRegistry::get();
  const std::lock_guard lock(registry.mutex);
  (previous_ != nullptr ? previous_->next_ : registry.first) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

ForkGuard::Hold ForkGuard::hold() { return Hold(ForkRegistry::get().mutex); }

void ForkGuard::track(const Hold& /*held*/, std::size_t index, int fd) noexcept { descriptors_[index] = fd; }

}  // namespace ackring::client
