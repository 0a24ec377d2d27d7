// Death at a shared store, at a named step or before a call that changes a file: an exception in its place. Clients' stores
// are not counted while the hook is not installed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "lib/shm/environment.hpp"

namespace ackring::test {

struct Death {};

/// How often each named point was the place of a death, over all enumerations of this program.
inline std::array<std::uint64_t, shm::crash_point_names.size()> deaths_at{};

struct KillHook final : shm::EnvironmentHook {
  std::uint64_t points = 0;
  std::uint64_t die_before = ~std::uint64_t{0};
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override { pass(); }
  void at(shm::CrashPoint step) override {
    step_ = step;
    named_ = true;
    pass();
  }
  void before_call(shm::CrashPoint call) override { pass(call); }
  std::uint64_t now_ns() override { return *clock; }
  const std::uint64_t* clock = nullptr;

 private:
  void pass() {
    if (points++ != die_before) return;
    if (named_) ++deaths_at[static_cast<std::size_t>(step_)];
    throw Death{};
  }
  void pass(shm::CrashPoint call) {
    if (points++ != die_before) return;
    ++deaths_at[static_cast<std::size_t>(call)];
    throw Death{};
  }

  shm::CrashPoint step_{};
  bool named_ = false;  // step_ has begun
};

}  // namespace ackring::test
