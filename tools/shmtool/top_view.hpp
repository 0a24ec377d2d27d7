// What the user of shmtool top looks at, and what keys make of it.
//
// Thread rules: one thread per object.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ackring/options.hpp"
#include "tools/shmtool/top_columns.hpp"
#include "tools/shmtool/top_model.hpp"

namespace ackring::tools {

enum class TopKey : std::uint8_t {
  text,  // a character, in UTF-8
  up,
  down,
  left,
  page_up,
  page_down,
  home,
  end,
  enter,
  escape,
  tab,
  backspace,
  clear_line,
  other,  // all that means nothing here
};

struct TopPress {
  TopKey key = TopKey::other;
  std::string text;
};

/// One of the two tables.
struct TopTable {
  std::size_t sort = 0;  // a column
  bool reversed = false;
  std::string selected;   // name of the row; empty: the first one
  std::size_t place = 0;  // where that row was, for when it has gone
  std::size_t top = 0;    // the first row that is shown
};

struct TopView {
  enum class Page : std::uint8_t { table, detail, help };

  Page page = Page::table;
  bool publishers = false;  // the table is theirs
  TopTable of_subscriptions;
  TopTable of_publishers;
  std::string filter;
  bool filtering = false;     // the filter is being typed
  std::string detail_of;      // name of the subscription
  std::string options_of;     // name of the subscription whose options are known …
  nlohmann::json options;     // … and these
  std::size_t scroll = 0;     // of the detail, or the help
  std::size_t page_rows = 1;  // of the table, detail or help, as they were drawn last
  Nanoseconds interval = std::chrono::seconds(1);
  bool paused = false;
  bool quit = false;

  [[nodiscard]] TopTable& table() { return publishers ? of_publishers : of_subscriptions; }
  [[nodiscard]] const TopTable& table() const { return publishers ? of_publishers : of_subscriptions; }
};

inline constexpr Nanoseconds shortest_interval = std::chrono::milliseconds(100);

/// Does to the view what the key says.
void press(TopView& view, const TopPress& key, const TopLook& look);

/// The rows that the filter lets through, in the order in which they are shown.
[[nodiscard]] std::vector<const TopSubscription*> shown_subscriptions(const TopView& view, const TopLook& look);
[[nodiscard]] std::vector<const TopPublisher*> shown_publishers(const TopView& view, const TopLook& look);

/// The place of the selected one of `names`; keeps it in the view. 0 if there is none.
std::size_t selected_place(TopTable& table, const std::vector<std::string_view>& names);

/// The subscription that the detail is about; nullptr: it has gone.
[[nodiscard]] const TopSubscription* detail_subscription(const TopView& view, const TopLook& look);

}  // namespace ackring::tools
