#include "tools/shmtool/top_view.hpp"

#include <algorithm>
#include <cctype>
#include <iterator>

namespace ackring::tools {
namespace {

constexpr Nanoseconds intervals[] = {
    std::chrono::milliseconds(100), std::chrono::milliseconds(200), std::chrono::milliseconds(500),
    std::chrono::seconds(1),        std::chrono::seconds(2),        std::chrono::seconds(5),
    std::chrono::seconds(10),       std::chrono::seconds(30),       std::chrono::seconds(60)};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

template <class Row, class Matches>
std::vector<const Row*> shown(const std::vector<Row>& rows, std::span<const Column<Row>> columns, const TopTable& table,
                              const Matches& matches) {
  std::vector<const Row*> result;
  for (const Row& row : rows) {
    if (matches(row)) result.push_back(&row);
  }
  const Column<Row>& column = columns[std::min(table.sort, columns.size() - 1)];
  std::stable_sort(result.begin(), result.end(), [&](const Row* left, const Row* right) {
    const Row* first = table.reversed ? right : left;
    const Row* second = table.reversed ? left : right;
    if (column.value == nullptr) {
      if (table.sort == 0) return first->name < second->name;
      const TopScale scale;
      const std::string text = column.cell(*first, scale).text;
      const std::string other = column.cell(*second, scale).text;
      return text != other ? text < other : left->name < right->name;
    }
    const double value = column.value(*first);
    const double other = column.value(*second);
    return value != other ? value > other : left->name < right->name;  // rows that are alike do not change places
  });
  return result;
}

template <class Row>
std::vector<std::string_view> names_of(const std::vector<const Row*>& rows) {
  std::vector<std::string_view> names;
  for (const Row* row : rows) names.emplace_back(row->name);
  return names;
}

std::vector<std::string_view> shown_names(const TopView& view, const TopLook& look) {
  return view.publishers ? names_of(shown_publishers(view, look)) : names_of(shown_subscriptions(view, look));
}

// `by` rows on; from the first or the last one no further.
void move(TopView& view, const TopLook& look, std::ptrdiff_t by) {
  const std::vector<std::string_view> names = shown_names(view, look);
  if (names.empty()) return;
  TopTable& table = view.table();
  const auto last = static_cast<std::ptrdiff_t>(names.size()) - 1;
  const auto from = static_cast<std::ptrdiff_t>(selected_place(table, names));
  table.place = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(from + by, 0, last));
  table.selected = names[table.place];
}

void sort_by_next(TopView& view, const TopLook& look, bool back) {
  TopTable& table = view.table();
  const std::size_t count = view.publishers ? publisher_columns().size() : subscription_columns().size();
  do {
    table.sort = (table.sort + (back ? count - 1 : 1)) % count;
  } while (!view.publishers && table.sort == breaker_column_place() && !any_breaker(look));
  table.reversed = false;
}

void change_interval(TopView& view, bool longer) {
  const auto* const first = std::begin(intervals);
  const auto* const last = std::end(intervals);
  if (longer) {
    const auto* const next = std::upper_bound(first, last, view.interval);
    if (next != last) view.interval = *next;
  } else {
    const auto* const here = std::lower_bound(first, last, view.interval);
    if (here != first) view.interval = *(here - 1);
  }
}

void edit_filter(TopView& view, const TopPress& key) {
  switch (key.key) {
    case TopKey::text:
      if (view.filter.size() < 200) view.filter += key.text;
      break;
    case TopKey::backspace:
      while (!view.filter.empty()) {  // bytes that continue a character go with it
        const auto byte = static_cast<unsigned char>(view.filter.back());
        view.filter.pop_back();
        if ((byte & 0xc0) != 0x80) break;
      }
      break;
    case TopKey::clear_line:
      view.filter.clear();
      break;
    case TopKey::escape:
      view.filter.clear();
      view.filtering = false;
      break;
    case TopKey::enter:
      view.filtering = false;
      break;
    default:
      break;
  }
}

// Keys that do the same on every page. False: it is none.
bool press_anywhere(TopView& view, const TopPress& key) {
  if (key.key != TopKey::text) return false;
  if (key.text == "q") {
    view.quit = true;
  } else if (key.text == "p" || key.text == " ") {
    view.paused = !view.paused;
  } else if (key.text == "+" || key.text == "=") {
    change_interval(view, true);
  } else if (key.text == "-") {
    change_interval(view, false);
  } else if (key.text == "h" || key.text == "?") {
    const bool helped = view.page == TopView::Page::help;
    view.page = !helped ? TopView::Page::help : view.detail_of.empty() ? TopView::Page::table : TopView::Page::detail;
    view.scroll = 0;
  } else {
    return false;
  }
  return true;
}

// The keys that move, as other programs have them.
TopPress translated(const TopPress& key) {
  if (key.key != TopKey::text) return key;
  if (key.text == "j") return {TopKey::down, ""};
  if (key.text == "k") return {TopKey::up, ""};
  if (key.text == "g") return {TopKey::home, ""};
  if (key.text == "G") return {TopKey::end, ""};
  return key;
}

constexpr std::ptrdiff_t far_away = 1'000'000'000;

void press_in_table(TopView& view, const TopPress& key, const TopLook& look) {
  const auto rows = static_cast<std::ptrdiff_t>(view.page_rows);
  switch (key.key) {
    case TopKey::up:
      return move(view, look, -1);
    case TopKey::down:
      return move(view, look, 1);
    case TopKey::page_up:
      return move(view, look, -rows);
    case TopKey::page_down:
      return move(view, look, rows);
    case TopKey::home:
      return move(view, look, -far_away);
    case TopKey::end:
      return move(view, look, far_away);
    case TopKey::tab:
      view.publishers = !view.publishers;
      return;
    case TopKey::escape:
      view.filter.clear();
      return;
    case TopKey::enter:
      if (view.publishers) return;
      move(view, look, 0);
      if (shown_subscriptions(view, look).empty()) return;
      view.detail_of = view.of_subscriptions.selected;
      view.page = TopView::Page::detail;
      view.scroll = 0;
      return;
    default:
      break;
  }
  if (key.text == "s" || key.text == ">") sort_by_next(view, look, false);
  if (key.text == "<") sort_by_next(view, look, true);
  if (key.text == "r") view.table().reversed = !view.table().reversed;
  if (key.text == "/") view.filtering = true;
}

// Of the detail and the help. Where the text ends, whoever draws it knows.
void press_in_text(TopView& view, const TopPress& key) {
  const auto back = [&view](std::size_t by) { view.scroll -= std::min(by, view.scroll); };
  switch (key.key) {
    case TopKey::up:
      return back(1);
    case TopKey::down:
      ++view.scroll;
      return;
    case TopKey::page_up:
      return back(view.page_rows);
    case TopKey::page_down:
      view.scroll += view.page_rows;
      return;
    case TopKey::home:
      view.scroll = 0;
      return;
    case TopKey::end:
      view.scroll = far_away;
      return;
    case TopKey::escape:
    case TopKey::enter:
    case TopKey::left:
    case TopKey::backspace:
      if (view.page == TopView::Page::help && !view.detail_of.empty()) {
        view.page = TopView::Page::detail;
      } else {
        view.page = TopView::Page::table;
        view.detail_of.clear();
      }
      view.scroll = 0;
      return;
    default:
      return;
  }
}

}  // namespace

