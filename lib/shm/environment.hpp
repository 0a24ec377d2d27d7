// The environment of the core: the crash points and the clock go through here, the memory itself through memory.hpp.
//
// In production each function is the plain instruction. With ACKRING_TEST_ENVIRONMENT the same sources are compiled a
// second time (library `ackring-core-test`), and a test can stop the process model before the n-th shared store, named
// step or call that changes a file, by throwing from the hook. Nothing in the core reads a clock or sleeps by itself: `now_ns` is the only source of time.
//
// Thread rules: the functions are as thread-safe as the words they touch; the hook is per thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/shm/crash_points.hpp"

namespace ackring::shm {

#ifdef ACKRING_TEST_ENVIRONMENT
/// What a test installs to see, and to stop at, each shared store of this thread.
struct EnvironmentHook {
  virtual ~EnvironmentHook() = default;
  /// Called before each shared store (or copy) of the thread. May throw to model the death of the process.
  virtual void before_store(const void* where, std::size_t bytes) = 0;
  /// Called where a named step begins. May throw as above.
  virtual void at(CrashPoint /*step*/) {}
  /// Called before each system call that changes a file or its name. May throw as above.
  virtual void before_call(CrashPoint /*call*/) {}
  /// Virtual time in nanoseconds; called only where `virtual_time` is true.
  virtual std::uint64_t now_ns() = 0;
  bool virtual_time = false;
};

struct Environment {
  static inline thread_local EnvironmentHook* hook = nullptr;
  static void before_store(const void* where, std::size_t bytes) {
    if (hook != nullptr) hook->before_store(where, bytes);
  }
  static void at(CrashPoint step) {
    if (hook != nullptr) hook->at(step);
  }
  static void before_call(CrashPoint call) {
    if (hook != nullptr) hook->before_call(call);
  }
  /// What removes files throws nothing, but for the death that a test models.
  static constexpr bool dies_nowhere = false;
  static std::uint64_t now_ns();
};
#else
struct Environment {
  static constexpr void before_store(const void* /*where*/, std::size_t /*bytes*/) noexcept {}
  static constexpr void at(CrashPoint /*step*/) noexcept {}
  static constexpr void before_call(CrashPoint /*call*/) noexcept {}
  static constexpr bool dies_nowhere = true;
  static std::uint64_t now_ns();
};
#endif

}  // namespace ackring::shm
