#include "lib/control/pattern_cover.hpp"

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <vector>

#include "ackring/limits.hpp"

namespace ackring::control {
namespace {

// A pattern of the longest kind has a word at every second byte; positions are before each word, and behind the last.
constexpr std::size_t positions = limits::topic_bytes / 2 + 2;
using Positions = std::bitset<positions>;

std::vector<std::string_view> split(std::string_view pattern) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t dot = pattern.find('.');
    words.push_back(pattern.substr(0, dot));
    if (dot == std::string_view::npos) return words;
    pattern.remove_prefix(dot + 1);
  }
}

// The outer pattern as an automaton that is in several positions at once.
class Outer {
 public:
  explicit Outer(std::string_view pattern) : words_(split(pattern)) {}

  [[nodiscard]] Positions start() const {
    Positions at;
    enter(at, 0);
    return at;
  }
  // An empty word stands for one that is in neither pattern: only wildcards take it.
  [[nodiscard]] Positions step(const Positions& from, std::string_view word) const {
    Positions to;
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (!from.test(i)) continue;
      if (words_[i] == "#") {
        enter(to, i);
      } else if (words_[i] == "*" || words_[i] == word) {
        enter(to, i + 1);
      }
    }
    return to;
  }
  [[nodiscard]] bool accepts(const Positions& at) const { return at.test(words_.size()); }

 private:
  // `#` may take no word at all.
  void enter(Positions& at, std::size_t position) const {
    at.set(position);
    while (position < words_.size() && words_[position] == "#") at.set(++position);
  }

  std::vector<std::string_view> words_;
};

// Where the inner pattern stands, and where the outer one may stand after the same words.
struct State {
  std::size_t inner;
  bool any_word;  // a topic has at least one
  Positions outer;
};

}  // namespace

// A topic that the inner pattern matches and the outer one does not is looked for among those whose words, where the
// inner one has wildcards, are in neither pattern: if the outer pattern matches such a topic, its own wildcards take
// those words, and would take any others as well.
bool covers(std::string_view outer_pattern, std::string_view inner_pattern) {
  const Outer outer(outer_pattern);
  const std::vector<std::string_view> inner = split(inner_pattern);
  std::vector<State> open{{0, false, outer.start()}};
  std::vector<std::vector<State>> seen(inner.size() + 1);  // by inner position
  int states = 0;
  const auto reach = [&](const State& state) {
    // Fewer positions of the outer one accept less: a state with more of them than one that was seen finds nothing new.
    const auto weaker = [&state](const State& other) {
      return other.any_word == state.any_word && (other.outer & ~state.outer).none();
    };
    std::vector<State>& there = seen[state.inner];
    if (std::any_of(there.begin(), there.end(), weaker)) return;
    there.push_back(state);
    open.push_back(state);
  };
  while (!open.empty()) {
    if (++states > cover_states) return false;
    const State state = open.back();
    open.pop_back();
    if (state.inner == inner.size()) {
      if (state.any_word && !outer.accepts(state.outer)) return false;
      continue;
    }
    const std::string_view word = inner[state.inner];
    if (word == "#") {
      reach({state.inner + 1, state.any_word, state.outer});
      reach({state.inner, true, outer.step(state.outer, {})});
    } else {
      reach({state.inner + 1, true, outer.step(state.outer, word == "*" ? std::string_view{} : word)});
    }
  }
  return true;
}

}  // namespace ackring::control
