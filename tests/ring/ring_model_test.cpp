// SpscRing against a simple model: random claims, advances, commits, rollbacks, reads and heads.
#include <doctest/doctest.h>

#include <cstring>
#include <deque>
#include <random>
#include <string>

#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

// What a ring is: a queue of byte strings, and room counted in plain numbers that never come near a wrap.
struct Model {
  struct Record {
    std::string content;
    std::uint64_t bytes;  // with the padding before it
  };
  std::deque<Record> committed;
  std::deque<Record> pending;
  std::uint64_t ring_bytes = 0;
  std::uint64_t index = 0;  // where the next record goes
  std::uint64_t used = 0;   // from the published head to there
  std::uint64_t read = 0;   // read, but the head is not published

  [[nodiscard]] std::uint64_t need(std::uint64_t bytes) const {
    return index + bytes <= ring_bytes ? bytes : ring_bytes - index + bytes;
  }
  [[nodiscard]] bool fits(std::uint64_t bytes) const { return used + need(bytes) <= ring_bytes; }
  void push(std::string content, std::uint64_t bytes) {
    const std::uint64_t total = need(bytes);
    pending.push_back({std::move(content), total});
    used += total;
    index = (index + total) % ring_bytes;
  }
  void rollback() {
    for (const Record& record : pending) {
      used -= record.bytes;
      index = (index + ring_bytes - record.bytes % ring_bytes) % ring_bytes;
    }
    pending.clear();
  }
};

class ModelTest {
 public:
  ModelTest(std::uint64_t ring_bytes, std::uint64_t start, std::uint64_t seed)
      : memory_(ring_bytes, start), writer_(memory_.writer()), reader_(memory_.reader()), random_(seed) {
    model_.ring_bytes = ring_bytes;
    model_.index = start & (ring_bytes - 1);
  }

  void step() {
    const std::uint64_t choice = below(100);
    if (choice < 40) return write(true);
    if (choice < 45) return write(false);
    if (choice < 60) return commit();
    if (choice < 64) return rollback();
    if (choice < 90) return read();
    if (choice < 98) return publish_head();
    reader_.prefetch();
  }
  void drain() {
    commit();
    while (!model_.committed.empty()) read();
    REQUIRE(reader_.peek() == nullptr);
  }
  std::uint64_t records = 0;

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

  void write(bool keep) {
    const std::uint64_t largest = ring::max_event_bytes(memory_.ring_bytes());
    const std::uint64_t payload = below(4) == 0 ? below(largest + 1) : below(80);
    std::string content(payload, '\0');
    for (char& c : content) c = static_cast<char>(random_());
    const RecordHeader header = event_header(++sequence_, payload);
    const bool fits = model_.fits(header.bytes);
    REQUIRE(writer_.fits(header.bytes) == fits);
    std::byte* at = writer_.claim(header.bytes);
    REQUIRE((at != nullptr) == fits);
    if (!fits) return;
    const bool in_one_piece = header.bytes <= writer_.contiguous();
    REQUIRE(in_one_piece == (at == memory_.data() + (writer_.position() & (memory_.ring_bytes() - 1))));
    const bool append = keep && in_one_piece && below(2) == 0;
    if (append) REQUIRE(writer_.append(header.bytes) == at);
    REQUIRE(at + header.bytes <= memory_.data() + memory_.ring_bytes());
    std::memcpy(at, &header, sizeof header);
    std::memcpy(at + sizeof header, content.data(), payload);
    if (!keep) return;
    if (!append) writer_.advance(header.bytes);
    model_.push(std::move(content), header.bytes);
  }
  void commit() {
    writer_.commit();
    committed_ = writer_.position();
    for (Model::Record& record : model_.pending) model_.committed.push_back(std::move(record));
    model_.pending.clear();
    started_ = true;
  }
  void rollback() {
    if (!started_) return;
    writer_.rollback(committed_);
    model_.rollback();
  }
  void read() {
    REQUIRE(reader_.readable() == !model_.committed.empty());
    const std::byte* record = nullptr;
    RecordHeader header{};
    if (below(2) == 0) {
      record = reader_.peek();
      if (record != nullptr) ring::read_once(record, header);
    } else {
      REQUIRE(reader_.refresh());
      const ReadStatus status = reader_.read_checked(header, record);
      REQUIRE(status != ReadStatus::damaged);
      if (status == ReadStatus::empty) record = nullptr;
    }
    REQUIRE((record != nullptr) == !model_.committed.empty());
    if (record == nullptr) return;
    const Model::Record& expected = model_.committed.front();
    REQUIRE(header.payload_bytes == expected.content.size());
    REQUIRE(std::memcmp(record + sizeof header, expected.content.data(), expected.content.size()) == 0);
    reader_.advance(header.bytes);
    model_.read += expected.bytes;
    model_.committed.pop_front();
    ++records;
  }
  void publish_head() {
    memory_.publish_head(reader_.position());
    writer_.set_head(memory_.head());
    model_.used -= model_.read;
    model_.read = 0;
  }

  RingMemory memory_;
  RingWriter writer_;
  RingReader reader_;
  Model model_;
  std::mt19937_64 random_;
  std::uint64_t sequence_ = 0;
  std::uint64_t committed_ = 0;
  bool started_ = false;
};

TEST_CASE("ring equals its model") {
  const std::uint64_t seed = test_seed("ring equals its model");
  std::uint64_t records = 0;
  for (const std::uint64_t ring_bytes : {std::uint64_t{4096}, std::uint64_t{16384}}) {
    for (const std::uint64_t start : start_positions(ring_bytes)) {
      CAPTURE(ring_bytes);
      CAPTURE(start);
      ModelTest test(ring_bytes, start, seed ^ start ^ ring_bytes);
      for (int operation = 0; operation < 60'000; ++operation) test.step();
      test.drain();
      records += test.records;
    }
  }
  CHECK(records > 10'000);
}

}  // namespace
}  // namespace ackring::test
