// Topics and patterns against the plainest reading of their definition. An input is lines: `+N PATTERN` inserts a pattern
// under a number, `-N PATTERN` erases it, `?TOPIC` looks a topic up; anything else is both a topic and a pattern.
#include <set>
#include <utility>
#include <vector>

#include "lib/control/topic_pattern.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace ackring;

std::vector<std::string> words_of(std::string_view text) {
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

bool plain_word(const std::string& word) {
  return !word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
                              std::string::npos;
}

bool is_topic(std::string_view text) {
  if (text.empty() || text.size() > 255) return false;
  const std::vector<std::string> words = words_of(text);
  return std::all_of(words.begin(), words.end(), plain_word);
}

bool is_pattern(std::string_view text) {
  if (text.empty() || text.size() > 255) return false;
  const std::vector<std::string> words = words_of(text);
  return std::all_of(words.begin(), words.end(),
                     [](const std::string& word) { return word == "*" || word == "#" || plain_word(word); });
}

// Row by row: which beginnings of the topic does the pattern so far match?
bool does_match(std::string_view pattern, std::string_view topic) {
  const std::vector<std::string> topic_words = words_of(topic);
  std::vector<bool> row(topic_words.size() + 1, false);
  row[0] = true;
  for (const std::string& word : words_of(pattern)) {
    std::vector<bool> next(row.size(), false);
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (word == "#") {
        next[i] = row[i] || (i > 0 && next[i - 1]);
      } else if (i > 0) {
        next[i] = row[i - 1] && (word == "*" || word == topic_words[i - 1]);
      }
    }
    row = next;
  }
  return row.back();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 4096));
  control::PatternTree tree;
  std::set<std::pair<std::string, std::uint32_t>> live;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    char what = ' ';
    std::uint32_t number = 0;
    if (!line.empty() && (line[0] == '+' || line[0] == '-' || line[0] == '?')) {
      what = line[0];
      line.remove_prefix(1);
    }
    if ((what == '+' || what == '-') && line.size() > 2 && line[1] == ' ') {
      number = static_cast<std::uint8_t>(line[0]);
      line.remove_prefix(2);
    }
    CAPTURE(line);
    const bool topic = is_topic(line);
    const bool pattern = is_pattern(line);
    CHECK(control::valid_topic(line) == topic);
    CHECK(control::pattern_problem(line).empty() == pattern);
    if (topic) CHECK(control::matches(line, line));  // a topic is a pattern that matches itself
    if (what == '+' && pattern) {
      tree.insert(line, number);
      live.emplace(line, number);
    } else if (what == '-' && pattern) {
      tree.erase(line, number);
      live.erase({std::string(line), number});
    } else if (topic) {
      std::set<std::uint32_t> expected;
      for (const auto& inserted : live) {
        const bool match = does_match(inserted.first, line);
        CAPTURE(inserted.first);
        CHECK(control::matches(inserted.first, line) == match);
        if (match) expected.insert(inserted.second);
      }
      std::vector<std::uint32_t> found{77};
      tree.find(line, found);
      CHECK(found == std::vector<std::uint32_t>(expected.begin(), expected.end()));
    }
  }
  for (const auto& [pattern, number] : live) tree.erase(pattern, number);
  CHECK(tree.nodes() == 1);  // nothing is left of what was erased
  return 0;
}
