// Batch: deliveries that were taken together for one worker, and how far it has come with them.
//
// Thread rules: the reader fills it while nobody else has it; then a worker claims one delivery after the other. The monitor
// looks at it meanwhile, with the mutex, and may claim what is left. Who claims a delivery decides what becomes of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "ackring/delivery.hpp"
#include "lib/shm/format.hpp"

namespace ackring::runtime {

inline constexpr std::size_t most_of_a_batch = 256;

struct Batch {
  std::array<DeliveryView, most_of_a_batch> views{};
  std::vector<Delivery> copies;  // at-most-once, handed to another thread: their views end with the next take
  std::size_t count = 0;
  bool probe = false;
  shm::Word32 claimed{};  // deliveries claimed; beyond `count`: all

  std::mutex mutex;  // guards what follows, and what is above as long as `active`
  bool active = false;
  std::uint64_t taken_ns = 0;
  std::uint64_t extended_ns = 0;
  static constexpr std::uint32_t unseen = ~std::uint32_t{0};
  std::uint32_t seen = unseen;  // `claimed` at the monitor's last look
  bool overdue = false;

  /// The next delivery to begin with, or `count`.
  [[nodiscard]] std::size_t claim() {
    // relaxed: views were handed over with the batch; nothing is published by a claim
    const std::uint32_t at = claimed.fetch_add(1, std::memory_order_relaxed);
    return at < count ? at : count;
  }
  /// All that have not begun: from the answer to `count`.
  [[nodiscard]] std::size_t claim_rest() {
    const auto all = static_cast<std::uint32_t>(most_of_a_batch);
    const std::uint32_t at = claimed.fetch_add(all, std::memory_order_relaxed);  // relaxed: as above
    return at < count ? at : count;
  }
};

}  // namespace ackring::runtime
