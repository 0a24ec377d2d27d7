#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "lib/control/topic_pattern.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

using ackring::control::matches;
using ackring::control::pattern_problem;
using ackring::control::PatternTree;
using ackring::control::valid_topic;

namespace {

std::uint64_t seed_of_run() {
  const char* given = std::getenv("ACKRING_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : 20'250'731;
}

std::string random_words(std::mt19937_64& random, const std::vector<std::string>& alphabet, std::size_t most) {
  std::string text;
  const std::size_t words = 1 + random() % most;
  for (std::size_t i = 0; i < words; ++i) {
    if (i > 0) text += '.';
    text += alphabet[random() % alphabet.size()];
  }
  return text;
}

// The definition, word by word, without any cleverness.
bool slow_match(const std::vector<std::string>& pattern, std::size_t p, const std::vector<std::string>& topic,
                std::size_t t) {
  if (p == pattern.size()) return t == topic.size();
  if (pattern[p] == "#") {
    for (std::size_t skip = t; skip <= topic.size(); ++skip) {
      if (slow_match(pattern, p + 1, topic, skip)) return true;
    }
    return false;
  }
  return t < topic.size() && (pattern[p] == "*" || pattern[p] == topic[t]) && slow_match(pattern, p + 1, topic, t + 1);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == '.') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

}  // namespace

TEST_CASE("topics: what is valid") {
  for (const char* good : {"a", "a.b", "orders.eu.created", "A-Z_0.9", "-", "_"})
    CHECK_MESSAGE(valid_topic(good), good);
  for (const char* bad : {"", ".", "a.", ".a", "a..b", "a b", "a.*", "#", "a/b", "a\n", "\xc3\xa4"}) {
    CHECK_MESSAGE(!valid_topic(bad), bad);
  }
  CHECK(valid_topic(std::string(255, 'x')));
  CHECK_FALSE(valid_topic(std::string(256, 'x')));
  CHECK_FALSE(valid_topic(std::string_view("a\0b", 3)));
}

TEST_CASE("patterns: what is valid, and why not") {
  for (const char* good : {"a", "*", "#", "a.*", "#.a", "*.#.*", "#.#", "orders.eu.created"}) {
    CHECK_MESSAGE(pattern_problem(good).empty(), good);
  }
  for (const char* bad : {"", ".", "a.", ".a", "a..b", "a*", "*a", "##", "#.a#", "a b", "**"}) {
    CHECK_MESSAGE(!pattern_problem(bad).empty(), bad);
  }
  CHECK(pattern_problem(std::string(255, 'x')).empty());
  CHECK(pattern_problem(std::string(256, 'x')).find("255") != std::string::npos);
}

TEST_CASE("matches: cases of the AMQP specification, and edges of it") {
  struct Case {
    const char* pattern;
    const char* topic;
    bool expected;
  };
  const Case cases[] = {
      // AMQP 0-9-1, 3.1.3.3: "*.stock.#" matches usd.stock and eur.stock.db but not stock.nasdaq
      {"*.stock.#", "usd.stock", true},
      {"*.stock.#", "eur.stock.db", true},
      {"*.stock.#", "stock.nasdaq", false},
      {"#", "a", true},
      {"#", "a.b.c", true},
      {"*", "a", true},
      {"*", "a.b", false},
      {"a", "a", true},
      {"a", "b", false},
      {"a", "ab", false},
      {"ab", "a", false},
      {"a", "a.b", false},
      {"a.b", "a", false},
      {"*.#", "a", true},
      {"*.#", "a.b.c", true},
      {"#.*", "a", true},
      {"#.*", "a.b.c", true},
      {"*.*", "a", false},
      {"*.*", "a.b", true},
      {"#.x", "x", true},
      {"#.x", "a.x", true},
      {"#.x", "a.b.x", true},
      {"#.x", "x.a", false},
      {"#.x", "x.x", true},
      {"a.#", "a", true},
      {"a.#", "a.b.c", true},
      {"a.#", "b.a", false},
      {"a.#.b", "a.b", true},
      {"a.#.b", "a.x.y.b", true},
      {"a.#.b", "a.b.b", true},
      {"a.#.b", "a", false},
      {"a.#.b", "b", false},
      {"a.#.b", "a.b.c", false},
      {"a.*.#", "a", false},
      {"a.*.#", "a.b", true},
      {"a.*.#", "a.b.c.d", true},
      {"#.#", "a", true},
      {"#.a.#", "a", true},
      {"#.a.#", "b.a.c", true},
      {"#.a.#", "b.c", false},
      {"#.a.#.b.#", "b.a", false},
      {"#.a.#.b.#", "x.a.y.b.z", true},
      {"#.*.#.*.#", "a", false},
      {"#.*.#.*.#", "a.b", true},
      {"#.a.b", "a.b.a.b", true},
      {"#.a.*.b", "a.a.a.b", true},
      {"*.a.#.a", "a.a", false},
      {"*.a.#.a", "a.a.a", true},
  };
  for (const Case& c : cases) {
    CAPTURE(c.pattern);
    CAPTURE(c.topic);
    CHECK(matches(c.pattern, c.topic) == c.expected);
    PatternTree tree;
    tree.insert(c.pattern, 7);
    std::vector<std::uint32_t> found{1, 2, 3};
    tree.find(c.topic, found);
    CHECK(found == (c.expected ? std::vector<std::uint32_t>{7} : std::vector<std::uint32_t>{}));
  }
}

TEST_CASE("find agrees with matches(), and matches() with the definition, on random patterns and topics") {
  const std::uint64_t seed = seed_of_run();
  MESSAGE("seed " << seed << "; replay with ACKRING_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::vector<std::string> topic_alphabet{"a", "b", "c"};
  const std::vector<std::string> pattern_alphabet{"a", "b", "c", "*", "#", "#"};
  std::uint64_t compared = 0;
  std::uint64_t matched = 0;
  for (int round = 0; round < 400; ++round) {
    PatternTree tree;
    std::vector<std::pair<std::string, std::uint32_t>> patterns;
    const std::size_t size = 1 + random() % 40;
    for (std::size_t i = 0; i < size; ++i) {
      patterns.emplace_back(random_words(random, pattern_alphabet, 6), static_cast<std::uint32_t>(random() % 20));
      tree.insert(patterns.back().first, patterns.back().second);
    }
    for (std::size_t erased = random() % size; erased > 0; --erased) {
      const auto gone = patterns[random() % patterns.size()];
      tree.erase(gone.first, gone.second);
      std::erase(patterns, gone);
    }
    for (int i = 0; i < 60; ++i) {
      const std::string topic = random_words(random, topic_alphabet, 7);
      std::set<std::uint32_t> expected;
      for (const auto& entry : patterns) {
        const std::string& pattern = entry.first;
        const bool match = matches(pattern, topic);
        REQUIRE_MESSAGE(match == slow_match(split(pattern), 0, split(topic), 0), pattern << " against " << topic);
        if (match) expected.insert(entry.second);
        ++compared;
        matched += match ? 1 : 0;
      }
      std::vector<std::uint32_t> found;
      tree.find(topic, found);
      REQUIRE_MESSAGE(found == std::vector<std::uint32_t>(expected.begin(), expected.end()), topic);
    }
    for (const auto& [pattern, number] : patterns) tree.erase(pattern, number);
    REQUIRE(tree.nodes() == 1);
  }
  CHECK(compared >= 200'000);
  CHECK(matched * 20 > compared);  // else the cases would say little
}

TEST_CASE("a tree: a number once, erase leaves the others, and prunes what nobody needs") {
  PatternTree tree;
  std::vector<std::uint32_t> found;
  tree.find("a.b", found);
  CHECK(found.empty());
  tree.insert("a.b", 3);
  tree.insert("a.b", 3);
  tree.insert("a.*", 3);
  tree.insert("#", 1);
  tree.insert("a.b", 2);
  tree.insert("a.b.c", 9);
  tree.find("a.b", found);
  CHECK(found == std::vector<std::uint32_t>{1, 2, 3});
  tree.erase("a.b", 3);
  tree.find("a.b", found);
  CHECK(found == std::vector<std::uint32_t>{1, 2, 3});
  tree.erase("a.*", 3);
  tree.find("a.b", found);
  CHECK(found == std::vector<std::uint32_t>{1, 2});
  const std::size_t nodes = tree.nodes();
  tree.erase("a.b", 77);
  tree.erase("x.y", 1);
  tree.erase("a.*", 3);
  tree.erase("a", 3);
  CHECK(tree.nodes() == nodes);
  tree.erase("a.b", 2);
  tree.find("a.b", found);
  CHECK(found == std::vector<std::uint32_t>{1});
  tree.find("a.b.c", found);
  CHECK(found == std::vector<std::uint32_t>{1, 9});
  tree.erase("a.b.c", 9);
  tree.erase("#", 1);
  CHECK(tree.nodes() == 1);

  PatternTree moved = std::move(tree);
  moved.insert("x.#", 5);
  moved.find("x", found);
  CHECK(found == std::vector<std::uint32_t>{5});
}

TEST_CASE("the longest topic against patterns made to be slow") {
  std::string topic = "a";
  for (int i = 1; i < 128; ++i) topic += ".a";
  REQUIRE(topic.size() == 255);
  std::string pattern = "#";
  for (int i = 0; i < 60; ++i) pattern += ".a.#";
  pattern += ".b";
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(matches(pattern, topic));
  CHECK(matches(pattern.substr(0, pattern.size() - 2), topic));
  PatternTree tree;
  tree.insert(pattern, 1);
  std::string prefix = "#";
  for (std::uint32_t i = 0; i < 60; ++i) tree.insert(prefix += ".*.#", 2 + i);
  std::vector<std::uint32_t> found;
  tree.find(topic, found);
  CHECK(found.size() == 60);
  // Exponential work would not end in a lifetime; polynomial work takes well under a second even with sanitizers.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

TEST_CASE("1,000 subscriptions of one pattern, and one of each") {
  PatternTree tree;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    tree.insert("orders.#", 999 - i);
    tree.insert("orders.n" + std::to_string(i), 1000 + i);
  }
  std::vector<std::uint32_t> found;
  tree.find("orders.n5", found);
  REQUIRE(found.size() == 1001);
  CHECK(found.front() == 0);
  CHECK(found.back() == 1005);
  CHECK(tree.nodes() == 1 + 1 + 1 + 1000);
}
