// Death at a shared store: an exception in its place. Clients' stores are not counted while the hook is not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/shm/environment.hpp"

namespace ackring::test {

struct Death {};

struct KillHook final : shm::EnvironmentHook {
  std::uint64_t stores = 0;
  std::uint64_t die_before = ~std::uint64_t{0};
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {
    if (stores++ == die_before) throw Death{};
  }
  std::uint64_t now_ns() override { return *clock; }
  const std::uint64_t* clock = nullptr;
};

}  // namespace ackring::test
