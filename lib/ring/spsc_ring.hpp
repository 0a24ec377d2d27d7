// SpscRing: variable-length records in one byte ring, one writer and one reader, in one process or two. The same code
// carries ingress rings (publisher → X) and member rings (X → member).
//
// The algorithm is the bounded queue of Lamport ("Specifying concurrent program modules", TOPLAS 1983) on byte positions
// that never wrap, with the other side's position cached (as in Rigtorp's and Folly's SPSC queues).
//
// Thread rules: RingWriter is used by one thread, RingReader by one thread.
// Invariants:
//  1. position - head <= ring_bytes, in arithmetic modulo 2^64; the index of a position is its low bits.
//  2. Bytes in [head, tail) do not change; the writer writes only outside, and publishes by one store of the tail.
//  3. No record wraps: where one does not fit before the end of the ring, a padding record fills the rest.
//  4. `bytes` of every record is a multiple of 16, so that a padding record always has room for its first eight bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/ring/record.hpp"
#include "lib/shm/format.hpp"

namespace ackring::ring {

class RingWriter {
 public:
  RingWriter() noexcept = default;
  /// `position`: where to write next (the tail); `head`: everything before it may be overwritten.
  RingWriter(std::byte* data, std::uint64_t ring_bytes, shm::Word64* tail, std::uint64_t position,
             std::uint64_t head) noexcept
      : data_(data), bytes_(ring_bytes), tail_(tail), position_(position), head_(head), claimed_(position) {}

  /// Would a record of `bytes` (multiple of 16, at most a quarter of the ring) fit now?
  [[nodiscard]] bool fits(std::uint64_t bytes) const noexcept {
    const std::uint64_t rest = bytes_ - (position_ & (bytes_ - 1));
    const std::uint64_t need = bytes <= rest ? bytes : rest + bytes;
    return position_ + need - head_ <= bytes_;
  }

  /// Space for a record of `bytes` (multiple of 16, at most a quarter of the ring), contiguous; nullptr if it does not
  /// fit. Visible to nobody; a claim that is not advanced over never happened.
  [[nodiscard]] std::byte* claim(std::uint64_t bytes) {
    const std::uint64_t index = position_ & (bytes_ - 1);
    const std::uint64_t rest = bytes_ - index;
    if (bytes <= rest) [[likely]] {
      if (position_ + bytes - head_ > bytes_) return nullptr;
      claimed_ = position_;
      return data_ + index;
    }
    return claim_behind_padding(bytes, index, rest);
  }
  /// Keeps the claimed record.
  void advance(std::uint64_t bytes) noexcept { position_ = claimed_ + bytes; }

  /// claim() and advance() at once, where the caller knows that `bytes` fit before the end of the ring; asks for the lines
  /// that the records some way on will be written to. The reader had them last; stores become visible in order, so that
  /// without this each would wait for its line alone.
  [[nodiscard]] std::byte* append(std::uint64_t bytes) noexcept {
    constexpr std::uint64_t distance = 1024;
    constexpr std::uint64_t longest = 256;  // of a long record the processor sees the stream by itself
    std::byte* const to = data_ + (position_ & (bytes_ - 1));
    const std::byte* ahead = data_ + ((position_ + distance) & (bytes_ - 1));
    position_ += bytes;
    for (std::uint64_t at = 0; at < bytes && at < longest; at += shm::cache_line_bytes) {
      shm::prefetch_for_write(ahead + at);
    }
    return to;
  }
  /// Bytes that can be written before the end of the ring.
  [[nodiscard]] std::uint64_t contiguous() const noexcept {
    const std::uint64_t rest = bytes_ - (position_ & (bytes_ - 1));
    const std::uint64_t room = bytes_ - (position_ - head_);
    return rest < room ? rest : room;
  }

  /// Publishes everything advanced over.
  void commit() { tail_->store(position_, std::memory_order_release); }  // release(ring.tail): the records before it
  /// Forgets what was advanced over since the last commit.
  void rollback(std::uint64_t position) noexcept { position_ = claimed_ = position; }

  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] std::uint64_t head() const noexcept { return head_; }
  [[nodiscard]] std::uint64_t ring_bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  /// `head` as the reader published it, loaded with acquire: the reader's reads of the bytes before it are over.
  void set_head(std::uint64_t head) noexcept { head_ = head; }

 private:
  std::byte* claim_behind_padding(std::uint64_t bytes, std::uint64_t index, std::uint64_t rest);

  std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0;
  shm::Word64* tail_ = nullptr;
  std::uint64_t position_ = 0;
  std::uint64_t head_ = 0;
  std::uint64_t claimed_ = 0;
};

/// What may be read of a record some way ahead.
struct RecordHint {
  std::uint32_t bytes = 0;
  std::uint32_t topic = 0;
};

