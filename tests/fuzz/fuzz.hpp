// What all fuzzers share. A fuzzer is a function from bytes to nothing whose doctest assertions must hold for any bytes.
// Built with -Dfuzzers=true it becomes a libFuzzer program; otherwise replay_main.cpp calls it with the seed inputs and
// some random ones, as an ordinary test.
//
// Rules: what a fuzzer does depends on its input alone (virtual time, no names from outside), so that an input replays.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "lib/shm/environment.hpp"

/// libFuzzer's entry: one input.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace ackring::fuzz {

/// Bytes taken off the front of an input, as numbers. What is missing at its end is zero.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) noexcept : left_(data, size) {}

  [[nodiscard]] bool empty() const noexcept { return left_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return left_.size(); }
  std::uint8_t byte() noexcept { return static_cast<std::uint8_t>(little_endian(1)); }
  std::uint16_t half() noexcept { return static_cast<std::uint16_t>(little_endian(2)); }
  std::uint64_t word() noexcept { return little_endian(8); }
  /// A number below `bound` (at most 65,536) from one or two bytes.
  std::size_t below(std::size_t bound) noexcept { return (bound <= 256 ? byte() : half()) % bound; }
  bool chance() noexcept { return (byte() & 1) != 0; }
  /// A number near an edge, or any: where counters and lengths go wrong.
  std::uint64_t edgy() noexcept {
    const std::uint8_t how = byte();
    const std::uint64_t near = static_cast<std::uint64_t>(static_cast<std::int8_t>(byte()));
    switch (how % 6) {
      case 0:
        return near;
      case 1:
        return (std::uint64_t{1} << (how / 6 % 64)) + near;
      case 2:
        return std::uint64_t{byte()} << (how / 6 % 57);
      case 3:
        return half();
      default:
        return word();
    }
  }
  std::string_view text(std::size_t bytes) noexcept {
    bytes = std::min(bytes, left_.size());
    const std::string_view taken(reinterpret_cast<const char*>(left_.data()), bytes);
    left_ = left_.subspan(bytes);
    return taken;
  }
  std::string_view rest() noexcept { return text(left_.size()); }

 private:
  std::uint64_t little_endian(std::size_t bytes) noexcept {
    std::uint64_t value = 0;
    const std::size_t there = std::min(bytes, left_.size());
    for (std::size_t i = 0; i < there; ++i) value |= std::uint64_t{left_[i]} << (8 * i);
    left_ = left_.subspan(there);
    return value;
  }

  std::span<const std::uint8_t> left_;
};

/// Time that only the fuzzer moves, for the thread that it is made on; and a store of a hostile client's in the midst of
/// what the exchange does: before the n-th of its own stores.
class VirtualTime final : public shm::EnvironmentHook {
 public:
  VirtualTime() {
    virtual_time = true;
    shm::Environment::hook = this;
  }
  ~VirtualTime() override { shm::Environment::hook = nullptr; }
  VirtualTime(const VirtualTime&) = delete;
  VirtualTime& operator=(const VirtualTime&) = delete;

  /// `bytes` of `value` (at most 8) go to `target` before the n-th store from now; n = 0 takes it back.
  void store_before(std::size_t n, std::byte* target, std::uint64_t value, std::size_t bytes) noexcept {
    wait_ = n;
    target_ = target;
    value_ = value;
    bytes_ = bytes;
  }
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {
    if (wait_ != 0 && --wait_ == 0) std::memcpy(target_, &value_, bytes_);
  }
  std::uint64_t now_ns() override { return time_ns; }

  std::uint64_t time_ns = 1'000'000'000;

 private:
  std::size_t wait_ = 0;
  std::byte* target_ = nullptr;
  std::uint64_t value_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace ackring::fuzz
