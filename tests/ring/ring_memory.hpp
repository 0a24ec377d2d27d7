// Memory for a ring as two processes would share it, and what the tests of lib/ring have in common.
#pragma once

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "lib/ring/spsc_ring.hpp"

#if defined(__SANITIZE_THREAD__)
#define ACKRING_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ACKRING_TEST_TSAN 1
#endif
#endif

namespace ackring::test {

using ring::ReadStatus;
using ring::RingReader;
using ring::RingWriter;
using shm::RecordHeader;
using shm::RecordKind;

// A page of words, the ring, and a page without access right behind it: a read or write past the ring is a fault.
class RingMemory {
 public:
  struct Words {
    alignas(64) shm::Word64 tail;
    alignas(64) shm::Word64 head;  // what the reader has released; stands for `consumed` of an IngressCursor
    alignas(64) shm::Word32 stop;  // 1: the checker has seen enough
  };

  explicit RingMemory(std::uint64_t ring_bytes, std::uint64_t start = 0)
      : ring_bytes_(ring_bytes), mapped_(shm::page_bytes + round_up(ring_bytes) + shm::page_bytes) {
    void* at = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("mmap of the test's ring failed");
    base_ = static_cast<std::byte*>(at);
    if (::mprotect(base_ + mapped_ - shm::page_bytes, shm::page_bytes, PROT_NONE) != 0) std::abort();
    words().tail.store(start, std::memory_order_relaxed);  // relaxed: nobody else has the memory yet
    words().head.store(start, std::memory_order_relaxed);  // relaxed: as above
  }
  ~RingMemory() { ::munmap(base_, mapped_); }
  RingMemory(const RingMemory&) = delete;
  RingMemory& operator=(const RingMemory&) = delete;

  [[nodiscard]] Words& words() const { return *reinterpret_cast<Words*>(base_); }
  // Small rings end where the guard page begins, too.
  [[nodiscard]] std::byte* data() const { return base_ + shm::page_bytes + round_up(ring_bytes_) - ring_bytes_; }
  [[nodiscard]] std::uint64_t ring_bytes() const { return ring_bytes_; }

  [[nodiscard]] std::uint64_t tail() const {
    return words().tail.load(std::memory_order_relaxed);  // relaxed: tests that look have one thread
  }
  [[nodiscard]] std::uint64_t head() const {
    return words().head.load(std::memory_order_acquire);  // acquire(test.head): the reader's reads are over
  }
  void publish_head(std::uint64_t position) const {
    words().head.store(position, std::memory_order_release);  // release(test.head): the reads of the bytes before it
  }
  [[nodiscard]] bool stopped() const {
    return words().stop.load(std::memory_order_relaxed) != 0;  // relaxed: a hint to end
  }
  void stop() const { words().stop.store(1, std::memory_order_relaxed); }  // relaxed: a hint to end

  // A writer and a reader that know nothing but the shared words, as after a restart.
  [[nodiscard]] RingWriter writer() const { return {data(), ring_bytes_, &words().tail, tail(), head()}; }
  [[nodiscard]] RingReader reader() const { return {data(), ring_bytes_, &words().tail, head()}; }

 private:
  static std::uint64_t round_up(std::uint64_t bytes) {
    return (bytes + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
  }

  std::uint64_t ring_bytes_;
  std::size_t mapped_;
  std::byte* base_ = nullptr;
};

// Positions from which a ring of `ring_bytes` passes 0, 2^32, 2^63 and 2^64 within its first laps.
inline std::vector<std::uint64_t> start_positions(std::uint64_t ring_bytes) {
  const std::uint64_t before = 3 * ring_bytes + 16;
  return {0, (std::uint64_t{1} << 32) - before, (std::uint64_t{1} << 63) - before, std::uint64_t{0} - before};
}

inline RecordHeader event_header(std::uint64_t sequence, std::uint64_t payload) {
  RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(ring::record_bytes(payload, 0, 0));
  header.kind = static_cast<std::uint16_t>(RecordKind::event);
  header.sequence = sequence;
  header.payload_bytes = static_cast<std::uint32_t>(payload);
  return header;
}

// Content that depends on the record's number, so that a byte of any other record shows.
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

// Seed of a random test: $ACKRING_TEST_SEED replays a run.
inline std::uint64_t test_seed(const char* test) {
  const char* given = std::getenv("ACKRING_TEST_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::uint64_t{std::random_device{}()} << 16 ^ 0xacce55;
  const std::string value = std::to_string(seed);
  const std::string line = std::string(test) + ": seed " + value + "; replay with ACKRING_TEST_SEED=" + value;
  MESSAGE(line);
  return seed;
}

// Ends a wait for a condition that never comes.
class Deadline {
 public:
  explicit Deadline(int seconds) : end_(std::chrono::steady_clock::now() + std::chrono::seconds(seconds)) {}
  [[nodiscard]] bool over() {
    if (++calls_ % 256 != 0) return false;
    return std::chrono::steady_clock::now() > end_;
  }

 private:
  std::chrono::steady_clock::time_point end_;
  std::uint32_t calls_ = 0;
};

}  // namespace ackring::test
