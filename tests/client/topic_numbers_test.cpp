// TopicNumbers against a map of the standard library.
#include "lib/client/topic_numbers.hpp"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

using namespace ackring;
using client::TopicNumbers;

namespace {

std::string name(std::uint64_t i) {
  // Of all lengths, many alike but for one letter.
  return std::string(1 + i * i % 254, static_cast<char>('a' + i % 3)) + (i % 2 == 0 ? "" : std::to_string(i % 10));
}

}  // namespace

TEST_CASE("a topic has the number that was given to it, whatever came between") {
  std::mt19937_64 random(7);
  TopicNumbers numbers;
  std::map<std::string, std::uint32_t> expected;
  std::map<std::string, TopicNumbers::Place> places;
  for (int i = 0; i < 40'000; ++i) {
    const std::string topic =
        random() % 2 == 0 ? name(random() % 5'000).substr(0, 255) : "t." + std::to_string(random() % 9'000);
    const TopicNumbers::Place place = numbers.find(topic);
    const auto known = expected.find(topic);
    REQUIRE((place == TopicNumbers::nowhere) == (known == expected.end()));
    if (place == TopicNumbers::nowhere) {
      const auto number = static_cast<std::uint32_t>(expected.size());  // 0 is a number as any other
      places[topic] = numbers.insert(topic, number);
      expected[topic] = number;
    } else {
      REQUIRE(place == places[topic]);
      REQUIRE(numbers.number(place) == known->second);
      if (random() % 4 == 0) {
        known->second = static_cast<std::uint32_t>(random());
        numbers.set_number(place, known->second);
      }
    }
    REQUIRE(numbers.size() == expected.size());
  }
  CHECK(expected.size() > 9'000);
  for (const auto& [topic, number] : expected) {
    REQUIRE(numbers.find(topic) == places[topic]);
    REQUIRE(numbers.number(places[topic]) == number);
  }
}

TEST_CASE("who goes through topics in the order in which they came finds them, and others in between") {
  TopicNumbers numbers;
  CHECK(numbers.find("t.0") == TopicNumbers::nowhere);
  for (std::uint32_t i = 0; i < 1'000; ++i) numbers.insert("t." + std::to_string(i), i);
  for (int round = 0; round < 3; ++round) {
    for (std::uint32_t i = 0; i < 1'000; ++i) {
      REQUIRE(numbers.number(numbers.find("t." + std::to_string(i))) == i);
      if (i % 7 == 0) REQUIRE(numbers.find("other." + std::to_string(i)) == TopicNumbers::nowhere);
      if (i % 11 == 0) REQUIRE(numbers.number(numbers.find("t." + std::to_string(999 - i))) == 999 - i);
    }
  }
}

TEST_CASE("topics that differ in a few letters, wherever, are spread over the slots as by chance") {
  constexpr std::uint32_t slots = 1 << 14;
  for (const char* form : {"%", "a.%", "scale.topic.%", "%.scale.topic", "some.very.long.topic.of.a.sensor.%.raw"}) {
    CAPTURE(form);
    std::set<std::uint32_t> used;
    for (std::uint32_t i = 0; i < slots / 2; ++i) {
      std::string topic = form;
      topic.replace(topic.find('%'), 1, std::to_string(i));
      used.insert(TopicNumbers::hash_of(topic) % slots);
    }
    CHECK(used.size() > slots * 37 / 100);  // by chance: 1 - exp(-1/2) of them, 39 %
  }
}

TEST_CASE("texts are equal if all their letters are, at every length") {
  for (std::size_t bytes = 1; bytes <= 255; ++bytes) {
    CAPTURE(bytes);
    const std::string text(bytes, 'x');
    REQUIRE(client::equal_texts(text.data(), std::string(text).data(), bytes));
    for (std::size_t at = 0; at < bytes; ++at) {
      std::string other = text;
      other[at] = 'y';
      REQUIRE_FALSE(client::equal_texts(text.data(), other.data(), bytes));
    }
  }
}
