// Sampler: how long after its publish a delivery was taken, and acked, as this member sees it.
//
// A look at the clock costs as much as a take. So one delivery in 128 is measured and stands for 128, by its entry number:
// where events come fast nobody can tell. Where they come so slowly that the member slept before it, one in 128 would be
// seldom; there, each is measured and stands for itself, or for the batch that it is the first of, which costs nothing
// beside the sleep.
//
// Thread rules: slept() and taken() are the taking thread's; the others come from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "lib/client/latency_writer.hpp"
#include "lib/shm/environment.hpp"

namespace ackring::client {

class Sampler {
 public:
  static constexpr std::uint64_t stride = 128;
#if defined(ACKRING_NO_METRICS)
  static constexpr bool enabled = false;
#else
  static constexpr bool enabled = true;
#endif

  /// Where it counts, and the first entry; before anything else.
  void measure_into(shm::MemberLatency& latency, std::uint64_t first = 0) noexcept {
    latency_ = &latency;
    next_ = (first + stride - 1) / stride * stride;
  }

  /// The next delivery is one for which the member slept.
  void slept() noexcept {
    slept_ = true;
    next_ -= stride;  // so that taken() looks; the next one after it is found anew
  }

  /// Entries from `first` to `end` - 1, at least one, were taken; `record` is that of `first`.
  void taken(std::uint64_t first, std::uint64_t end, const std::byte* record) {
    if (enabled && static_cast<std::int64_t>(end - next_) > 0) [[unlikely]]
      measure_taken(first, end, record);
  }
  /// Is the ack of this entry to be measured?
  [[nodiscard]] bool wants(std::uint64_t entry) const noexcept {
    // relaxed: what another thread of the process has just taken is measured or not, as it comes
    return enabled && measured_[slot_of(entry)].load(std::memory_order_relaxed) == entry + 1;
  }
  /// Entry `entry` is being acked.
  void acked(std::uint64_t entry, const std::byte* record) { measure(latency_->ack, record, weight_of(entry)); }
  /// Entries from `first` to `last` are being acked; `record` is that of `last`. nullptr: they are not measured.
  void acked_through(std::uint64_t first, std::uint64_t last, const std::byte* record) {
    if (!enabled) return;
    if (static_cast<std::int64_t>(last - first) < 0) return;
    // Those that the member slept for stand for themselves; the weight of the others is whole strides.
    const bool slow = wants(first) && weight_of(first) % stride != 0;
    const std::uint64_t strides = strides_in(first, last + 1);
    if (slow || strides != 0) [[unlikely]]
      measure(latency_->ack, record, slow ? last - first + 1 : strides * stride);
  }

 private:
  static constexpr std::size_t slots = 64;
  // Entries that follow each other, and those that are a stride apart, lie in different slots.
  static constexpr std::size_t slot_of(std::uint64_t entry) noexcept { return (entry ^ entry / stride) % slots; }
  [[nodiscard]] std::uint64_t weight_of(std::uint64_t entry) const noexcept {
    // relaxed: of the same sample as in wants(), or of a later one that took its slot
    return weights_[slot_of(entry)].load(std::memory_order_relaxed);
  }
  // Multiples of the stride in [first, end).
  static constexpr std::uint64_t strides_in(std::uint64_t first, std::uint64_t end) noexcept {
    return (end + stride - 1) / stride - (first + stride - 1) / stride;
  }

  [[gnu::noinline]] void measure_taken(std::uint64_t first, std::uint64_t end, const std::byte* record) {
    const std::uint64_t weight = slept_ ? end - first : strides_in(first, end) * stride;
    slept_ = false;
    next_ = (end + stride - 1) / stride * stride;
    if (weight == 0) return;  // it had slept for one that was taken back
    measure(latency_->take, record, weight);
    // relaxed, both: for acked(), see there
    weights_[slot_of(first)].store(weight, std::memory_order_relaxed);
    measured_[slot_of(first)].store(first + 1, std::memory_order_relaxed);
  }
  [[gnu::noinline]] static void measure(shm::LatencyHistogram& histogram, const std::byte* record,
                                        std::uint64_t weight) {
    if (record == nullptr) return;
    const std::uint64_t published_ns = reinterpret_cast<const shm::RecordHeader*>(record)->published_ns;
    const std::uint64_t now_ns = shm::Environment::now_ns();
    add_latency(histogram, now_ns > published_ns ? now_ns - published_ns : 0, weight);
  }

  shm::MemberLatency* latency_ = nullptr;
  std::uint64_t next_ = 0;  // entry at which the next sample is due
  bool slept_ = false;
  std::array<shm::Word64, slots> measured_{};  // entry number + 1 of what was measured when it was taken
  std::array<shm::Word64, slots> weights_{};
};

}  // namespace ackring::client
