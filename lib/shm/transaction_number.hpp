// Numbers of transactions, which say whose they are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ackring::shm {

/// Threads that may share the work of an exchange.
inline constexpr std::size_t max_shards = 4;

/// A transaction's number: its shard in the two highest bits, so that no two of a bus have the same one; below them it
/// counts up. Numbers of one shard are compared as they are.
inline constexpr unsigned shard_shift = 62;
static_assert(max_shards == std::size_t{1} << (64 - shard_shift));
constexpr std::size_t shard_of(std::uint64_t n) noexcept { return n >> shard_shift; }
/// What the transactions of a shard count up from.
constexpr std::uint64_t first_n(std::size_t shard) noexcept { return std::uint64_t{shard} << shard_shift; }

}  // namespace ackring::shm
