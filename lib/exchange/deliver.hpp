// The part of deliver.cpp that every event goes through when its ring has room: inlined into the batch loop.
#pragma once

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "lib/exchange/exchange.hpp"
#include "lib/shm/probe.hpp"

namespace ackring::exchange {

/// Both sides are 16-byte aligned and `bytes` is a multiple of 16: small bodies are copied without a call.
inline void copy_body(std::byte* to, const std::byte* from, std::uint64_t bytes) {
  shm::Memory::writing(to, bytes);
#if defined(__SSE2__)
  if (bytes <= 256) {
    for (std::uint64_t at = 0; at < bytes; at += 16) {
      _mm_store_si128(reinterpret_cast<__m128i*>(to + at), _mm_load_si128(reinterpret_cast<const __m128i*>(from + at)));
    }
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

inline bool in_window(const Queue& queue, std::uint64_t bytes) noexcept {
  return bytes <= queue.lane.window_bytes && queue.lane.window_entries != 0 && bytes <= queue.largest_record;
}

inline bool Exchange::ready(Queue& queue, std::uint64_t bytes, std::uint64_t now_ns, bool redoing) {
  return in_window(queue, bytes) || ready_slowly(queue, bytes, now_ns, redoing);
}

inline void Exchange::put(Queue& queue, const shm::RecordHeader& header, const std::byte* body) {
  if (!in_window(queue, header.bytes)) [[unlikely]] {
    const shm::RecordHeader copy = header;  // so that the caller's stays in registers
    put_slowly(queue, copy, body);
    return;
  }
  queue.lane.window_bytes -= header.bytes;
  --queue.lane.window_entries;
  shm::Environment::at(shm::CrashPoint::deliver_record);
  std::byte* to = queue.lane.ring.append(header.bytes);
  const std::uint64_t entry = queue.lane.entries++;
  queue.lane.ends[entry & queue.lane.slot_mask] = static_cast<std::uint32_t>(queue.lane.ring.position());
  queue.block.sequence_of_n = header.sequence;
  ring::write_header(to, header, entry + queue.lane.delivery_of_entry);
  ACKRING_PROBE_DELIVER(queue.id, entry + queue.lane.delivery_of_entry, header.bytes);
  copy_body(to + sizeof header, body, header.bytes - sizeof header);
}

}  // namespace ackring::exchange
