// Stands in for lib/shm/memory.hpp when scripts/compare-assembly compiles the hot functions for comparison: plain atomics and
// plain copies, and nothing of a test environment.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lib/shm/environment.hpp"

namespace ackring::shm {

struct Memory {
  [[gnu::always_inline]] static void fence(std::memory_order order) noexcept { std::atomic_thread_fence(order); }
  [[gnu::always_inline]] static void compiler_fence(std::memory_order order) noexcept {
    std::atomic_signal_fence(order);
  }
  [[gnu::always_inline]] static void writing(void* /*to*/, std::size_t /*bytes*/) noexcept {}
  [[gnu::always_inline]] static void reading(const void* /*from*/, std::size_t /*bytes*/) noexcept {}
  [[gnu::always_inline]] static void copy_changing(void* to, const void* from, std::size_t bytes) noexcept {
    std::memcpy(to, from, bytes);
  }
};

inline void shared_copy(void* to, const void* from, std::size_t bytes) {
  if (bytes - 16 <= 48) {  // as in the original, which has the reason
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
