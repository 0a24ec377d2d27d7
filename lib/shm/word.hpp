// Word<T>: one lock-free integer in shared memory, with one writer. Every access names its memory order.
//
// The partners of each release and acquire are named at the call, as `release(label)` and `acquire(label)`;
// tests/tidy checks that they pair up.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "lib/shm/memory.hpp"

namespace ackring::shm {

template <class T>
class Word {
  static_assert(std::is_integral_v<T>);
  static_assert(std::atomic<T>::is_always_lock_free);

 public:
  Word() = default;

  [[nodiscard]] T load(std::memory_order order) const noexcept { return Memory::load(value_, order); }

  void store(T value, std::memory_order order) {
    Environment::before_store(this, sizeof(T));
    Memory::store(value_, value, order);
  }

  /// For words that several threads of one process write (acks): raises the word to `value` if it is below it.
  void raise(T value, std::memory_order order) {
    Environment::before_store(this, sizeof(T));
    T seen = Memory::load(value_, std::memory_order_relaxed);  // stale is safe: the exchange below compares again
    while (static_cast<std::make_signed_t<T>>(value - seen) > 0 &&
           !Memory::exchange_if<true>(value_, seen, value, order)) {
    }
  }

  /// The value before. For words that several threads of one process write.
  T fetch_add(T value, std::memory_order order) {
    Environment::before_store(this, sizeof(T));
    return Memory::fetch_add(value_, value, order);
  }

  bool compare_exchange(T expected, T desired, std::memory_order order) {
    Environment::before_store(this, sizeof(T));
    return Memory::exchange_if<false>(value_, expected, desired, order);
  }

 private:
  std::atomic<T> value_;
};

static_assert(sizeof(Word<std::uint64_t>) == 8 && sizeof(Word<std::uint32_t>) == 4 && sizeof(Word<std::uint8_t>) == 1);

inline constexpr std::size_t cache_line_bytes = 64;

/// Asks for a cache line in order to write it. `__builtin_prefetch(p, 1)` asks for reading only where the compiler may
/// not assume PRFCHW; every 64-bit x86 decodes the instruction, the oldest ones as nothing.
inline void prefetch_for_write(const void* where) noexcept {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(where)));
#else
  __builtin_prefetch(where, 1);
#endif
}

}  // namespace ackring::shm
