// Memory: how the core reaches shared memory. Each load, store and exchange of a word, each fence, and each look at or
// copy of plain bytes there goes through here.
//
// In production each function is the plain instruction (scripts/compare-assembly shows that nothing else is left). With
// ACKRING_TEST_ENVIRONMENT a test can install a MemoryHook, which then plays the memory: tests/interleave lets it decide
// which role goes on and which of the values that the memory model allows a load returns.
//
// Thread rules: as those of std::atomic; the hook is per thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lib/shm/environment.hpp"

namespace ackring::shm {

#ifdef ACKRING_TEST_ENVIRONMENT
/// Memory as a test plays it. Words are of up to eight bytes; their values come and go as 64 bits. May switch to another
/// role (fibre) in each function, and does not throw.
class MemoryHook {
 public:
  virtual ~MemoryHook() = default;
  virtual std::uint64_t load(const void* word, std::size_t bytes, std::memory_order order) = 0;
  virtual void store(void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) = 0;
  /// Returns the value before.
  virtual std::uint64_t fetch_add(void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) = 0;
  /// False: `expected` becomes what is there instead. A failure is a relaxed load.
  virtual bool exchange_if(void* word, std::size_t bytes, std::uint64_t& expected, std::uint64_t desired,
                           std::memory_order order) = 0;
  virtual void fence(std::memory_order order) = 0;
  /// Keeps the compiler from moving anything across it; a full barrier for those who call everyone_fences().
  virtual void compiler_fence(std::memory_order order) = 0;
  /// membarrier of all processes. False: there is none.
  virtual bool everyone_fences() = 0;
  /// Plain bytes that nobody may be using meanwhile are written (`from` is nullptr: in place, right after the call).
  virtual void write(void* to, const void* from, std::size_t bytes) = 0;
  /// Plain bytes that nobody may be changing meanwhile are read in place, right after the call.
  virtual void read(const void* from, std::size_t bytes) = 0;
  /// Plain bytes that may be changing meanwhile are copied; the caller finds out later, and throws the copy away.
  virtual void read_changing(void* to, const void* from, std::size_t bytes) = 0;
};
inline thread_local MemoryHook* memory_hook = nullptr;
#endif

struct Memory {
  template <class T>
  [[nodiscard]] static T load(const std::atomic<T>& word, std::memory_order order) noexcept {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) return static_cast<T>(memory_hook->load(&word, sizeof(T), order));
#endif
    return word.load(order);
  }

  template <class T>
  static void store(std::atomic<T>& word, T value, std::memory_order order) {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) return memory_hook->store(&word, sizeof(T), static_cast<std::uint64_t>(value), order);
#endif
    word.store(value, order);
  }

  template <class T>
  static T fetch_add(std::atomic<T>& word, T value, std::memory_order order) {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) return static_cast<T>(memory_hook->fetch_add(&word, sizeof(T), value, order));
#endif
    return word.fetch_add(value, order);
  }

  /// One exchange. False: `expected` becomes what is there. `may_fail`: it may also fail for no reason, which is cheaper
  /// in a loop.
  template <bool may_fail, class T>
  static bool exchange_if(std::atomic<T>& word, T& expected, T desired, std::memory_order order) {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) {
      std::uint64_t seen = expected;
      const bool done = memory_hook->exchange_if(&word, sizeof(T), seen, desired, order);
      expected = static_cast<T>(seen);
      return done;
    }
#endif
    // relaxed: of a failure the caller learns only what is there instead.
    if constexpr (may_fail) return word.compare_exchange_weak(expected, desired, order, std::memory_order_relaxed);
    return word.compare_exchange_strong(expected, desired, order, std::memory_order_relaxed);
  }

  static void fence(std::memory_order order) noexcept {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) return memory_hook->fence(order);
#endif
    std::atomic_thread_fence(order);
  }

  /// Order for the compiler only: whoever needs more passes a barrier through this thread (membarrier).
  static void compiler_fence(std::memory_order order) noexcept {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) return memory_hook->compiler_fence(order);
#endif
    std::atomic_signal_fence(order);
  }

  /// Plain shared bytes are about to be written in place: a crash point.
  static void writing(void* to, std::size_t bytes) {
    Environment::before_store(to, bytes);
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) memory_hook->write(to, nullptr, bytes);
#endif
  }

  /// Plain shared bytes, published by an acquire before, are about to be read in place.
  static void reading([[maybe_unused]] const void* from, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) memory_hook->read(from, bytes);
#endif
  }

  /// Copies plain shared bytes that may be changing meanwhile; the caller finds out afterwards whether they did.
  static void copy_changing(void* to, const void* from, std::size_t bytes) noexcept {
#ifdef ACKRING_TEST_ENVIRONMENT
    if (memory_hook != nullptr) return memory_hook->read_changing(to, from, bytes);
#endif
    std::memcpy(to, from, bytes);
  }
};

/// Copies `bytes` into shared memory: one crash point, no ordering (the store that publishes it orders it).
inline void shared_copy(void* to, const void* from, std::size_t bytes) {
  Environment::before_store(to, bytes);
#ifdef ACKRING_TEST_ENVIRONMENT
  if (memory_hook != nullptr) return memory_hook->write(to, from, bytes);
#endif
  if (bytes - 16 <= 48) {  // 16 to 64: a few moves that may overlap cost less than a call
    auto* target = static_cast<std::byte*>(to);
    const auto* source = static_cast<const std::byte*>(from);
    if (bytes > 32) {
      std::memcpy(target, source, 32);
      std::memcpy(target + bytes - 32, source + bytes - 32, 32);
    } else {
      std::memcpy(target, source, 16);
      std::memcpy(target + bytes - 16, source + bytes - 16, 16);
    }
    return;
  }
  std::memcpy(to, from, bytes);
}

}  // namespace ackring::shm
