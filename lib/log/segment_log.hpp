// SegmentLog: an append-only log of segment files, written by X: the backlog of a subscription, later retry and
// dead-letter logs.
//
// A position is `segment number << 32 | offset in the segment file`, so positions compare like numbers and never wrap.
// Records are those of the rings (RecordHeader, `bytes` a multiple of 16) and never straddle segments: where the next
// one does not fit, a `segment_end` record (if at least 16 bytes are left) closes the segment and the log goes on in
// the next file. A segment file is `<prefix>.<number, 8 digits>`, at least `segment_bytes` and as large as its first
// record needs; a log that holds many segments makes larger ones (up to 16 * segment_bytes), so that a big backlog
// needs few files. Everything between head and tail is committed; the tail word and the head live with the owner (the
// subscription segment), because they are part of its transactions: append() writes behind `tail()` without making
// anything visible, and the owner stores the new tail once at the end. After a crash, open(head, committed tail) drops
// what is behind the tail, removes segments below head, and goes on.
//
// Invariants:
//  1. Bytes behind the tail mean nothing: at() never looks at them, append() overwrites them.
//  2. The segments between the head's and the tail's exist, unless head == tail: an empty log needs no file, and a log
//     that was never written has none. append() makes the tail's segment again where it is missing; the part before the
//     tail is then zero, and below the head.
//  3. A segment with a larger number than the tail's holds nothing; it is reused, or replaced by a larger one.
//
// Thread rules: one thread (X). Other processes that read a log attach its segments read-only, on mappings of their
// own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/shm/segment.hpp"

namespace ackring::log {

using shm::RecordHeader;

/// Small under the test environment: most of the time of its tests is that of making files, and more segments begin and end.
inline constexpr std::size_t default_segment_bytes = shm::Environment::dies_nowhere ? 1u << 20 : 16u << 10;
/// Largest record that a log takes; an event at its limit, with headers, is well below it.
inline constexpr std::size_t max_record_bytes = 1u << 30;
/// Position of the first record of a log that was never written.
inline constexpr std::uint64_t first_position = (std::uint64_t{1} << 32) | shm::log_data_offset;

/// Files of a log, and their bytes.
struct LogFiles {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
};

class SegmentLog {
 public:
  SegmentLog(shm::Directory& directory, std::string prefix, std::uint64_t generation,
             std::size_t segment_bytes = default_segment_bytes);
  SegmentLog(SegmentLog&&) noexcept;
  SegmentLog& operator=(SegmentLog&&) noexcept;
  ~SegmentLog();

  /// Goes on with what is committed in [head, tail): attaches those segments, removes files outside. Zero stands for
  /// first_position (the words of a new subscription). Throws Error (damaged when a segment in between is missing or
  /// not what it should be, and then removes nothing).
  void open(std::uint64_t head, std::uint64_t tail);
  /// The same for an owner of many logs, who lists the directory once: `names` are files of it, among them all that bear
  /// this log's name.
  void open(std::uint64_t head, std::uint64_t tail, const std::vector<std::string>& names);

  /// Makes sure that the next append of `bytes` can't fail. False: the file system has no room, or another limit is hit
  /// (ENOSPC, EMFILE, ENOMEM), or `bytes` > max_record_bytes; the log is as it was. Never throws, the death that a test
  /// environment models excepted.
  [[nodiscard]] bool reserve(std::size_t bytes);
  /// Space for one record of `bytes` (multiple of 16), to be filled by the caller; after reserve(bytes) returned true.
  /// Aborts if the space was not reserved.
  std::byte* append(std::size_t bytes);
  /// Position behind what was appended; the owner stores it as the committed tail.
  [[nodiscard]] std::uint64_t tail() const noexcept { return tail_; }
  /// Forgets what was appended behind `tail` (a transaction that ended early).
  void truncate(std::uint64_t tail) noexcept;

  /// The record at `position`, or nullptr at the tail. Skips to the next segment by itself: `position` is moved to
  /// where the record really begins. nullptr with position != tail(): the bytes there are damaged.
  [[nodiscard]] const RecordHeader* at(std::uint64_t& position) const noexcept;
  /// Position behind the record at `position`, where at() has moved it (so not in one expression with at()).
  [[nodiscard]] static std::uint64_t next(std::uint64_t position, const RecordHeader& record) noexcept {
    return position + record.bytes;
  }
  /// Removes segment files below `head` (the owner has stored it already).
  void release_below(std::uint64_t head) noexcept(shm::Environment::dies_nowhere);
  /// Gives back what the log does not need just now: segments behind the tail's, and, if nothing is in the log
  /// (head == tail), all files. For an owner whose log has been idle for a while; not inside a transaction.
  void trim(std::uint64_t head) noexcept(shm::Environment::dies_nowhere);
  /// Removes all files (the subscription goes).
  void remove_all() noexcept(shm::Environment::dies_nowhere);
  /// Bytes of all segment files.
  [[nodiscard]] std::uint64_t file_bytes() const noexcept;
  /// An upper bound, for those who plan: the files of a log that holds at most `record_bytes` of records, each of at most
  /// `largest_record` bytes. Records of more than half a segment may leave nearly half of it empty; two segments hold little
  /// or nothing.
  [[nodiscard]] static LogFiles most_files(std::uint64_t record_bytes, std::uint64_t largest_record,
                                           std::size_t segment_bytes = default_segment_bytes) noexcept;

 private:
  [[nodiscard]] std::string file_name(std::uint32_t number) const;
  [[nodiscard]] const shm::Segment* find(std::uint32_t number) const noexcept;
  [[nodiscard]] std::size_t next_segment_bytes() const noexcept;
  [[nodiscard]] bool make_segment(std::uint32_t number, std::size_t least_bytes);
  void remove_segments(std::uint32_t first, std::uint32_t last) noexcept(shm::Environment::dies_nowhere);

  shm::Directory* directory_;
  std::string prefix_;
  std::uint64_t generation_;
  std::size_t segment_bytes_;
  std::uint64_t tail_ = first_position;
  std::map<std::uint32_t, shm::Segment> segments_;
  // The segment looked at last: a walk over the log asks the map once per segment.
  mutable std::uint32_t found_number_ = 0;
  mutable const shm::Segment* found_ = nullptr;
};

}  // namespace ackring::log
