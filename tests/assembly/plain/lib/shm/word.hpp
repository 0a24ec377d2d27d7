// Stands in for lib/shm/word.hpp (see memory.hpp beside it): a word is a std::atomic, its accesses are those of std::atomic.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "lib/shm/memory.hpp"

namespace ackring::shm {

template <class T>
class Word : public std::atomic<T> {
 public:
  Word() = default;
  void raise(T value, std::memory_order order) {
    T seen = this->load(std::memory_order_relaxed);
    while (static_cast<std::make_signed_t<T>>(value - seen) > 0 &&
           !this->compare_exchange_weak(seen, value, order, std::memory_order_relaxed)) {
    }
  }
  bool compare_exchange(T expected, T desired, std::memory_order order) {
    return this->compare_exchange_strong(expected, desired, order, std::memory_order_relaxed);
  }
};

inline constexpr std::size_t cache_line_bytes = 64;

inline void prefetch_for_write(const void* where) noexcept {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(where)));
#else
  __builtin_prefetch(where, 1);
#endif
}

}  // namespace ackring::shm
