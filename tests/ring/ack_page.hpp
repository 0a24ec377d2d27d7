// An ack page in private memory, for the tests of the ack table.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "lib/ring/ack_table.hpp"

namespace ackring::test {

using ring::AckReader;
using ring::AckSeen;
using ring::AckWord;
using ring::AckWriter;
using ring::Verdict;

// An ack page as its maker leaves it: zero words, and all four counters at the first entry.
class Page {
 public:
  explicit Page(std::uint64_t slots, std::uint64_t start = 0)
      : slots_(slots), memory_((ring::ack_page_bytes(slots) + shm::page_bytes - 1) / shm::page_bytes) {
    page().slots = slots;
    page().start_entry = start;
    for (shm::Word64* word : {&page().taken, &page().released, &page().acked_through, &page().refused}) {
      word->store(start, std::memory_order_relaxed);  // relaxed: nobody else has the page yet
    }
  }
  [[nodiscard]] shm::AckPage& page() { return *reinterpret_cast<shm::AckPage*>(memory_.data()); }
  [[nodiscard]] AckWriter writer() { return AckWriter(&page()); }
  [[nodiscard]] AckReader reader() { return {&page(), slots_}; }
  [[nodiscard]] shm::Word64& word(std::uint64_t slot) {
    return reinterpret_cast<shm::Word64*>(reinterpret_cast<std::byte*>(memory_.data()) + shm::page_bytes)[slot];
  }
  [[nodiscard]] shm::RejectReason& reason(std::size_t slot) {
    auto* base = reinterpret_cast<std::byte*>(memory_.data()) + ring::reasons_offset(slots_);
    return reinterpret_cast<shm::RejectReason*>(base)[slot];
  }
  void forge(std::uint64_t slot, std::uint64_t value) {
    word(slot).store(value, std::memory_order_relaxed);  // relaxed: one thread
  }

 private:
  struct alignas(shm::page_bytes) Bytes {
    std::array<std::byte, shm::page_bytes> bytes{};
  };
  std::uint64_t slots_;
  std::vector<Bytes> memory_;
};

// Entries whose lap is near 0, 2^31, 2^32, and the last one, with `slots` words.
inline std::vector<std::uint64_t> entries_near_wraps(std::uint64_t slots) {
  return {0,
          slots,
          (std::uint64_t{1} << 31) * slots - 2,
          (std::uint64_t{1} << 32) * slots - 2,
          (std::uint64_t{1} << 63) - 2,
          std::uint64_t{0} - 2};
}

}  // namespace ackring::test
