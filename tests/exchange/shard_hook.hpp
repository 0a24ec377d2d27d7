// Death of one shard of several: as in kill_hook.hpp, by points of its own.
#pragma once

#include "tests/exchange/kill_hook.hpp"

namespace ackring::test {

/// Counts what one shard does, from a moment on.
struct ShardHook final : shm::EnvironmentHook {
  std::uint64_t points = 0;
  std::uint64_t die_before = ~std::uint64_t{0};
  bool no_topics = false;  // another one holds the mutex for good
  bool in_topic = false;
  const std::uint64_t* clock = nullptr;
  ShardHook() { virtual_time = true; }
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override { pass(); }
  void before_call(shm::CrashPoint /*call*/) override { pass(); }
  void at(shm::CrashPoint step) override {
    in_topic = step == shm::CrashPoint::route_topic;
    if (in_topic && no_topics) throw Death{};
  }
  std::uint64_t now_ns() override { return *clock; }

 private:
  void pass() {
    if (points++ == die_before) throw Death{};
  }
};

}  // namespace ackring::test
