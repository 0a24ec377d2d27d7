// Versioned blocks: what a reader gets is one whole block, and no older than the last one it got.
#include <doctest/doctest.h>

#include <array>
#include <memory>
#include <thread>

#include "lib/shm/versioned.hpp"
#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

struct Block {
  std::array<std::uint64_t, 24> words;  // as many bytes as a SubscriptionBlock
};
struct Shared {
  shm::Word64 version;
  std::array<Block, 2> copies;
};

std::unique_ptr<Shared> shared_from(std::uint64_t version) {
  auto shared = std::make_unique<Shared>();
  std::memset(shared->copies.data(), 0, sizeof shared->copies);
  shared->version.store(version, std::memory_order_relaxed);  // relaxed: one thread yet
  return shared;
}

TEST_CASE("a block is read as it was written, also where the version wraps") {
  for (const std::uint64_t start : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{0} - 3}) {
    const auto shared = shared_from(start);
    for (std::uint64_t n = 1; n <= 10; ++n) {
      Block block{};
      block.words.fill(n);
      shm::write_block(shared->version, shared->copies, block);
      CHECK(shm::read_block(shared->version, shared->copies).words == block.words);
    }
    CHECK(shared->version.load(std::memory_order_relaxed) == start + 10);  // relaxed: one thread
  }
}

// Not under TSan: the reader copies plain bytes that the writer may be changing and throws them away when the version
// moved. That race is what the structure is made for, and TSan would report it.
#ifndef ACKRING_TEST_TSAN
TEST_CASE("no reader ever sees a torn block, or time going back") {
  const auto shared = shared_from(0);
  constexpr std::uint64_t blocks = 400'000;
  std::array<std::uint64_t, 2> torn{};
  std::array<std::uint64_t, 2> back{};
  std::array<std::uint64_t, 2> distinct{};
  std::vector<std::thread> readers;
  for (std::size_t i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      std::uint64_t last = 0;
      Deadline deadline(60);
      while (last != blocks && !deadline.over()) {
        const Block block = shm::read_block(shared->version, shared->copies);
        for (const std::uint64_t word : block.words) torn[i] += word != block.words[0];
        back[i] += block.words[0] < last;
        distinct[i] += block.words[0] != last;
        last = block.words[0];
      }
    });
  }
  for (std::uint64_t n = 1; n <= blocks; ++n) {
    Block block{};
    block.words.fill(n);
    shm::write_block(shared->version, shared->copies, block);
    if (n % 256 == 0) ::sched_yield();
  }
  for (std::thread& reader : readers) reader.join();
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(torn[i] == 0);
    CHECK(back[i] == 0);
    CHECK(distinct[i] > 10);
  }
}

// The check above must be able to fail: a reader without the second look at the version sees torn blocks. One thread,
// stopped in the middle of what it reads.
TEST_CASE("canary: without the second look a block is torn") {
  const auto shared = shared_from(0);
  Block block{};
  block.words.fill(1);
  shm::write_block(shared->version, shared->copies, block);
  const std::uint64_t seen = shared->version.load(std::memory_order_relaxed);  // relaxed: one thread
  Block copy{};
  std::memcpy(&copy, &shared->copies[seen & 1], sizeof copy / 2);
  for (std::uint64_t n = 2; n <= 3; ++n) {
    block.words.fill(n);
    shm::write_block(shared->version, shared->copies, block);
  }
  const auto half = copy.words.size() / 2;
  std::memcpy(&copy.words[half], &shared->copies[seen & 1].words[half], sizeof copy / 2);
  CHECK(copy.words.front() != copy.words.back());
  CHECK(shared->version.load(std::memory_order_relaxed) != seen);  // relaxed: one thread; the second look
}
#endif

}  // namespace
}  // namespace ackring::test
