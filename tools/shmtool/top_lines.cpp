#include "tools/shmtool/top_lines.hpp"

#include <algorithm>
#include <chrono>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

std::string rate_text(const Rate& rate) { return rate ? compact_rate(*rate) + "/s" : "-"; }

TextLine bus_line(const TopLook& look) {
  const Style style = !look.error.empty() || look.state == "stopped" ? Style::bad
                      : look.state == "running"                      ? Style::good
                                                                     : Style::warning;
  TextLine line = {{"bus ", Style::plain}, {look.bus, Style::strong}, {"  exchange ", Style::plain}};
  line.push_back({look.error.empty() ? look.state : "out of sight", style});
  if (look.state != "stopped" && look.error.empty()) {
    line.push_back(
        {fmt::format("  pid {}  up {}", look.pid, compact_time(static_cast<std::uint64_t>(look.uptime_s * 1e9))),
         Style::plain});
  }
  line.push_back({fmt::format("  {} shard{}  {}", look.shards, look.shards == 1 ? "" : "s",
                              format_time(look.unix_ns).substr(11, 8) + "Z"),
                  Style::faint});
  return line;
}

TextLine totals_line(const TopLook& look) {
  std::uint64_t queued = 0;
  std::uint64_t dead = 0;
  for (const TopSubscription& one : look.subscriptions) {
    queued += one.queued;
    dead += one.dlq_size;
  }
  TextLine line = {
      {fmt::format("publish {}  deliver {}  ack {}  nack {}  queued {}  ", rate_text(look.published),
                   rate_text(look.delivered), rate_text(look.acked), rate_text(look.nacked), compact_count(queued)),
       Style::plain}};
  line.push_back({"DLQ " + compact_count(dead), dead == 0 ? Style::plain : Style::bad});
  return line;
}

// What a user must know of the bus before the rows make sense; no line where all is well.
std::vector<TextLine> alerts(const TopLook& look) {
  if (!look.error.empty()) return {{{"This is what was seen last: " + look.error, Style::bad}}};
  std::vector<TextLine> lines;
  if (look.state == "stopped") {
    lines.push_back({{"No exchange serves this bus: this is what its files say, until one starts.", Style::bad}});
  } else if (look.state != "running") {
    lines.push_back({{"The exchange stands still: this is what the files of the bus say.", Style::warning}});
  }
  if (!look.damaged.empty()) {
    lines.push_back(
        {{fmt::format("{} of the files can't be read: {}", look.damaged.size(), look.damaged.front()), Style::bad}});
  }
  return lines;
}

// The filter while it is typed, or how the table is sorted; and on the right, where there is room, the keys to know.
TextLine footer(const TopView& view, std::size_t shown, std::size_t all, std::size_t columns, const char* sorted) {
  if (view.filtering) return {{"filter: " + view.filter, Style::strong}, {" ", Style::selected}};
  TextLine line;
  if (view.paused) line.push_back({"PAUSED ", Style::warning});
  std::string text;
  if (sorted != nullptr) {
    text = fmt::format("{} of {}, by {}{}", shown, all, sorted, view.table().reversed ? " reversed" : "");
  }
  if (!view.filter.empty() && view.page == TopView::Page::table) text += ", filter '" + view.filter + "'";
  text += fmt::format("{}every {}", text.empty() ? "" : ", ",
                      compact_time(static_cast<std::uint64_t>(view.interval.count())));
  line.push_back({text, Style::plain});
  const std::string hint = view.page == TopView::Page::table ? "? help  q quit" : "Esc back  q quit";
  std::size_t used = 0;
  for (const Span& span : line) used += columns_of(span.text, Charset::ascii);
  if (used + 2 + hint.size() <= columns) {
    line.push_back({std::string(columns - used - hint.size(), ' ') + hint, Style::faint});
  }
  return line;
}

template <class Row>
struct Drawing {
  const std::vector<const Row*>& rows;
  std::span<const Column<Row>> columns;
  TopTable& table;
  std::size_t hidden;
  TopScale scale;
};

// Titles, and as many rows as `height` lets through.
template <class Row>
std::vector<TextLine> table_lines(const Drawing<Row>& drawing, std::size_t height, std::size_t width) {
  std::vector<ColumnShape> shapes;
  for (const Column<Row>& column : drawing.columns) shapes.push_back(column.shape);
  const std::size_t sorted = std::min(drawing.table.sort, shapes.size() - 1);
  const std::vector<std::size_t> places = columns_that_fit(shapes, width, sorted, drawing.hidden);
  std::vector<std::size_t> widths;
  std::size_t used = 0;
  for (const std::size_t place : places) {
    widths.push_back(shapes[place].width);
    used += shapes[place].width + 1;
  }
  // What is left goes to the names as far as they are that long, then to the last column if it is text.
  std::size_t left = width - std::min(width, used - 1);
  std::size_t longest = shapes[0].width;
  for (const Row* row : drawing.rows)
    longest = std::max(longest, drawing.columns[0].cell(*row, drawing.scale).text.size());
  const bool text_last = std::string_view(shapes[places.back()].key) == "patterns";
  const std::size_t for_names = text_last ? std::min(left, longest - shapes[0].width) : left;
  widths.front() += for_names;
  left -= for_names;
  if (text_last) widths.back() += left;

  const Charset charset = drawing.scale.charset;
  std::vector<TextLine> lines;
  TextLine titles;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const ColumnShape& shape = shapes[places[i]];
    const Style style = places[i] == sorted ? Style::sorted : Style::title;
    if (i != 0) titles.push_back({" ", Style::title});
    titles.push_back({fit(shape.title, widths[i], charset, shape.right), style});
  }
  lines.push_back(fit_line(titles, width, charset, Style::title));

  std::vector<std::string_view> names;
  for (const Row* row : drawing.rows) names.emplace_back(row->name);
  TopTable& table = drawing.table;
  const std::size_t selected = selected_place(table, names);
  const std::size_t rows = height - 1;
  table.top = std::min(table.top, names.size() - std::min(names.size(), rows));
  if (selected < table.top) table.top = selected;
  if (selected >= table.top + rows) table.top = selected - rows + 1;
  for (std::size_t place = table.top; place < names.size() && place < table.top + rows; ++place) {
    TextLine line;
    for (std::size_t i = 0; i < places.size(); ++i) {
      const Cell cell = drawing.columns[places[i]].cell(*drawing.rows[place], drawing.scale);
      const bool is_selected = place == selected;
      if (i != 0) line.push_back({" ", is_selected ? Style::selected : Style::plain});
      line.push_back(
          {fit(cell.text, widths[i], charset, shapes[places[i]].right), is_selected ? Style::selected : cell.style});
    }
    lines.push_back(fit_line(line, width, charset, place == selected ? Style::selected : Style::plain));
  }
  if (names.empty()) lines.push_back({{"(none)", Style::faint}});
  return lines;
}

