// The columns of the two tables of shmtool top: what is in them, how they sort, and which of them fit.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tools/shmtool/top_model.hpp"
#include "tools/shmtool/top_text.hpp"

namespace ackring::tools {

struct Cell {
  std::string text;
  Style style = Style::plain;
};

/// What cells have in common.
struct TopScale {
  Charset charset = Charset::ascii;
  std::uint64_t largest_lag = 0;
};

struct ColumnShape {
  const char* key;    // for --sort
  const char* title;  // no wider than the column
  std::size_t width;  // of the first column: at least
  int priority;       // the column with the largest one is left out first; 0: never
  bool right;         // numbers
};

template <class Row>
struct Column {
  ColumnShape shape;
  double (*value)(const Row&);  // to sort by, the largest first; nullptr: by name
  Cell (*cell)(const Row&, const TopScale&);
};

/// The first one is the name, and takes the columns of the screen that are left.
[[nodiscard]] std::span<const Column<TopSubscription>> subscription_columns();
[[nodiscard]] std::span<const Column<TopPublisher>> publisher_columns();

/// The column of breakers, which is hidden where there are none.
[[nodiscard]] std::size_t breaker_column_place();
[[nodiscard]] bool any_breaker(const TopLook& look);

/// Places of the columns that fit into `width`, from the left, one blank between two; `sorted` and the first one do
/// always. `hidden`: one that is left out whatever there is room for; more than there are: none.
[[nodiscard]] std::vector<std::size_t> columns_that_fit(const std::vector<ColumnShape>& shapes, std::size_t width,
                                                        std::size_t sorted, std::size_t hidden);

}  // namespace ackring::tools
