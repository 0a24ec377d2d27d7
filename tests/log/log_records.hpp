// What the tests of the log share: records that tell themselves apart, and ways to look at a log.
#pragma once

#include <dirent.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ackring/error.hpp"
#include "lib/log/segment_log.hpp"

namespace log_test {

using namespace ackring;
using namespace ackring::shm;
using ackring::log::first_position;
using ackring::log::SegmentLog;

inline constexpr std::size_t small = page_bytes;  // a segment of the tests
inline constexpr std::size_t room = small - log_data_offset;
inline constexpr const char* prefix = "sub.7.backlog";

inline std::uint64_t position_of(std::uint64_t segment, std::size_t offset) { return segment << 32 | offset; }

// A record whose bytes all follow from its number, so that a reader can tell it from any other.
inline void write_record(SegmentLog& log, std::size_t bytes, std::uint64_t sequence) {
  std::byte* place = log.append(bytes);
  std::vector<unsigned char> image(bytes, static_cast<unsigned char>(sequence * 37 + 1));
  RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(bytes);
  header.kind = static_cast<std::uint16_t>(RecordKind::event);
  header.sequence = sequence;
  std::memcpy(image.data(), &header, std::min(bytes, sizeof header));
  shared_copy(place, image.data(), bytes);
}

inline bool add(SegmentLog& log, std::size_t bytes, std::uint64_t sequence) {
  if (!log.reserve(bytes)) return false;
  write_record(log, bytes, sequence);
  return true;
}

inline void check_record(const RecordHeader* record, std::size_t bytes, std::uint64_t sequence) {
  REQUIRE(record != nullptr);
  REQUIRE(record->bytes == bytes);
  REQUIRE(record->sequence == sequence);
  const auto* image = reinterpret_cast<const unsigned char*>(record);
  for (std::size_t i = sizeof(RecordHeader); i < bytes; ++i) {
    if (image[i] != static_cast<unsigned char>(sequence * 37 + 1)) FAIL("byte " << i << " of record " << sequence);
  }
}

inline std::vector<std::uint64_t> sequences(const SegmentLog& log, std::uint64_t position) {
  std::vector<std::uint64_t> found;
  while (const RecordHeader* record = log.at(position)) {
    found.push_back(record->sequence);
    position = SegmentLog::next(position, *record);
  }
  CHECK(position == log.tail());
  return found;
}

inline void skip_record(const SegmentLog& log, std::uint64_t& position) {
  const RecordHeader* record = log.at(position);
  REQUIRE(record != nullptr);
  position = SegmentLog::next(position, *record);
}

inline std::size_t files(const Directory& directory) { return directory.list("").size(); }

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  REQUIRE(folder != nullptr);
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

inline ErrorCode open_code(Directory& directory, std::uint64_t head, std::uint64_t tail) {
  const std::vector<std::string> before = directory.list("");
  try {
    SegmentLog log(directory, prefix, 2, small);
    log.open(head, tail);
  } catch (const Error& error) {
    CHECK(directory.list("") == before);
    return error.code();
  }
  FAIL("opened");
  return ErrorCode::system;
}

inline std::uint64_t seed_of_run() {
  const char* given = std::getenv("ACKRING_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 90'125;
  MESSAGE("seed " << seed << "; replay with ACKRING_TEST_SEED=" << seed);
  return seed;
}

}  // namespace log_test
