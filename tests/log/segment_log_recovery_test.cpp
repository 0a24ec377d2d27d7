// Death, damage and missing room.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lib/log/segment_log.hpp"
#include "tests/log/log_records.hpp"

using namespace log_test;

TEST_CASE("open after a crash: files outside [head, tail], and bytes behind the tail, do not count") {
  MemoryDirectory directory;
  std::uint64_t head = 0;
  std::uint64_t tail = 0;
  {
    SegmentLog log(directory, prefix, 1, small);
    log.open(0, 0);
    for (std::uint64_t i = 1; i <= 12; ++i) {
      REQUIRE(add(log, 1024, i));
      if (i == 3) head = log.tail();  // in segment 1, behind which there is no room: read on in segment 2
      if (i == 8) tail = log.tail();
    }
  }
  directory.write_file(std::string(prefix) + ".00000099", "not even a segment");
  directory.write_file(std::string(prefix) + ".00000005.tmp", "left by a death inside create");
  directory.write_file("sub.77.backlog.00000001", "another log");
  directory.write_file("sub.7.state", "another file");

  SUBCASE("goes on behind the tail") {
    SegmentLog log(directory, prefix, 2, small);
    log.open(head, tail);
    CHECK(sequences(log, head) == std::vector<std::uint64_t>{4, 5, 6, 7, 8});
    CHECK(directory.list(std::string(prefix) + '.').size() == (tail >> 32) - (head >> 32) + 1);
    CHECK(directory.exists("sub.77.backlog.00000001"));
    CHECK(directory.exists("sub.7.state"));
    for (std::uint64_t i = 20; i < 26; ++i) REQUIRE(add(log, 512, i));
    CHECK(sequences(log, head) == std::vector<std::uint64_t>{4, 5, 6, 7, 8, 20, 21, 22, 23, 24, 25});
  }
  SUBCASE("again and again gives the same (F4)") {
    for (int i = 0; i < 3; ++i) {
      SegmentLog log(directory, prefix, 2, small);
      log.open(head, tail);
      REQUIRE(add(log, 2048, 50));  // not committed
      CHECK(sequences(log, head).size() == 6);
    }
    SegmentLog log(directory, prefix, 3, small);
    log.open(head, tail);
    CHECK(sequences(log, head) == std::vector<std::uint64_t>{4, 5, 6, 7, 8});
  }
  SUBCASE("empty: nothing is kept") {
    SegmentLog log(directory, prefix, 2, small);
    log.open(tail, tail);
    CHECK(directory.list(std::string(prefix) + '.').empty());
    std::uint64_t position = tail;
    CHECK(log.at(position) == nullptr);
    REQUIRE(add(log, 64, 30));
    CHECK(sequences(log, tail) == std::vector<std::uint64_t>{30});
  }
  SUBCASE("a segment in between is missing, short, another's, or no segment: damaged, and nothing is removed") {
    const std::string middle = std::string(prefix) + ".00000002";
    SUBCASE("missing") { directory.remove(middle); }
    SUBCASE("no segment") { directory.write_file(middle, std::string(small, 'x')); }
    SUBCASE("of another number") { directory.rename(std::string(prefix) + ".00000003", middle); }
    SUBCASE("of another kind") { Segment::create(directory, middle, SegmentKind::topics, small, 1, 2); }
    CHECK(open_code(directory, head, tail) == ErrorCode::damaged);
  }
  SUBCASE("words that no log has: damaged") {
    for (const auto& words :
         std::vector<std::pair<std::uint64_t, std::uint64_t>>{{tail, head},
                                                              {head + 1, tail},
                                                              {head, tail + 8},
                                                              {position_of(1, 0), tail},
                                                              {head, position_of(3, small + 16)},
                                                              {5, 5},
                                                              {head, position_of(0xffff'ffff, 4096)}}) {
      CAPTURE(words.first);
      CAPTURE(words.second);
      CHECK(open_code(directory, words.first, words.second) == ErrorCode::damaged);
    }
  }
}

TEST_CASE("a damaged record ends the walk before it") {
  MemoryDirectory directory;
  SegmentLog log(directory, prefix, 1, small);
  log.open(0, 0);
  for (std::uint64_t i = 1; i <= 3; ++i) REQUIRE(add(log, 64, i));
  const Segment segment =
      Segment::attach(directory, std::string(prefix) + ".00000001", SegmentKind::log, Access::read_write);
  auto* record = segment.as<RecordHeader>(log_data_offset + 64);
  const RecordHeader sound = *record;
  for (const std::uint32_t bytes : {0u, 8u, 72u, 1u << 20, 0xffff'fff0u, 256u}) {
    record->bytes = bytes;
    std::uint64_t position = first_position + 64;
    CHECK(log.at(position) == nullptr);
    CHECK(position != log.tail());
  }
  *record = sound;
  record->kind = 0;
  std::uint64_t position = first_position + 64;
  CHECK(log.at(position) == nullptr);
  *record = sound;
  record->kind = static_cast<std::uint16_t>(RecordKind::segment_end);  // but there is no next segment
  CHECK(log.at(position) == nullptr);
  *record = sound;
  CHECK(log.at(position) != nullptr);
}

TEST_CASE("no room, no descriptor: reserve says false, the log is as it was and goes on later (F19, F20, F21)") {
  const std::string path = "/dev/shm/ackring-segment-log-test-" + std::to_string(::getpid());
  FileDirectory directory(path, true);
  {
    SegmentLog log(directory, prefix, 1, small);
    log.open(0, 0);
    REQUIRE(add(log, room - 64, 1));
    const std::uint64_t tail = log.tail();
    bool no_descriptor = false;
    SUBCASE("no room for a file") {}
    SUBCASE("no descriptor") { no_descriptor = true; }
    rlimit old_limit{};
    const auto resource = no_descriptor ? RLIMIT_NOFILE : RLIMIT_FSIZE;
    REQUIRE(::getrlimit(resource, &old_limit) == 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit = old_limit;
    limit.rlim_cur = no_descriptor ? 3 : small / 2;
    REQUIRE(::setrlimit(resource, &limit) == 0);
    const bool reserved = log.reserve(128);
    const bool small_reserved = log.reserve(64);
    REQUIRE(::setrlimit(resource, &old_limit) == 0);
    std::signal(SIGXFSZ, old_handler);
    CHECK_FALSE(reserved);
    CHECK(small_reserved);  // it still fits
    CHECK(log.tail() == tail);
    CHECK(files(directory) == 1);
    CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1});
    REQUIRE(add(log, 128, 2));
    CHECK(sequences(log, 0) == std::vector<std::uint64_t>{1, 2});
    log.remove_all();
  }
  CHECK(::rmdir(path.c_str()) == 0);
}

TEST_CASE("random transactions, consumption, deaths and reopening agree with a simple model") {
  const std::uint64_t seed = seed_of_run();
  std::mt19937_64 random(seed);
  auto directory = std::make_shared<MemoryDirectory>();
  auto log = std::make_unique<SegmentLog>(*directory, prefix, 1, small);
  std::uint64_t head = first_position;
  std::uint64_t tail = first_position;
  std::deque<std::pair<std::uint64_t, std::size_t>> model;  // sequence and bytes of what is committed and not consumed
  std::uint64_t sequence = 0;
  std::uint64_t deaths = 0;
  log->open(head, tail);
  for (int round = 0; round < 6'000; ++round) {
    std::deque<std::pair<std::uint64_t, std::size_t>> added;
    for (std::size_t n = random() % 8; n > 0; --n) {
      const std::size_t bytes = random() % 50 == 0 ? 16 * (1 + random() % 1'500) : 16 * (3 + random() % 40);
      REQUIRE(add(*log, std::max<std::size_t>(bytes, 48), ++sequence));
      added.emplace_back(sequence, std::max<std::size_t>(bytes, 48));
    }
    const std::uint64_t fate = random() % 20;
    if (fate < 15) {
      tail = log->tail();
      model.insert(model.end(), added.begin(), added.end());
    } else if (fate < 18) {
      log->truncate(tail);
    } else {  // death; the copy shows that nothing but the files is needed
      directory = fate == 18 ? directory->clone() : directory->reopen();
      log = std::make_unique<SegmentLog>(*directory, prefix, 2, small);
      log->open(head, tail);
      ++deaths;
    }
    const std::size_t eaten = std::min<std::size_t>(model.size(), random() % (round / 500 % 2 == 0 ? 6 : 12));
    for (std::size_t n = 0; n < eaten; ++n) {
      const RecordHeader* record = log->at(head);
      check_record(record, model.front().second, model.front().first);
      head = SegmentLog::next(head, *record);
      model.pop_front();
    }
    if (random() % 3 == 0) log->release_below(head);
    if (random() % 10 == 0) log->trim(head);
    if (round % 100 == 0) {
      const std::vector<std::uint64_t> found = sequences(*log, head);
      REQUIRE(found.size() == model.size());
      for (std::size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == model[i].first);
    }
  }
  CHECK(deaths > 300);
  log->release_below(head);
  CHECK(sequences(*log, head).size() == model.size());
}
