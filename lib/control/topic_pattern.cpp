#include "lib/control/topic_pattern.hpp"

#include <algorithm>
#include <functional>
#include <unordered_map>
#include <utility>

#include "ackring/limits.hpp"

namespace ackring::control {
namespace {

// Splits at dots: takes the first word off `rest`. False once all words are taken.
class Words {
 public:
  explicit Words(std::string_view text) noexcept : rest_(text), more_(!text.empty()) {}
  bool next(std::string_view& word) noexcept {
    if (!more_) return false;
    const std::size_t dot = rest_.find('.');
    word = rest_.substr(0, dot);
    more_ = dot != std::string_view::npos;
    rest_ = more_ ? rest_.substr(dot + 1) : std::string_view{};
    return true;
  }

 private:
  std::string_view rest_;
  bool more_;
};

constexpr bool word_character(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

// A word with its hash: one computation for all nodes that look the word up.
struct HashedWord {
  std::string_view text;
  std::size_t hash;
};

struct WordHash {
  using is_transparent = void;
  std::size_t operator()(const HashedWord& word) const noexcept { return word.hash; }
  std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
};

struct WordEqual {
  using is_transparent = void;
  static std::string_view text(const HashedWord& word) noexcept { return word.text; }
  static std::string_view text(const std::string& word) noexcept { return word; }
  bool operator()(const auto& a, const auto& b) const noexcept { return text(a) == text(b); }
};

}  // namespace

bool valid_topic(std::string_view topic) noexcept {
  if (topic.empty() || topic.size() > limits::topic_bytes) return false;
  bool in_word = false;
  for (const char c : topic) {
    if (c == '.' ? !in_word : !word_character(c)) return false;
    in_word = c != '.';
  }
  return in_word;
}

std::string pattern_problem(std::string_view pattern) {
  if (pattern.empty()) return "a pattern has at least one word";
  if (pattern.size() > limits::topic_bytes) {
    return "a pattern has at most " + std::to_string(limits::topic_bytes) + " bytes, this one has " +
           std::to_string(pattern.size());
  }
  Words words(pattern);
  for (std::string_view word; words.next(word);) {
    if (word.empty()) return "a pattern has no empty words";
    if (word == "*" || word == "#") continue;
    if (!std::all_of(word.begin(), word.end(), word_character)) {
      return "a word of a pattern is `*`, `#` or made of [A-Za-z0-9_-]";
    }
  }
  return {};
}

bool matches(std::string_view pattern, std::string_view topic) noexcept {
  // As with globs: where two `#` could both take a word, it does no harm to leave the earlier one as it is, so that
  // only the last `#` seen is ever extended.
  Words pattern_words(pattern);
  Words topic_words(topic);
  std::string_view expected;
  bool more_pattern = pattern_words.next(expected);
  bool have_hash = false;
  Words pattern_after_hash({});
  Words topic_after_hash({});
  for (;;) {
    if (more_pattern && expected == "#") {
      have_hash = true;
      pattern_after_hash = pattern_words;
      topic_after_hash = topic_words;
      more_pattern = pattern_words.next(expected);
      continue;
    }
    std::string_view word;
    const bool more_topic = topic_words.next(word);
    if (!more_pattern && !more_topic) return true;
    if (more_pattern && more_topic && (expected == "*" || expected == word)) {
      more_pattern = pattern_words.next(expected);
      continue;
    }
    // The last `#` takes one more word of the topic, and what follows it starts anew.
    if (!have_hash || !more_topic || !topic_after_hash.next(word)) return false;
    pattern_words = pattern_after_hash;
    topic_words = topic_after_hash;
    more_pattern = pattern_words.next(expected);
  }
}

struct PatternTree::Node {
  std::unordered_map<std::string, std::unique_ptr<Node>, WordHash, WordEqual> words;
  std::unique_ptr<Node> any_word;      // edge `*`
  std::unique_ptr<Node> any_words;     // edge `#`
  bool repeats = false;                // reached by `#`: takes any further word and stays
  std::uint64_t stamp = 0;             // see PatternTree::stamp_
  std::vector<std::uint32_t> numbers;  // ascending

