// Text tables: columns aligned, numbers to the right.
#pragma once

#include <string>
#include <vector>

namespace ackring::tools {

class Table {
 public:
  /// Titles; a title that begins with '>' is a column of numbers, aligned to the right.
  explicit Table(std::vector<std::string> titles);
  void add(std::vector<std::string> row);
  /// All lines, each ended by a line break, `indent` spaces before each.
  [[nodiscard]] std::string text(std::size_t indent = 0) const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> right_;
};

}  // namespace ackring::tools
