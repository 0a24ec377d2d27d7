// Versioned blocks: a reader gets a whole block, and never an older one than before.
#include <doctest/doctest.h>

#include <array>

#include "lib/shm/versioned.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

struct Block {
  std::uint64_t first;
  std::uint64_t second;
};

enum class Mistake { none, writer_without_fence, reader_without_second_look, one_copy };

class BlockScenario final : public Scenario {
 public:
  explicit BlockScenario(std::size_t readers, std::uint64_t writes, Mistake mistake = Mistake::none)
      : readers_(readers), writes_(writes), mistake_(mistake) {
    name(&version_, "version");
    name(copies_.data(), "copies");
  }
  [[nodiscard]] std::vector<std::string> roles() const override {
    std::vector<std::string> result{"writer"};
    for (std::size_t i = 0; i < readers_; ++i) result.emplace_back("reader");
    return result;
  }
  void reset() override {
    version_.store(0, std::memory_order_relaxed);
    copies_ = {};
  }
  void run(std::size_t role) override {
    if (role == 0) {
      for (std::uint64_t n = 1; n <= writes_; ++n) write({n, n});
      return;
    }
    std::uint64_t last = 0;
    for (int look = 0; look < 2; ++look) {
      const Block block = read();
      expect(block.first == block.second, "a block is torn");
      expect(block.first >= last, "a block is older than one seen before");
      last = block.first;
    }
  }
  void finish() override {
    const Block block = shm::read_block(version_, copies_);
    expect(block.first == writes_ && block.second == writes_, "the last block is not the one written last");
  }

 private:
  void write(const Block& block) {
    if (mistake_ != Mistake::writer_without_fence && mistake_ != Mistake::one_copy) {
      shm::write_block(version_, copies_, block);
      return;
    }
    const std::uint64_t next = version_.load(std::memory_order_relaxed) + 1;
    if (mistake_ == Mistake::one_copy) shm::Memory::fence(std::memory_order_release);
    shm::shared_copy(&copies_[mistake_ == Mistake::one_copy ? 0 : next & 1], &block, sizeof block);
    version_.store(next, std::memory_order_release);
  }
  Block read() {
    if (mistake_ != Mistake::reader_without_second_look && mistake_ != Mistake::one_copy) {
      return shm::read_block(version_, copies_);
    }
    Block block;
    while (true) {
      const std::uint64_t seen = version_.load(std::memory_order_acquire);
      shm::Memory::copy_changing(&block, &copies_[mistake_ == Mistake::one_copy ? 0 : seen & 1], sizeof block);
      shm::Memory::fence(std::memory_order_acquire);
      if (mistake_ == Mistake::reader_without_second_look || version_.load(std::memory_order_relaxed) == seen) {
        return block;
      }
    }
  }

  std::size_t readers_;
  std::uint64_t writes_;
  Mistake mistake_;
  shm::Word<std::uint64_t> version_;
  std::array<Block, 2> copies_{};
};

TEST_CASE("versioned: one reader") {
  BlockScenario scenario(1, 4);
  check_all("versioned, one reader", scenario, {.preemptions = 3, .old_values = 2});
}

TEST_CASE("versioned: two readers") {
  BlockScenario scenario(2, 3);
  check_all("versioned, two readers", scenario, {.preemptions = 2, .old_values = 1});
}

TEST_CASE("versioned canaries") {
  BlockScenario no_fence(1, 4, Mistake::writer_without_fence);
  check_caught("versioned, no fence before the copy", no_fence, "a block is", {.preemptions = 3});
  BlockScenario no_look(1, 4, Mistake::reader_without_second_look);
  check_caught("versioned, no second look", no_look, "a block is", {.preemptions = 3});
  BlockScenario one_copy(1, 4, Mistake::one_copy);
  check_caught("versioned, one copy only", one_copy, "a block is", {.preemptions = 3});
}

}  // namespace
}  // namespace ackring::test::interleave
