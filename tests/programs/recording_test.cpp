// The formats of shmtool record and replay: what is written comes back byte for byte, and a file that was cut short or
// damaged anywhere gives its whole events and says so.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tools/shmtool/recording_file.hpp"

namespace ackring::tools {
namespace {

RecordedEvent recorded(std::string topic, std::string payload, std::string key = {}, Headers headers = {}) {
  RecordedEvent result;
  result.event = {std::move(topic), std::move(payload), std::move(key), std::move(headers)};
  result.publisher = "shop";
  result.sequence = 7;
  result.delivery = 9;
  result.attempt = 2;
  result.published_unix_ns = 1'700'000'000'123'456'789;
  return result;
}

std::vector<RecordedEvent> samples() {
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  std::vector<RecordedEvent> events;
  for (const char* payload : {"", "x", "{\"a\" :  1}", "\"text\"", " 1", "1 ", "\t{}\r", " \"x\"", "1\n", "\"", "null",
                              "1e999", "[1,2", "grüße", "\xef\xbb\xbf{}"}) {
    events.push_back(recorded("a.b", payload));
  }
  events.push_back(recorded("a.c", every_byte, every_byte, {{"plain", "v"}, {every_byte, every_byte}, {"plain", "w"}}));
  events.push_back(recorded("a.b", std::string(100'000, 'x'), "\"key\"", {{"", ""}, {"n", "grüße"}}));
  events.push_back(recorded("a.b", std::string("\0", 1), std::string("\0k", 2), {{"h", std::string("\0", 1)}}));
  return events;
}

void check_same(const Event& found, const Event& wanted) {
  CHECK(found.topic == wanted.topic);
  CHECK(found.payload == wanted.payload);
  CHECK(found.key == wanted.key);
  CHECK(found.headers == wanted.headers);
}

std::string compact(const std::vector<RecordedEvent>& events, std::uint64_t missed = 0) {
  std::string file;
  CompactWriter writer;
  CompactWriter::begin(77, file);
  for (const RecordedEvent& event : events) writer.add(event, file);
  writer.end(missed, file);
  return file;
}

struct Outcome {
  std::vector<RecordedEvent> events;
  CompactReader::Step step = CompactReader::Step::more;  // the last one
  std::string why;
  std::uint64_t missed = 0;
};

// As a program reads it: `chunk` bytes at a time.
Outcome read(std::string_view file, std::size_t chunk) {
  CompactReader reader;
  Outcome outcome;
  RecordedEvent event;
  std::size_t begin = 0;
  std::size_t end = 0;
  for (;;) {
    outcome.step = reader.next(file.substr(begin, end - begin), event);
    if (outcome.step == CompactReader::Step::damaged) break;
    begin += reader.used();
    CHECK(reader.offset() == begin);
    if (outcome.step == CompactReader::Step::event) {
      outcome.events.push_back(event);
    } else if (outcome.step == CompactReader::Step::end && begin < end) {
      continue;  // bytes follow it
    } else if (end == file.size()) {
      break;
    } else {
      REQUIRE((outcome.step == CompactReader::Step::end || end - begin < reader.needed()));
      end = std::min(end + chunk, file.size());
    }
  }
  outcome.why = reader.why();
  outcome.missed = reader.missed();
  return outcome;
}

TEST_CASE("a line brings back every byte") {
  for (const RecordedEvent& wanted : samples()) {
    const std::string line = recorded_line(wanted);
    CAPTURE(line);
    REQUIRE(line.find('\n') == line.size() - 1);
    RecordedEvent found;
    parse_recorded_line(line.substr(0, line.size() - 1), found);
    check_same(found.event, wanted.event);
    CHECK(found.published_unix_ns == wanted.published_unix_ns);
  }
  CHECK(
      recorded_line(recorded("a", "{\"a\" :  1}")) ==
      "{\"topic\":\"a\",\"key\":\"\",\"headers\":{},\"publisher\":\"shop\",\"sequence\":7,\"delivery\":9,\"attempt\":2,"
      "\"published_ns\":1700000000123456789,\"data\":{\"a\" :  1}}\n");
}

TEST_CASE("a line that is no event says why") {
  for (const char* wrong :
       {"{\"topic\":\"a\",\"data\":1,\"published_ns\":-1}", "{\"topic\":\"a\",\"data\":1,\"published_ns\":\"1\"}",
        "{\"topic\":\"a\",\"data\":1,\"key_base64\":\"?\"}", "{\"topic\":\"a\",\"data\":1,\"headers_base64\":{}}",
        "{\"topic\":\"a\",\"data\":1,\"headers_base64\":[[\"YQ==\"]]}",
        "{\"topic\":\"a\",\"data\":1,\"headers_base64\":[[\"YQ==\",1]]}", "{\"topic\":\"a\",\"da", "{}", "7"}) {
    CAPTURE(wrong);
    RecordedEvent found;
    CHECK_THROWS_AS(parse_recorded_line(wrong, found), std::invalid_argument);
  }
  RecordedEvent found = recorded("old", "old");
  parse_recorded_line("{\"topic\":\"a\",\"data\":1}", found);
  check_same(found.event, {"a", "1", "", {}});
  CHECK(found.published_unix_ns == 0);
}

TEST_CASE("a compact recording brings back everything, however it is read") {
  const auto wanted = samples();
  const std::string file = compact(wanted, 3);
  CHECK(file.substr(0, compact_magic.size()) == compact_magic);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{17}, std::size_t{4096}, file.size()}) {
    const Outcome outcome = read(file, chunk);
    REQUIRE(outcome.step == CompactReader::Step::end);
    CHECK(outcome.missed == 3);
    REQUIRE(outcome.events.size() == wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const RecordedEvent& found = outcome.events[i];
      check_same(found.event, wanted[i].event);
      CHECK(found.publisher == "shop");
      CHECK(found.sequence == 7);
      CHECK(found.delivery == 9);
      CHECK(found.attempt == 2);
      CHECK(found.published_unix_ns == wanted[i].published_unix_ns);
    }
  }
}

std::vector<RecordedEvent> few() {
  return {recorded("a", "one", "k", {{"n", "v"}}), recorded("b", "two"), recorded("a", "three")};
}

TEST_CASE("a compact recording that was cut short at any byte gives its whole events") {
  const std::string file = compact(few());
  // Where each event ends, by the writer.
  std::vector<std::size_t> ends;
  for (std::size_t n = 0; n <= few().size(); ++n) {
    std::string part;
    CompactWriter writer;
    CompactWriter::begin(77, part);
    for (std::size_t i = 0; i < n; ++i) writer.add(few()[i], part);
    ends.push_back(part.size());
    REQUIRE(file.starts_with(part));
  }
  for (std::size_t bytes = 0; bytes < file.size(); ++bytes) {
    CAPTURE(bytes);
    const Outcome outcome = read(std::string_view(file).substr(0, bytes), 64);
    CHECK(outcome.step == CompactReader::Step::more);
    std::size_t whole = 0;
    while (whole + 1 < ends.size() && ends[whole + 1] <= bytes) ++whole;
    CHECK(outcome.events.size() == whole);
  }
  CHECK(read(file, 64).step == CompactReader::Step::end);
}

TEST_CASE("no changed byte of a compact recording goes unseen") {
  const std::string file = compact(few());
  for (std::size_t at = 0; at < file.size(); ++at) {
    for (const char flip : {'\x01', '\x80'}) {
      CAPTURE(at);
      std::string changed = file;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      const Outcome outcome = read(changed, changed.size());
      // A length that was made larger looks like a file that was cut short.
      CHECK(outcome.step != CompactReader::Step::end);
      CHECK((outcome.step == CompactReader::Step::more || !outcome.why.empty()));
      CHECK(outcome.events.size() <= 3);
      const auto wanted = few();
      for (std::size_t i = 0; i < outcome.events.size(); ++i) check_same(outcome.events[i].event, wanted[i].event);
    }
  }
  CHECK(read(file + "x", 64).step == CompactReader::Step::damaged);
  CHECK(read(file + file, 64).step == CompactReader::Step::damaged);
  CHECK(read("{\"topic\"", 64).step == CompactReader::Step::damaged);
  std::string newer = file;
  newer[8] = 2;
  CHECK(read(newer, 64).why.find("version 2") != std::string::npos);
}

}  // namespace
}  // namespace ackring::tools
