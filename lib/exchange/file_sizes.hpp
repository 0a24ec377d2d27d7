// How large the files of a bus are: for those who make them, and for who plans a bus. Files of structs alone have the size
// of their struct; ack pages: ring/ack_table.hpp; the topic table: control/topic_table.hpp; logs: log/segment_log.hpp.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "ackring/options.hpp"
#include "lib/exchange/ingress.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

/// `bytes`, rounded up to pages.
constexpr std::uint64_t whole_pages(std::uint64_t bytes) noexcept {
  return (bytes + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
}

constexpr std::size_t ingress_ring_file_bytes(std::uint64_t ring_bytes) noexcept {
  return shm::page_bytes + ring_bytes;
}

/// Of a cursor that knows no topic yet.
inline constexpr std::size_t cursor_first_bytes = shm::page_bytes + 1024 * sizeof(shm::Word32);
/// What a cursor file of `bytes` grows to for its publisher's topic number `topic` (1 based); `bytes` where it has room.
constexpr std::size_t cursor_grown_bytes(std::size_t bytes, std::uint64_t topic) noexcept {
  const std::size_t needed = shm::page_bytes + topic * sizeof(shm::Word32);
  return needed <= bytes ? bytes : std::max(needed, std::min(2 * bytes, cursor_reserve_bytes));
}
/// Of a cursor whose publisher has so many topics, one after the other.
constexpr std::size_t cursor_file_bytes(std::uint64_t topics) noexcept {
  std::size_t bytes = cursor_first_bytes;
  while (cursor_grown_bytes(bytes, topics) != bytes)
    bytes = cursor_grown_bytes(bytes, (bytes - shm::page_bytes) / sizeof(shm::Word32) + 1);
  return bytes;
}

/// Entries of a member's ring: its credit.
constexpr std::uint64_t ring_slots(const SubscriptionOptions& options) noexcept {
  return std::bit_ceil(std::uint64_t{options.max_in_flight});
}
/// Where the records of a member's ring begin in its file.
constexpr std::uint64_t ring_data_offset(std::uint64_t slots) noexcept { return shm::page_bytes + whole_pages(slots); }
constexpr std::size_t member_ring_file_bytes(const SubscriptionOptions& options) noexcept {
  return ring_data_offset(ring_slots(options)) + options.ring_bytes;
}

/// The largest record that a subscription takes.
constexpr std::uint64_t largest_record_bytes(const SubscriptionOptions& options) noexcept {
  return options.ring_bytes / 4 - sizeof(shm::AttemptInfo);
}

}  // namespace ackring::exchange
