// Topics and patterns: words of [A-Za-z0-9_-] split by '.'; in patterns `*` is exactly one word, `#` zero or more
// (AMQP 0-9-1, section 3.1.3.3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ackring::control {

/// True for a valid topic: 1 to 255 bytes, no empty word.
[[nodiscard]] bool valid_topic(std::string_view topic) noexcept;
/// Empty if `pattern` is valid; otherwise why not.
[[nodiscard]] std::string pattern_problem(std::string_view pattern);
/// Does `pattern` match `topic`? Both valid. The plain reference that the tree is tested against. At most
/// words(pattern) * words(topic) steps, no allocation.
[[nodiscard]] bool matches(std::string_view pattern, std::string_view topic) noexcept;

/// Many patterns, each with a number; finds all numbers whose patterns match a topic without looking at each pattern:
/// a trie by word, with `*` and `#` edges. A number is reported once, however many of its patterns match.
///
/// find() follows all matching paths at once: after each word of the topic it holds the set of nodes that the words so
/// far can lead to, each node once, so it takes at most nodes * words steps whatever the patterns are, and far fewer
/// where patterns differ in their words.
/// Thread rules: one thread; find() too, since it reuses the tree's scratch space.
class PatternTree {
 public:
  PatternTree();
  ~PatternTree();
  PatternTree(PatternTree&&) noexcept;
  PatternTree& operator=(PatternTree&&) noexcept;

  /// `pattern` is valid. Inserting the same pair again changes nothing.
  void insert(std::string_view pattern, std::uint32_t number);
  /// Nothing where the pair was not inserted.
  void erase(std::string_view pattern, std::uint32_t number);
  /// Numbers of matching patterns, ascending, each once; `out` is overwritten.
  void find(std::string_view topic, std::vector<std::uint32_t>& out) const;
  /// Nodes of the trie, the root included: what the patterns cost.
  [[nodiscard]] std::size_t nodes() const noexcept { return nodes_; }

 private:
  struct Node;
  void reach(Node* node) const;

  std::unique_ptr<Node> root_;
  std::size_t nodes_ = 1;
  // Scratch of find(): the nodes reached so far, and a stamp that tells which nodes are in the set being built.
  mutable std::vector<Node*> reached_;
  mutable std::vector<Node*> reached_before_;
  mutable std::uint64_t stamp_ = 0;
};

}  // namespace ackring::control
