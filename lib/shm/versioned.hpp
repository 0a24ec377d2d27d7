// A block of plain words in shared memory that changes as a whole: two copies and a version (a sequence lock without
// waiting for the writer; the reader's retry is Lamport's "Concurrent reading and writing", CACM 1977).
//
// Thread rules: one writer process and thread; any number of readers, in any process.
// Invariants: 1. Copy `version & 1` is whole whenever nobody has stored a newer version. 2. The writer only touches the
// other copy, and makes it count by one store of the version; a crash before that store leaves the old block.
#pragma once

#include <array>
#include <cstdint>

#include "lib/shm/word.hpp"

namespace ackring::shm {

template <class Block>
void write_block(Word<std::uint64_t>& version, std::array<Block, 2>& copies, const Block& block) {
  const std::uint64_t next = version.load(std::memory_order_relaxed) + 1;  // relaxed: this thread is the only writer
  // release(block.reuse): whoever sees a byte of the new block sees the version before it, and throws the copy away.
  Memory::fence(std::memory_order_release);
  shared_copy(&copies[next & 1], &block, sizeof(Block));
  version.store(next, std::memory_order_release);  // release(block.version): the copy that counts from now on
}

/// The current block; never torn. Retries while the writer overtakes it twice, which takes two transactions per copy.
template <class Block>
Block read_block(const Word<std::uint64_t>& version, const std::array<Block, 2>& copies) {
  Block block;
  while (true) {
    const std::uint64_t seen = version.load(std::memory_order_acquire);  // acquire(block.version): the copy that counts
    Memory::copy_changing(&block, &copies[seen & 1], sizeof(Block));
    // acquire(block.reuse): orders the copy before the second look; a torn copy is thrown away.
    Memory::fence(std::memory_order_acquire);
    if (version.load(std::memory_order_relaxed) == seen) return block;  // relaxed: ordered by the fence above
  }
}

}  // namespace ackring::shm
