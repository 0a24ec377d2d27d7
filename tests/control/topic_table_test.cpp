#include "lib/control/topic_table.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ackring/error.hpp"
#include "ackring/limits.hpp"
#include "lib/control/topic_pattern.hpp"

using ackring::Error;
using ackring::ErrorCode;
using ackring::control::TopicReader;
using ackring::control::topics_reserve_bytes;
using ackring::control::TopicTable;
using namespace ackring::shm;

namespace {

TopicReader reader_of(const Directory& directory) {
  return TopicReader(
      Segment::attach(directory, "topics", SegmentKind::topics, Access::read_only, topics_reserve_bytes));
}

Segment writable(const Directory& directory) {
  return Segment::attach(directory, "topics", SegmentKind::topics, Access::read_write, topics_reserve_bytes);
}

bool adopts(Directory& directory) {
  try {
    TopicTable table(directory, 2);
    return true;
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::damaged);
    return false;
  }
}

}  // namespace

TEST_CASE("topics: numbers are offsets, the same topic has one number, texts come back") {
  MemoryDirectory directory;
  TopicTable table(directory, 1);
  CHECK(table.count() == 0);
  CHECK(table.text(1).empty());
  CHECK(table.intern("a") == 1);           // 2 + 1 bytes: 8
  CHECK(table.intern("orders.new") == 2);  // 2 + 10 bytes: 16
  CHECK(table.intern("orders.eu") == 4);
  CHECK(table.intern("orders.new") == 2);
  CHECK(table.count() == 3);
  const TopicReader reader = reader_of(directory);
  for (const auto& [number, text] : {std::pair{1u, "a"}, {2u, "orders.new"}, {4u, "orders.eu"}}) {
    CHECK(table.text(number) == text);
    CHECK(reader.text(number) == text);
  }
  // A reader sees what comes later.
  const std::uint32_t later = table.intern("later");
  CHECK(reader.text(later) == "later");
  CHECK(TopicReader().text(1).empty());
}

TEST_CASE("topics: sizes of 1 to 255 bytes; others are refused") {
  MemoryDirectory directory;
  TopicTable table(directory, 1);
  std::vector<std::pair<std::uint32_t, std::string>> given;
  for (std::size_t size = 1; size <= ackring::limits::topic_bytes; ++size) {
    const std::string topic(size, static_cast<char>('a' + size % 26));
    given.emplace_back(table.intern(topic), topic);
    REQUIRE(given.back().first != 0);
  }
  CHECK(table.intern("") == 0);
  CHECK(table.intern(std::string(256, 'x')) == 0);
  const TopicReader reader = reader_of(directory);
  for (const auto& [number, topic] : given) CHECK(reader.text(number) == topic);
}

TEST_CASE("topics: any number may be asked for; none but those given has a text") {
  MemoryDirectory directory;
  TopicTable table(directory, 1);
  std::vector<bool> given(1u << 16);
  for (std::size_t i = 0; i < 2'000; ++i) {
    const std::string topic = "t" + std::to_string(i) + std::string(i % 90, static_cast<char>('-' + i % 2 * 50));
    given.at(table.intern(topic)) = true;
  }
  const TopicReader reader = reader_of(directory);
  for (std::uint32_t number = 0; number < given.size(); ++number) {
    if (reader.text(number).empty() == given[number]) FAIL("number " << number << " given " << given[number]);
  }
  for (const std::uint32_t number : {0u, 1u << 20, 1u << 28, 1u << 29, 0x7fff'ffffu, 0xffff'ffffu}) {
    CHECK(reader.text(number).empty());
    CHECK(table.text(number).empty());
  }
}

