#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "lib/log/segment_log.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

#include "tests/log/log_records.hpp"

using namespace log_test;

TEST_CASE("a log that was never written has no files") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1);
  for (const std::uint64_t begin : {std::uint64_t{0}, first_position}) {
    log.open(begin, begin);
    CHECK(log.tail() == first_position);
    std::uint64_t position = begin;
    CHECK(log.at(position) == nullptr);
    CHECK(position == log.tail());
    log.release_below(begin);
    log.trim(begin);
    CHECK(log.file_bytes() == 0);
    CHECK(files(directory) == 0);
  }
}

TEST_CASE("append and read, over segment ends with and without a segment_end record") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  const std::size_t descriptors = open_descriptors();
  SUBCASE("the segment is filled exactly") {
    REQUIRE(add(log, room - 64, 1));
    REQUIRE(add(log, 64, 2));
    CHECK(log.tail() == position_of(1, small));
    CHECK(files(directory) == 1);
    std::uint64_t position = log.tail();
    CHECK(log.at(position) == nullptr);
    CHECK(position == position_of(1, small));
    REQUIRE(add(log, 64, 3));
    check_record(log.at(position), 64, 3);
    CHECK(position == position_of(2, log_data_offset));
  }
  SUBCASE("16 bytes are left: just the segment_end") {
    REQUIRE(add(log, room - 80, 1));
    REQUIRE(add(log, 64, 2));
    std::uint64_t position = log.tail();
    REQUIRE(add(log, 48, 3));
    check_record(log.at(position), 48, 3);
    CHECK(position == position_of(2, log_data_offset));
  }
  SUBCASE("many bytes are left") {
    REQUIRE(add(log, 64, 1));
    REQUIRE(add(log, 64, 2));
    std::uint64_t position = log.tail();
    REQUIRE(add(log, room, 3));
    check_record(log.at(position), room, 3);
    CHECK(position == position_of(2, log_data_offset));
    CHECK(log.tail() == position_of(2, small));
  }
  CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1, 2, 3});
  CHECK(files(directory) == 2);
  CHECK(log.file_bytes() == 2 * small);
  // The MemoryDirectory keeps one descriptor per file; the log keeps none.
  CHECK(open_descriptors() - descriptors == 2);
}

TEST_CASE("a record larger than a segment gets a segment of its own size") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  REQUIRE(add(log, 64, 1));
  REQUIRE(add(log, 10 * small, 2));
  REQUIRE(add(log, 64, 3));
  CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1, 2, 3});
  std::uint64_t position = first_position;
  skip_record(log, position);
  check_record(log.at(position), 10 * small, 2);
  CHECK_FALSE(log.reserve(log::max_record_bytes + 16));
}

TEST_CASE("reserve makes the file before append needs it, and a larger one where that is asked for") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  REQUIRE(add(log, room - 64, 1));
  const std::uint64_t tail = log.tail();
  REQUIRE(log.reserve(64));
  CHECK(files(directory) == 1);
  REQUIRE(log.reserve(128));
  CHECK(files(directory) == 2);
  CHECK(log.tail() == tail);
  REQUIRE(log.reserve(2 * small));  // the reserved segment is too small for it and has nothing: replaced
  CHECK(files(directory) == 2);
  write_record(log, 2 * small, 2);
  CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1, 2});
}

TEST_CASE("truncate forgets a transaction; what it made is used again") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  REQUIRE(add(log, room - 256, 1));
  const std::uint64_t committed = log.tail();
  for (std::uint64_t i = 2; i < 40; ++i) REQUIRE(add(log, 512, i));
  const std::size_t made = files(directory);
  CHECK(made > 4);
  log.truncate(committed);
  CHECK(log.tail() == committed);
  CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1});
  for (std::uint64_t i = 2; i < 30; ++i) REQUIRE(add(log, i % 3 == 0 ? 256 : 512, 100 + i));
  CHECK(files(directory) == made);
  const std::vector<std::uint64_t> found = sequences(log, 0);
  REQUIRE(found.size() == 29);
  CHECK(found[1] == 102);
  CHECK(found.back() == 129);
  log.truncate(committed);
  log.trim(first_position);
  CHECK(files(directory) == 1);
  CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1});
}

