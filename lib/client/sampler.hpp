// Sampler: how long after its publish a delivery was taken, and acked, as this member sees it.
//
// A look at the clock costs as much as a take. So one delivery in 16 is measured and stands for 16, by its entry number:
// where events come fast nobody can tell. Where they come so slowly that the member slept before it, one in 16 would be
// seldom; there, each is measured and stands for itself, or for the batch that it is the first of, which costs nothing
// beside the sleep.
//
// Thread rules: slept() and taken() are the taking thread's; acked() and acked_through() come from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "lib/shm/environment.hpp"
#include "lib/shm/latency.hpp"

namespace ackring::client {

class Sampler {
 public:
  static constexpr std::uint64_t stride = 16;
#if defined(ACKRING_NO_METRICS)
  static constexpr bool enabled = false;
#else
  static constexpr bool enabled = true;
#endif

  /// Where it counts; before anything else.
  void measure_into(shm::MemberLatency& latency) noexcept { latency_ = &latency; }

  /// The next delivery is one for which the member slept.
  void slept() noexcept { slept_ = true; }

  /// Entries from `first` to `end` - 1 were taken; `record` is that of `first`.
  void taken(std::uint64_t first, std::uint64_t end, const std::byte* record) {
    if (!enabled) return;
    const std::uint64_t strides = (end + stride - 1) / stride - (first + stride - 1) / stride;  // that begin in them
    if ((strides | static_cast<std::uint64_t>(slept_)) != 0) [[unlikely]]
      measure_taken(first, end - first, strides, record);
  }
  /// Is the ack of this entry to be measured?
  [[nodiscard]] bool wants(std::uint64_t entry) const noexcept {
    return enabled && (static_cast<unsigned>(entry % stride == 0) | static_cast<unsigned>(is_slow(entry))) != 0;
  }
  /// Entry `entry` is being acked.
  void acked(std::uint64_t entry, const std::byte* record) {
    measure(latency_->ack, record, is_slow(entry) ? 1 : stride);
  }
  /// Entries from `first` to `last` are being acked; `record` is that of `last`. nullptr: they are not measured.
  void acked_through(std::uint64_t first, std::uint64_t last, const std::byte* record) {
    if (!enabled) return;
    if (static_cast<std::int64_t>(last - first) < 0) return;
    const std::uint64_t strides = last / stride + 1 - (first + stride - 1) / stride;
    const bool slow = is_slow(last);
    if ((strides | static_cast<std::uint64_t>(slow)) != 0) [[unlikely]]
      measure(latency_->ack, record, slow ? last - first + 1 : strides * stride);
  }

 private:
  // Did the member sleep before it?
  [[nodiscard]] bool is_slow(std::uint64_t entry) const noexcept {
    // relaxed: what another thread of the process has just taken is measured or not, as it comes
    return slow_[entry % slow_.size()].load(std::memory_order_relaxed) == entry + 1;
  }
  [[gnu::noinline]] void measure_taken(std::uint64_t first, std::uint64_t events, std::uint64_t strides,
                                       const std::byte* record) {
    measure(latency_->take, record, slept_ ? events : strides * stride);
    // relaxed: for acked(), see there
    if (slept_) slow_[first % slow_.size()].store(first + 1, std::memory_order_relaxed);
    slept_ = false;
  }
  [[gnu::noinline]] static void measure(shm::LatencyHistogram& histogram, const std::byte* record,
                                        std::uint64_t weight) {
    if (record == nullptr) return;
    const std::uint64_t published_ns = reinterpret_cast<const shm::RecordHeader*>(record)->published_ns;
    const std::uint64_t now_ns = shm::Environment::now_ns();
    shm::add(histogram, now_ns > published_ns ? now_ns - published_ns : 0, weight);
  }

  shm::MemberLatency* latency_ = nullptr;
  bool slept_ = false;
  std::array<shm::Word64, 64> slow_{};  // entry number + 1 of those that were slept for, by entry number
};

}  // namespace ackring::client