/// What RingReader::read_checked found.
enum class ReadStatus { record, empty, damaged };

class RingReader {
 public:
  RingReader() noexcept = default;
  RingReader(const std::byte* data, std::uint64_t ring_bytes, const shm::Word64* tail, std::uint64_t position) noexcept
      : data_(data), bytes_(ring_bytes), tail_(tail), position_(position), limit_(position) {}

  /// The next record of a writer that is trusted (X), or nullptr. Padding is skipped.
  [[nodiscard]] const std::byte* peek() noexcept {
    while (true) {
      if (position_ == limit_) {
        limit_ = tail_->load(std::memory_order_acquire);  // acquire(ring.tail): the records before it
        if (position_ == limit_) return nullptr;
      }
      const std::byte* record = data_ + (position_ & (bytes_ - 1));
      const auto* header = reinterpret_cast<const RecordHeader*>(record);
      shm::Memory::reading(header, offsetof(RecordHeader, sequence));  // what padding has, too
      if (header->kind != static_cast<std::uint16_t>(RecordKind::padding)) [[likely]]
        return record;
      position_ += header->bytes;
    }
  }

  /// The next record of a writer that is not trusted: its header is read once into `header` and validated against the
  /// ring; `record` is where it lies. Topic records come back like events. `damaged`: do not read this ring any more.
  [[nodiscard]] ReadStatus read_checked(RecordHeader& header, const std::byte*& record) noexcept {
    while (true) {
      if (position_ == limit_) return ReadStatus::empty;
      const std::uint64_t index = position_ & (bytes_ - 1);
      const std::uint64_t rest = bytes_ - index;
      const std::uint64_t available = limit_ - position_ < rest ? limit_ - position_ : rest;
      record = data_ + index;
      if (rest < sizeof(RecordHeader)) [[unlikely]] {  // too little for anything but padding
        if (!skip_short_padding(record, available)) return ReadStatus::damaged;
        continue;
      }
      read_once(record, header);
      if (header.kind == static_cast<std::uint16_t>(RecordKind::padding)) [[unlikely]] {
        if (header.bytes != rest || header.bytes > available) return ReadStatus::damaged;
        position_ += rest;
        continue;
      }
      return plausible(header, available) ? ReadStatus::record : ReadStatus::damaged;
    }
  }

  /// A look at an event record ahead, at a position from which records follow each other up to the limit. False: it is
  /// none, or there is nothing. What it says is not validated beyond that the next look stays within what is committed.
  [[nodiscard]] bool hint_at(std::uint64_t position, RecordHint& hint) const noexcept {
    const std::uint64_t available = limit_ - position;
    const std::uint64_t index = position & (bytes_ - 1);
    if (available < sizeof(RecordHeader) || bytes_ - index < sizeof(RecordHeader)) return false;
    const std::uint64_t first = read_word(data_ + index);
    hint.bytes = static_cast<std::uint32_t>(first);
    hint.topic = static_cast<std::uint32_t>(read_word(data_ + index + offsetof(RecordHeader, topic)));
    return static_cast<std::uint16_t>(first >> 32) == static_cast<std::uint16_t>(RecordKind::event) &&
           hint.bytes >= sizeof(RecordHeader) && hint.bytes <= available && hint.bytes % shm::record_alignment == 0;
  }

  /// Loads the tail of an untrusted writer; false if it is not a possible one.
  [[nodiscard]] bool refresh() noexcept {
    const std::uint64_t tail = tail_->load(std::memory_order_acquire);  // acquire(ring.tail): the records before it
    if (tail - position_ > bytes_ || tail % shm::record_alignment != 0) return false;
    limit_ = tail;
    return true;
  }

  void advance(std::uint64_t bytes) noexcept { position_ += bytes; }
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] std::uint64_t limit() const noexcept { return limit_; }
  [[nodiscard]] std::uint64_t ring_bytes() const noexcept { return bytes_; }
  void set_position(std::uint64_t position) noexcept { position_ = limit_ = position; }
  /// Is there something new, by a look at the tail alone?
  [[nodiscard]] bool readable() const noexcept {
    return position_ != limit_ ||
           tail_->load(std::memory_order_relaxed) != position_;  // relaxed: a hint; refresh() acquires before reading
  }
  /// Asks for the next record's cache lines while its tail is awaited, so that both travel at once.
  void prefetch() const noexcept {
    __builtin_prefetch(data_ + (position_ & (bytes_ - 1)));
    __builtin_prefetch(data_ + ((position_ + shm::cache_line_bytes) & (bytes_ - 1)));
  }

 private:
  bool skip_short_padding(const std::byte* record, std::uint64_t available) noexcept;

  const std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0;
  const shm::Word64* tail_ = nullptr;
  std::uint64_t position_ = 0;
  std::uint64_t limit_ = 0;
};

}  // namespace ackring::ring