TEST_CASE("topics: the file grows in steps, 100,000 topics, adopted by the next exchange") {
  MemoryDirectory directory;
  std::vector<std::uint32_t> numbers;
  {
    TopicTable table(directory, 1);
    const TopicReader reader = reader_of(directory);
    CHECK(table.segment().bytes() == page_bytes + (256u << 10));
    std::size_t bytes = table.segment().bytes();
    std::vector<std::size_t> steps;
    for (int i = 0; i < 100'000; ++i) {
      numbers.push_back(table.intern("some.longer.topic.with.many.words.to.fill.the.arena." + std::to_string(i)));
      REQUIRE(numbers.back() != 0);
      if (table.segment().bytes() != bytes)
        steps.push_back(table.segment().bytes() - std::exchange(bytes, table.segment().bytes()));
    }
    REQUIRE(steps.size() >= 4);
    CHECK(steps[0] == 256u << 10);
    CHECK(steps[1] == 512u << 10);
    CHECK(steps[2] == 1u << 20);
    CHECK(steps[3] == 2u << 20);
    CHECK(reader.text(numbers.back()) == "some.longer.topic.with.many.words.to.fill.the.arena.99999");
  }
  TopicTable next(directory, 2);
  CHECK(next.count() == 100'000);
  for (int i = 0; i < 100'000; i += 997) {
    const std::string topic = "some.longer.topic.with.many.words.to.fill.the.arena." + std::to_string(i);
    CHECK(next.intern(topic) == numbers[static_cast<std::size_t>(i)]);
    CHECK(next.text(numbers[static_cast<std::size_t>(i)]) == topic);
  }
  CHECK(next.count() == 100'000);
}

TEST_CASE("topics: the limit of 1,048,576, and the largest topics fit the reserved address space") {
  MemoryDirectory directory;
  TopicTable table(directory, 1);
  std::string topic(40, 'x');
  for (std::size_t i = 0; i < ackring::limits::topics; ++i) {
    std::memcpy(topic.data(), &i, 4);  // no valid topics, but distinct ones: the table takes any bytes
    topic[0] |= 1;
    topic[4] = static_cast<char>('a' + (i & 1));
    if (table.intern(topic) == 0) FAIL("refused after " << i);
  }
  CHECK(table.count() == ackring::limits::topics);
  CHECK(table.intern("one.more") == 0);
  CHECK(table.intern(topic) != 0);  // known ones still are
  CHECK(table.count() == ackring::limits::topics);
}

TEST_CASE("topics: a death between the stores (text, arena_bytes, count) loses nothing") {
  MemoryDirectory directory;
  {
    TopicTable table(directory, 1);
    table.intern("first");
    table.intern("second");
  }
  SUBCASE("text written, arena_bytes not: the text does not count") {
    const Segment segment = writable(directory);
    std::memset(segment.data() + page_bytes + 16, 'z', 64);
    TopicTable table(directory, 2);
    CHECK(table.count() == 2);
    const std::uint32_t number = table.intern("third");
    CHECK(number == 3);
    CHECK(reader_of(directory).text(number) == "third");
  }
  SUBCASE("arena_bytes stored, count not: counted again") {
    writable(directory).as<TopicsSegment>()->count.store(1, std::memory_order_relaxed);  // relaxed: one thread
    TopicTable table(directory, 2);
    CHECK(table.count() == 2);
    CHECK(table.segment().as<TopicsSegment>()->count.load(std::memory_order_relaxed) == 2);  // relaxed: one thread
    CHECK(table.intern("second") == 2);
  }
}

TEST_CASE("topics: a damaged arena is refused, not read") {
  MemoryDirectory directory;
  {
    TopicTable table(directory, 1);
    table.intern("first");
    table.intern("second.topic");
  }
  const Segment segment = writable(directory);
  auto* topics = segment.as<TopicsSegment>();
  const std::uint64_t used = topics->arena_bytes.load(std::memory_order_relaxed);  // relaxed: one thread
  CHECK(adopts(directory));
  for (const std::uint64_t wrong :
       {used + 8, used - 8, used - 1, std::uint64_t{1} << 40, ~std::uint64_t{0}, ~std::uint64_t{7}}) {
    topics->arena_bytes.store(wrong, std::memory_order_relaxed);  // relaxed: one thread
    CAPTURE(wrong);
    CHECK_FALSE(adopts(directory));
    // A reader stays within what the reserved address space can hold.
    if (wrong > topics_reserve_bytes) CHECK(reader_of(directory).text(2).empty());
  }
  topics->arena_bytes.store(used, std::memory_order_relaxed);  // relaxed: one thread
  segment.data()[page_bytes] = std::byte{0};
  CHECK_FALSE(adopts(directory));
}

TEST_CASE("topics: no room to grow refuses new topics only, and goes on when there is room (F20)") {
  const std::string path = "/dev/shm/ackring-topic-table-test-" + std::to_string(::getpid());
  FileDirectory directory(path, true);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  {
    TopicTable table(directory, 1);
    const std::uint32_t first = table.intern("first");
    rlimit limit = old_limit;
    limit.rlim_cur = table.segment().bytes();  // a file that may not grow: the kernel answers as a full disk does
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    const std::string filler(200, 'x');
    int made = 0;
    while (table.intern(filler + std::to_string(made)) != 0) ++made;
    const std::uint64_t count = table.count();
    CHECK(made > 1'000);
    CHECK(table.intern(filler + "one.more") == 0);
    CHECK(table.count() == count);
    CHECK(table.intern("first") == first);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &old_limit) == 0);
    CHECK(table.intern(filler + "one.more") != 0);
    CHECK(table.count() == count + 1);
  }
  std::signal(SIGXFSZ, old_handler);
  directory.remove("topics");
  CHECK(::rmdir(path.c_str()) == 0);
}
