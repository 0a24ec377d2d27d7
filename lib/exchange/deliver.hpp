// The part of deliver.cpp that every event goes through when its ring has room: inlined into the batch loop.
#pragma once

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

/// Both sides are 16-byte aligned and `bytes` is a multiple of 16: small bodies are copied without a call.
inline void copy_body(std::byte* to, const std::byte* from, std::uint64_t bytes) {
  shm::Environment::before_store(to, bytes);
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

inline bool Exchange::ready(Queue& queue, std::uint64_t bytes, std::uint64_t now_ns, bool redoing) {
  const bool room = !queue.to_backlog && queue.has_credit() && bytes <= queue.largest_record && queue.ring.fits(bytes);
  return room || ready_slowly(queue, bytes, now_ns, redoing);
}

inline void Exchange::put(Queue& queue, const shm::RecordHeader& header, const std::byte* body) {
  const bool usual = queue.touched_n == n_ && queue.ring_touched && !queue.to_backlog && !queue.dropping &&
                     queue.has_credit() && header.sequence > queue.skip_through && header.bytes <= queue.largest_record;
  std::byte* to = usual ? queue.ring.claim(header.bytes) : nullptr;
  if (to == nullptr) [[unlikely]] {
    put_slowly(queue, header, body);
    return;
  }
  queue.ring.advance(header.bytes);
  queue.ends[queue.entries & queue.slot_mask] = static_cast<std::uint32_t>(queue.ring.position());
  ++queue.entries;
  ++queue.block.ring_of_n;
  queue.block.sequence_of_n = header.sequence;
  ring::write_header(to, header, ++queue.block.matched);
  copy_body(to + sizeof header, body, header.bytes - sizeof header);
}

}  // namespace ackring::exchange