std::vector<TextLine> help_lines() {
  std::vector<TextLine> lines = {{{"Keys", Style::strong}}};
  std::istringstream keys(top_keys);
  for (std::string key; std::getline(keys, key);) lines.push_back({{key, Style::plain}});
  static constexpr const char* notes[] = {
      "",
      "LAG      events between the oldest unsettled one and the last; the longest bar is the largest",
      "OLDEST   how long ago the oldest unsettled event was published",
      "FLIGHT   taken by a member, and no verdict yet",
      "BREAKER  the worst of the members' circuit breakers; '!': an operator has ordered it",
      "P99 ACK  99 of 100 events were acked this soon after they were published",
      "A narrow screen leaves columns out; that of the order is always there."};
  for (const char* note : notes) lines.push_back({{note, Style::plain}});
  return lines;
}

// The part of a longer text that is in sight.
std::vector<TextLine> scrolled(std::vector<TextLine> lines, TopView& view, std::size_t height) {
  view.scroll = std::min(view.scroll, lines.size() - std::min(lines.size(), height));
  lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(view.scroll));
  lines.resize(std::min(lines.size(), height));
  return lines;
}

std::vector<TextLine> too_small(TopSize size, Charset charset) {
  const std::string text = fmt::format("{}x{} is too small: {}x{} at least", size.columns, size.rows,
                                       least_top_size.columns, least_top_size.rows);
  std::vector<TextLine> lines = {{{text, Style::plain}}};
  lines.resize(size.rows);
  for (TextLine& line : lines) line = fit_line(line, size.columns, charset);
  return lines;
}

}  // namespace

std::vector<TextLine> top_lines(const TopLook& look, TopView& view, TopSize size, Charset charset) {
  if (size.rows < least_top_size.rows || size.columns < least_top_size.columns) return too_small(size, charset);
  std::vector<TextLine> lines = {bus_line(look)};
  for (TextLine& alert : alerts(look)) {
    if (lines.size() + 4 <= size.rows) lines.push_back(std::move(alert));
  }
  if (size.rows >= 8) lines.push_back(totals_line(look));
  if (size.rows >= 12) lines.emplace_back();
  const std::size_t height = size.rows - lines.size() - 1;

  std::vector<TextLine> body;
  std::size_t shown = 0;
  std::size_t all = 0;
  const char* sorted = nullptr;
  if (view.page == TopView::Page::help) {
    body = scrolled(help_lines(), view, height);
  } else if (view.page == TopView::Page::detail) {
    const TopSubscription* one = detail_subscription(view, look);
    if (one != nullptr) {
      const nlohmann::json options = view.options_of == view.detail_of ? view.options : nullptr;
      body = scrolled(detail_lines(*one, options, look.monotonic_ns, size.columns, charset), view, height);
    } else {
      body = {{{"Subscription " + view.detail_of + " has gone.", Style::bad}}};
    }
  } else if (view.publishers) {
    const auto rows = shown_publishers(view, look);
    const auto columns = publisher_columns();
    shown = rows.size();
    all = look.publishers.size();
    sorted = columns[view.of_publishers.sort].shape.key;
    body = table_lines<TopPublisher>({rows, columns, view.of_publishers, columns.size(), {charset, 0}}, height,
                                     size.columns);
  } else {
    const auto rows = shown_subscriptions(view, look);
    const auto columns = subscription_columns();
    shown = rows.size();
    all = look.subscriptions.size();
    sorted = columns[view.of_subscriptions.sort].shape.key;
    TopScale scale{charset, 0};
    for (const TopSubscription& one : look.subscriptions) scale.largest_lag = std::max(scale.largest_lag, one.lag);
    const std::size_t hidden = any_breaker(look) ? columns.size() : breaker_column_place();
    body = table_lines<TopSubscription>({rows, columns, view.of_subscriptions, hidden, scale}, height, size.columns);
  }
  view.page_rows = std::max<std::size_t>(view.page == TopView::Page::table ? height - 1 : height, 1);
  for (TextLine& line : body) lines.push_back(std::move(line));
  lines.resize(size.rows - 1);
  lines.push_back(footer(view, shown, all, size.columns, sorted));
  for (TextLine& line : lines) line = fit_line(line, size.columns, charset);
  return lines;
}

}  // namespace ackring::tools
