// Death at a shared store or before a call that changes a file: an exception in its place. Clients' stores are not counted
// while the hook is not installed.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "lib/shm/environment.hpp"

namespace ackring::test {

struct Death {};

/// How often each named point was the place of a death, over all enumerations of this program.
inline std::array<std::uint64_t, shm::crash_point_names.size()> deaths_at{};
/// The steps that were passed at all.
inline std::bitset<shm::crash_point_names.size()> passed_at;

/// A death counts for the call in whose place it is, for the step that it is in, and for those that began since the last
/// store or call: between two of these nothing changes, so that they are one and the same point.
struct KillHook final : shm::EnvironmentHook {
  std::uint64_t points = 0;
  std::uint64_t die_before = ~std::uint64_t{0};
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override { pass(); }
  void at(shm::CrashPoint step) override {
    step_ = step;
    passed_at.set(static_cast<std::size_t>(step));
    begun_.set(static_cast<std::size_t>(step));
  }
  void before_call(shm::CrashPoint call) override {
    if (points == die_before) ++deaths_at[static_cast<std::size_t>(call)];
    pass();
  }
  std::uint64_t now_ns() override { return *clock; }
  const std::uint64_t* clock = nullptr;

 private:
  void pass() {
    if (points++ == die_before) {
      for (std::size_t step = 0; step < begun_.size(); ++step) deaths_at[step] += begun_[step] ? 1 : 0;
      throw Death{};
    }
    begun_.reset();
    if (step_) begun_.set(static_cast<std::size_t>(*step_));
  }

  std::optional<shm::CrashPoint> step_;
  std::bitset<shm::crash_point_names.size()> begun_;  // since the last store or call, or before it and not ended
};

}  // namespace ackring::test
