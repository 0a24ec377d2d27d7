// Death before every store of the topic table (F3, F4): built with the test environment, where a hook can end the
// process model at the n-th store. A number that was given out keeps its topic; the same topics interned again get one
// number each.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "lib/control/topic_table.hpp"
#include "lib/shm/environment.hpp"

using namespace ackring::shm;
using ackring::control::TopicReader;
using ackring::control::topics_reserve_bytes;
using ackring::control::TopicTable;

namespace {

struct Death {};

struct KillBefore final : EnvironmentHook {
  explicit KillBefore(std::uint64_t nth) : left(nth) { Environment::hook = this; }
  ~KillBefore() override { Environment::hook = nullptr; }
  KillBefore(const KillBefore&) = delete;
  KillBefore& operator=(const KillBefore&) = delete;
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {
    if (left-- == 0) throw Death{};
  }
  std::uint64_t now_ns() override { return 0; }
  std::uint64_t left;
};

constexpr int topics = 30;

std::string topic(int i) {
  return "topic" + std::string(static_cast<std::size_t>(i) * 7 % 40, 'x') + std::to_string(i);
}

void intern_all(Directory& directory, std::map<std::string, std::uint32_t>& given) {
  TopicTable table(directory, 1);
  for (int i = 0; i < topics; ++i) {
    const std::uint32_t number = table.intern(topic(i));
    REQUIRE(number != 0);
    const auto [known, fresh] = given.emplace(topic(i), number);
    REQUIRE(known->second == number);
  }
}

}  // namespace

TEST_CASE("the topic table survives a death before any store, and a second one before any store after it") {
  std::uint64_t deaths = 0;
  const auto dies = [&](Directory& directory, std::uint64_t n, std::map<std::string, std::uint32_t>& given) {
    try {
      const KillBefore kill(n);
      intern_all(directory, given);
      return false;
    } catch (const Death&) {
      ++deaths;
      return true;
    }
  };
  bool first_died = true;
  for (std::uint64_t n = 0; first_died; ++n) {
    CAPTURE(n);
    auto directory = std::make_shared<MemoryDirectory>();
    std::map<std::string, std::uint32_t> given;
    first_died = dies(*directory, n, given);
    bool second_died = true;
    for (std::uint64_t m = 0; second_died; ++m) {
      CAPTURE(m);
      auto copy = directory->clone();
      auto given_then = given;
      second_died = dies(*copy, m, given_then);
      intern_all(*copy, given_then);
      TopicTable table(*copy, 2);
      REQUIRE(table.count() == topics);
      const auto& segment = *table.segment().as<TopicsSegment>();
      REQUIRE(segment.count.load(std::memory_order_relaxed) == topics);  // relaxed: one thread
      const TopicReader reader(
          Segment::attach(*copy, "topics", SegmentKind::topics, Access::read_only, topics_reserve_bytes));
      std::set<std::uint32_t> numbers;
      for (const auto& [text, number] : given_then) {
        REQUIRE(reader.text(number) == text);
        numbers.insert(number);
      }
      REQUIRE(numbers.size() == topics);
    }
  }
  CHECK(deaths > 1'000);
}