TEST_CASE("release and trim: files go with the head; an idle log costs nothing and goes on where it was") {
  MemoryDirectory directory;
  std::uint64_t tail = first_position;
  {
    SegmentLog log(directory, prefix, 1, small);
    log.open(0, 0);
    for (std::uint64_t i = 1; i <= 40; ++i) REQUIRE(add(log, 1024, i));
    const std::size_t all = files(directory);
    std::uint64_t position = 0;
    for (int i = 0; i < 20; ++i) skip_record(log, position);
    log.release_below(position);
    CHECK(files(directory) < all);
    CHECK(sequences(log, position).size() == 20);
    CHECK(sequences(log, position).front() == 21);
    log.release_below(log.tail());
    CHECK(files(directory) == 1);
    tail = log.tail();
    log.trim(tail);
    CHECK(files(directory) == 0);
    CHECK(log.tail() == tail);
    // Filled and emptied again and again, also where a segment ends, the files stay small.
    for (std::uint64_t i = 0; i < 200; ++i) {
      const std::size_t bytes = 16 * (3 + i * 7 % 90);
      std::uint64_t at = log.tail();
      REQUIRE(add(log, bytes, 1000 + i));
      check_record(log.at(at), bytes, 1000 + i);
      // The first ones may be as large as the backlog had made them.
      CHECK(log.file_bytes() <= (i < 30 ? 8 : 2) * small);
      tail = log.tail();
      log.release_below(tail);
      log.trim(tail);
      CHECK(files(directory) == 0);
    }
  }
  SegmentLog next(directory, prefix, 2, small);
  next.open(tail, tail);
  CHECK(next.tail() == tail);
  std::uint64_t position = tail;
  REQUIRE(add(next, 64, 5));
  check_record(next.at(position), 64, 5);
  next.remove_all();
  CHECK(files(directory) == 0);
}

TEST_CASE("a big backlog uses larger segments") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  std::uint64_t records = 0;
  while (log.file_bytes() < 1024 * small) REQUIRE(add(log, 1024, ++records));
  CHECK(files(directory) <= 80);
  CHECK(files(directory) >= 64);
  CHECK(sequences(log, 0).size() == records);
  log.release_below(log.tail());
  CHECK(log.file_bytes() == 16 * small);
  // Small again when the backlog is gone.
  for (int i = 0; i < 200; ++i) {
    REQUIRE(add(log, 1024, ++records));
    log.release_below(log.tail());
  }
  CHECK(log.file_bytes() <= 2 * small);
}

TEST_CASE("no log has more files or bytes than are planned for what it holds") {
  std::uint32_t state = 7;
  const auto next = [&state](std::uint32_t below) { return ((state = state * 1664525 + 1013904223) >> 8) % below; };
  for (const std::size_t largest : {std::size_t{64}, std::size_t{1024}, room, 3 * small}) {
    const std::uint64_t limit = 60 * small;
    const log::LogFiles most = SegmentLog::most_files(limit, largest, small);
    MemoryDirectory directory;
    SegmentLog log(directory, prefix, 1, small);
    log.open(0, 0);
    std::uint64_t head = first_position;
    std::uint64_t held = 0;
    std::uint64_t most_seen = 0;
    std::uint64_t added = 0;
    for (int i = 0; added < 6 * limit; ++i) {
      const std::size_t bytes =
          i % 3 == 0 ? largest / 16 * 16 : 48 + next(static_cast<std::uint32_t>(largest - 47)) / 16 * 16;
      for (; held + bytes > limit; log.release_below(head)) {
        const RecordHeader* record = log.at(head);
        held -= record->bytes;
        head = SegmentLog::next(head, *record);
      }
      REQUIRE(add(log, bytes, 1));
      held += bytes;
      added += bytes;
      REQUIRE(log.file_bytes() <= most.bytes);
      REQUIRE(files(directory) <= most.files);
      most_seen = std::max(most_seen, log.file_bytes());
    }
    CHECK(most_seen >= limit);
    CHECK(most.bytes <= 4 * limit);
  }
  CHECK(SegmentLog::most_files(0, 1024).files == 0);
}

TEST_CASE("a move takes the log along") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(add(log, 1024, i));
  std::vector<SegmentLog> logs;
  logs.push_back(std::move(log));
  logs.reserve(logs.capacity() + 1);
  CHECK(sequences(logs[0], 0).size() == 10);
  SegmentLog other(directory, "sub.8.backlog", 1, small);
  other.open(0, 0);
  REQUIRE(add(other, 64, 77));
  other = std::move(logs[0]);
  CHECK(sequences(other, 0).size() == 10);
  REQUIRE(add(other, 1024, 11));
  CHECK(sequences(other, 0).back() == 11);
}

TEST_CASE("segment numbers at their end: refused, not wrapped (F42)") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  const std::uint64_t begin = position_of(0xffff'fffe, log_data_offset);
  log.open(begin, begin);
  REQUIRE(add(log, room, 1));
  REQUIRE(add(log, room, 2));
  CHECK(log.tail() == position_of(0xffff'ffff, small));
  CHECK_FALSE(log.reserve(64));
  CHECK(sequences(log, begin) == std::vector<std::uint64_t>{1, 2});
  log.release_below(log.tail());
  log.trim(begin);
  CHECK(files(directory) == 1);
}