std::vector<const TopSubscription*> shown_subscriptions(const TopView& view, const TopLook& look) {
  const std::string wanted = lower(view.filter);
  return shown(look.subscriptions, subscription_columns(), view.of_subscriptions, [&](const TopSubscription& one) {
    return lower(one.name).find(wanted) != std::string::npos || lower(one.patterns).find(wanted) != std::string::npos;
  });
}

std::vector<const TopPublisher*> shown_publishers(const TopView& view, const TopLook& look) {
  const std::string wanted = lower(view.filter);
  return shown(look.publishers, publisher_columns(), view.of_publishers,
               [&](const TopPublisher& one) { return lower(one.name).find(wanted) != std::string::npos; });
}

std::size_t selected_place(TopTable& table, const std::vector<std::string_view>& names) {
  if (names.empty() || table.selected.empty()) return table.place = 0;
  const auto found = std::find(names.begin(), names.end(), table.selected);
  table.place =
      found != names.end() ? static_cast<std::size_t>(found - names.begin()) : std::min(table.place, names.size() - 1);
  return table.place;
}

const TopSubscription* detail_subscription(const TopView& view, const TopLook& look) {
  for (const TopSubscription& one : look.subscriptions) {
    if (one.name == view.detail_of) return &one;
  }
  return nullptr;
}

void press(TopView& view, const TopPress& key, const TopLook& look) {
  if (view.filtering) return edit_filter(view, key);
  if (press_anywhere(view, key)) return;
  if (view.page == TopView::Page::table) {
    press_in_table(view, translated(key), look);
  } else {
    press_in_text(view, translated(key));
  }
}

}  // namespace ackring::tools
