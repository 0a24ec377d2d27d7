#include "lib/ring/spsc_ring.hpp"

namespace ackring::ring {

namespace {
// The part of a header that padding has: a ring may have no more than 16 bytes left at its end.
struct Padding {
  std::uint32_t bytes;
  std::uint16_t kind;
  std::uint16_t flags;
};
static_assert(sizeof(Padding) == offsetof(RecordHeader, sequence));
}  // namespace

std::byte* RingWriter::claim_behind_padding(std::uint64_t bytes, std::uint64_t index, std::uint64_t rest) {
  if (position_ + rest + bytes - head_ > bytes_) return nullptr;
  const Padding padding{static_cast<std::uint32_t>(rest), static_cast<std::uint16_t>(RecordKind::padding), 0};
  shm::shared_copy(data_ + index, &padding, sizeof padding);
  claimed_ = position_ + rest;
  return data_;
}

bool RingReader::skip_short_padding(const std::byte* record, std::uint64_t available) noexcept {
  Padding padding;
  shm::Memory::reading(record, sizeof padding);
  std::memcpy(&padding, record, sizeof padding);
  asm volatile("" ::: "memory");  // read once (F26)
  const std::uint64_t rest = bytes_ - (position_ & (bytes_ - 1));
  if (padding.kind != static_cast<std::uint16_t>(RecordKind::padding) || padding.bytes != rest || rest > available) {
    return false;
  }
  position_ += rest;
  return true;
}

}  // namespace ackring::ring
