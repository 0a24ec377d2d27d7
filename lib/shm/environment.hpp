// The environment of the core: the crash points and the clock go through here, the memory itself through memory.hpp.
//
// In production each function is the plain instruction. With ACKRING_TEST_ENVIRONMENT the same sources are compiled a
// second time (library `ackring-core-test`), and a test can stop the process model before the n-th shared store by
// throwing from `before_store`. Nothing in the core reads a clock or sleeps by itself: `now_ns` is the only source of time.
//
// Thread rules: the functions are as thread-safe as the words they touch; the hook is per thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ackring::shm {

#ifdef ACKRING_TEST_ENVIRONMENT
/// What a test installs to see, and to stop at, each shared store of this thread.
struct EnvironmentHook {
  virtual ~EnvironmentHook() = default;
  /// Called before each shared store (or copy) of the thread. May throw to model the death of the process.
  virtual void before_store(const void* where, std::size_t bytes) = 0;
  /// Virtual time in nanoseconds; called only where `virtual_time` is true.
  virtual std::uint64_t now_ns() = 0;
  bool virtual_time = false;
};

struct Environment {
  static inline thread_local EnvironmentHook* hook = nullptr;
  static void before_store(const void* where, std::size_t bytes) {
    if (hook != nullptr) hook->before_store(where, bytes);
  }
  static std::uint64_t now_ns();
};
#else
struct Environment {
  static constexpr void before_store(const void* /*where*/, std::size_t /*bytes*/) noexcept {}
  static std::uint64_t now_ns();
};
#endif

}  // namespace ackring::shm