  [[nodiscard]] bool empty() const noexcept {
    return numbers.empty() && words.empty() && any_word == nullptr && any_words == nullptr;
  }
  [[nodiscard]] std::unique_ptr<Node>* edge(std::string_view word) {
    if (word == "*") return &any_word;
    if (word == "#") return &any_words;
    const auto place = words.find(word_key(word));
    return place == words.end() ? nullptr : &place->second;
  }
  [[nodiscard]] static HashedWord word_key(std::string_view word) { return {word, WordHash{}(word)}; }
};

PatternTree::PatternTree() : root_(std::make_unique<Node>()) {}
PatternTree::~PatternTree() = default;
PatternTree::PatternTree(PatternTree&&) noexcept = default;
PatternTree& PatternTree::operator=(PatternTree&&) noexcept = default;

void PatternTree::insert(std::string_view pattern, std::uint32_t number) {
  Node* node = root_.get();
  Words words(pattern);
  for (std::string_view word; words.next(word);) {
    std::unique_ptr<Node>* edge = node->edge(word);
    if (edge == nullptr) edge = &node->words[std::string(word)];
    if (*edge == nullptr) {
      *edge = std::make_unique<Node>();
      (*edge)->repeats = word == "#";
      ++nodes_;
    }
    node = edge->get();
  }
  const auto place = std::lower_bound(node->numbers.begin(), node->numbers.end(), number);
  if (place == node->numbers.end() || *place != number) node->numbers.insert(place, number);
}

void PatternTree::erase(std::string_view pattern, std::uint32_t number) {
  std::vector<std::pair<Node*, std::string_view>> path;  // node, and the word that leads on from it
  Node* node = root_.get();
  Words words(pattern);
  for (std::string_view word; words.next(word);) {
    const std::unique_ptr<Node>* edge = node->edge(word);
    if (edge == nullptr || *edge == nullptr) return;
    path.emplace_back(node, word);
    node = edge->get();
  }
  const auto place = std::lower_bound(node->numbers.begin(), node->numbers.end(), number);
  if (place == node->numbers.end() || *place != number) return;
  node->numbers.erase(place);
  while (!path.empty() && node->empty()) {
    const auto [parent, word] = path.back();
    path.pop_back();
    if (word == "*") {
      parent->any_word.reset();
    } else if (word == "#") {
      parent->any_words.reset();
    } else {
      parent->words.erase(parent->words.find(Node::word_key(word)));
    }
    --nodes_;
    node = parent;
  }
}

// Adds `node` to the set being built, with what follows it by `#` edges, which may take no word at all.
void PatternTree::reach(Node* node) const {
  for (; node != nullptr && node->stamp != stamp_; node = node->any_words.get()) {
    node->stamp = stamp_;
    reached_.push_back(node);
  }
}

void PatternTree::find(std::string_view topic, std::vector<std::uint32_t>& out) const {
  out.clear();
  reached_.clear();
  ++stamp_;
  reach(root_.get());
  Words words(topic);
  for (std::string_view word; words.next(word) && !reached_.empty();) {
    const HashedWord hashed = Node::word_key(word);
    std::swap(reached_, reached_before_);
    reached_.clear();
    ++stamp_;
    for (Node* node : reached_before_) {
      if (node->repeats) reach(node);
      if (node->any_word != nullptr) reach(node->any_word.get());
      if (node->words.empty()) continue;
      const auto place = node->words.find(hashed);
      if (place != node->words.end()) reach(place->second.get());
    }
  }
  std::size_t sources = 0;
  for (const Node* node : reached_) {
    if (node->numbers.empty()) continue;
    ++sources;
    out.insert(out.end(), node->numbers.begin(), node->numbers.end());
  }
  if (sources < 2) return;
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
}

}  // namespace ackring::control
