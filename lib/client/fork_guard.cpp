#include "lib/client/fork_guard.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ackring::client {

namespace {

// What the kernel answers to getdents64, since readdir() may allocate.
struct DirectoryEntry {
  std::uint64_t inode;
  std::int64_t next;
  std::uint16_t bytes;
  std::uint8_t type;
  char name[1];
};

// Replaces descriptors by /dev/null. Async-signal-safe, as all that a child of a fork may do.
class Eraser {
 public:
  Eraser() = default;
  Eraser(const Eraser&) = delete;
  Eraser& operator=(const Eraser&) = delete;
  ~Eraser() {
    if (null_ >= 0) ::close(null_);
  }

  void erase(int fd) noexcept {
    if (fd < 0) return;
    if (null_ < 0) null_ = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_ < 0) {
      // The table is full: the place of the descriptor itself is enough.
      ::close(fd);
      null_ = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      if (null_ == fd) {
        null_ = -1;
        return;
      }
    }
    while (null_ >= 0 && ::dup3(null_, fd, O_CLOEXEC) < 0 && errno == EINTR) {
    }
  }

  /// Every socket of this address.
  void erase_sockets(const sockaddr_un& address, socklen_t bytes) noexcept {
    const int directory = ::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {  // no /proc, or the table is full
      constexpr int most = 65'536;
      for (int fd = 0; fd < most; ++fd) erase_if(fd, address, bytes);
      return;
    }
    alignas(DirectoryEntry) std::byte buffer[4096];
    long got = 0;
    while ((got = ::syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0) {
      for (long at = 0; at < got;) {
        const auto* entry = reinterpret_cast<const DirectoryEntry*>(buffer + at);
        at += entry->bytes;
        int fd = 0;
        const char* digit = entry->name;
        for (; *digit >= '0' && *digit <= '9'; ++digit) fd = 10 * fd + (*digit - '0');
        if (digit != entry->name && fd != directory) erase_if(fd, address, bytes);
      }
    }
    ::close(directory);
  }

 private:
  void erase_if(int fd, const sockaddr_un& address, socklen_t bytes) noexcept {
    sockaddr_un its{};
    socklen_t its_bytes = sizeof its;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&its), &its_bytes) != 0 || its_bytes != bytes) return;
    if (std::memcmp(&its, &address, bytes) == 0) erase(fd);
  }

  int null_ = -1;
};

}  // namespace

struct ForkRegistry {
  std::mutex mutex;
  ForkGuard* first = nullptr;
  HostForkGuard* first_host = nullptr;

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
    {
      Eraser eraser;
      for (ForkGuard* guard = registry.first; guard != nullptr; guard = guard->next_) {
        // relaxed: the child has one thread
        guard->gone_.store(static_cast<std::uint32_t>(Gone::forked), std::memory_order_relaxed);
        for (const int fd : guard->descriptors_) eraser.erase(fd);
      }
      for (HostForkGuard* guard = registry.first_host; guard != nullptr; guard = guard->next_) {
        for (const int fd : guard->descriptors_) eraser.erase(fd);
        if (guard->address_bytes_ != 0) eraser.erase_sockets(guard->address_, guard->address_bytes_);
      }
    }
    registry.mutex.unlock();
  }

  template <class Guard>
  static void add(Guard& guard, Guard* ForkRegistry::*list) {
    ForkRegistry& registry = get();
    const std::lock_guard lock(registry.mutex);
    guard.next_ = registry.*list;
    if (guard.next_ != nullptr) guard.next_->previous_ = &guard;
    registry.*list = &guard;
  }
  template <class Guard>
  static void remove(Guard& guard, Guard* ForkRegistry::*list) {
    ForkRegistry& registry = get();
    const std::lock_guard lock(registry.mutex);
    (guard.previous_ != nullptr ? guard.previous_->next_ : registry.*list) = guard.next_;
    if (guard.next_ != nullptr) guard.next_->previous_ = guard.previous_;
  }
};

ForkGuard::ForkGuard() { ForkRegistry::add(*this, &ForkRegistry::first); }

ForkGuard::~ForkGuard() { ForkRegistry::remove(*this, &ForkRegistry::first); }

HostForkGuard::HostForkGuard() { ForkRegistry::add(*this, &ForkRegistry::first_host); }

HostForkGuard::~HostForkGuard() { ForkRegistry::remove(*this, &ForkRegistry::first_host); }

void HostForkGuard::track(const ForkGuard::Hold& /*held*/, std::span<const int> descriptors, int listener) noexcept {
  descriptors_.fill(-1);
  std::copy_n(descriptors.begin(), std::min(descriptors.size(), descriptors_.size()), descriptors_.begin());
  address_bytes_ = sizeof address_;
  if (listener < 0 || ::getsockname(listener, reinterpret_cast<sockaddr*>(&address_), &address_bytes_) != 0) {
    address_bytes_ = 0;
  }
}

void HostForkGuard::forget(const ForkGuard::Hold& /*held*/) noexcept {
  descriptors_.fill(-1);
  address_bytes_ = 0;
}

ForkGuard::Hold ForkGuard::hold() { return Hold(ForkRegistry::get().mutex); }

void ForkGuard::track(const Hold& /*held*/, std::size_t index, int fd) noexcept { descriptors_[index] = fd; }

}  // namespace ackring::client
