// All about one subscription, as shmtool top shows it.
#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "tools/common/units.hpp"
#include "tools/shmtool/subscription_text.hpp"
#include "tools/shmtool/top_lines.hpp"

namespace ackring::tools {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr std::size_t title_columns = 11;

void add_row(std::vector<TextLine>& lines, const std::string& title, const std::string& text,
             Style style = Style::plain) {
  lines.push_back({{fit(title, title_columns, Charset::ascii), Style::faint}, {text, style}});
}

// A title, and then the words one after the other, on as many lines as they take.
void add_words(std::vector<TextLine>& lines, const std::string& title, const std::vector<std::string>& words,
               std::size_t columns) {
  std::string text;
  std::string first = title;
  for (const std::string& word : words) {
    if (!text.empty() && title_columns + text.size() + 2 + word.size() > columns) {
      add_row(lines, std::exchange(first, ""), text);
      text.clear();
    }
    text += (text.empty() ? "" : "  ") + word;
  }
  add_row(lines, first, text);
}

std::string option_text(const std::string& key, const nlohmann::json& value) {
  if (value.is_number_integer() && value.get<std::int64_t>() >= 0) {  // never negative, whatever its type is
    const auto number = value.get<std::uint64_t>();
    if (key.ends_with("_ns")) return key.substr(0, key.size() - 3) + " " + compact_time(number);
    return key + " " + (key.ends_with("_bytes") ? format_bytes(number) : format_count(number));
  }
  return key + " " + (value.is_string() ? value.get<std::string>() : value.dump());
}

// What an option says only if it is set (false, 0, "", []) would fill the screen.
void add_options(std::vector<TextLine>& lines, const nlohmann::json& options, std::size_t columns) {
  if (!options.is_object()) return add_row(lines, "options", "not known yet", Style::faint);
  std::vector<std::string> words;
  for (const auto& [key, value] : options.items()) {
    const bool unset =
        value.is_null() || value == false || value == 0 || value == "" || (value.is_array() && value.empty());
    if (!unset && key != "guarantee") words.push_back(value == true ? key : option_text(key, value));
  }
  add_words(lines, "options", words, columns);
}

// Pairs of a name and a number, side by side as far as there is room.
void add_counters(std::vector<TextLine>& lines, const Pairs& counters, std::size_t columns) {
  constexpr std::size_t name_columns = 14;
  constexpr std::size_t pair_columns = name_columns + 12;  // 9,999,999 and a gap; more digits push the rest on
  const std::size_t pairs = std::max<std::size_t>((columns + 2) / (pair_columns + 2), 1);
  const std::size_t rows = (counters.size() + pairs - 1) / pairs;
  for (std::size_t row = 0; row < rows; ++row) {
    TextLine line;
    for (std::size_t place = row; place < counters.size(); place += rows) {
      line.push_back({fit(counters[place].first, name_columns, Charset::ascii), Style::faint});
      const std::string& text = counters[place].second;
      line.push_back({std::string(12 - std::min<std::size_t>(text.size(), 12), ' ') + text + "  ", Style::plain});
    }
    lines.push_back(std::move(line));
  }
}

Pairs counters_of(const TopSubscription& one) {
  Pairs counters;
  const auto add_rate = [&counters](const char* name, const Rate& rate) {
    counters.emplace_back(name, rate ? compact_rate(*rate) : "-");
  };
  add_rate("matched/s", one.matched);
  add_rate("delivered/s", one.delivered);
  add_rate("acked/s", one.acked);
  add_rate("nacked/s", one.nacked);
  for (const auto& [key, value] : one.row.items()) {
    if (key == "members" || key == "shard" || key == "oldest_monotonic_ns") continue;  // told elsewhere
    if (!value.is_number_unsigned()) continue;
    const auto number = value.get<std::uint64_t>();
    counters.emplace_back(key, key.ends_with("_bytes") ? format_bytes(number) : format_count(number));
  }
  // The names of the counters have 14 columns.
  for (const auto& [what, prefix] : {std::pair{"dropped", "lost "}, std::pair{"dead_lettered_by", "dead "}}) {
    const nlohmann::json reasons = one.row.value(what, nlohmann::json::object());
    for (const auto& [reason, count] : reasons.items()) {
      counters.emplace_back(std::string(prefix) + reason, format_count(count.get<std::uint64_t>()));
    }
  }
  return counters;
}

void add_histogram(std::vector<TextLine>& lines, const char* title, const nlohmann::json& row, const char* key,
                   std::size_t columns, Charset charset) {
  lines.emplace_back();
  lines.push_back({{title, Style::strong}});
  const auto found = row.find(key);
  if (found == row.end()) return lines.push_back({{"nothing was measured", Style::faint}});
  const std::string text = latency_text(*found);
  for (std::size_t at = 0; at < text.size();) {  // broken behind a comma, or where there is none, at the edge
    std::size_t size = text.size() - at;
    if (size > columns) {
      const std::size_t comma = text.rfind(", ", at + columns - 2);
      size = comma != std::string::npos && comma > at ? comma + 2 - at : columns;
    }
    lines.push_back({{text.substr(at, size), Style::plain}});
    at += size;
  }
  std::vector<std::pair<std::string, std::uint64_t>> parts;  // up to which time, and how many
  std::uint64_t below = 0;
  std::uint64_t largest = 0;
  for (const auto& bucket : found->at("buckets")) {
    const auto until = bucket.at(1).get<std::uint64_t>();
    const std::uint64_t count = until - std::min(below, until);
    below = std::max(below, until);
    largest = std::max(largest, count);
    if (!parts.empty() || count != 0) parts.emplace_back(compact_time(bucket.at(0).get<std::uint64_t>()), count);
  }
  while (!parts.empty() && parts.back().second == 0) parts.pop_back();
  const auto all = std::max<double>(static_cast<double>(below), 1);
  const std::size_t width = columns - std::min<std::size_t>(columns, 28);
  for (const auto& [end, count] : parts) {
    const auto number = static_cast<double>(count);
    lines.push_back(
        {{fmt::format("< {:>7} {:>7} {:>6.2f}% ", end, compact_count(count), 100 * number / all), Style::plain},
         {bar(number / static_cast<double>(std::max<std::uint64_t>(largest, 1)), width, charset), Style::good}});
  }
}

void add_members(std::vector<TextLine>& lines, const nlohmann::json& row, std::size_t columns, Charset charset) {
  lines.emplace_back();
  lines.push_back({{"members", Style::strong}});
  const nlohmann::json consumers = row.value("consumers", nlohmann::json::array());
  if (consumers.empty()) return lines.push_back({{"there is none", Style::faint}});
  for (const nlohmann::json& consumer : consumers) {
    const Style style = consumer.at("breaker") == "open" ? Style::bad : Style::plain;
    lines.push_back({{consumer_text(consumer), style}});
    for (const nlohmann::json& error : consumer.value("last_errors", nlohmann::json::array())) {
      const std::string text = error.get<std::string>();
      lines.push_back({{fit("  " + text, std::min(columns, columns_of(text, charset) + 2), charset), Style::warning}});
    }
  }
}

}  // namespace

std::vector<TextLine> detail_lines(const TopSubscription& one, const nlohmann::json& options,
                                   std::uint64_t monotonic_ns, std::size_t columns, Charset charset) {
  std::vector<TextLine> lines;
  lines.push_back({{"subscription ", Style::plain},
                   {one.name, Style::strong},
                   {fmt::format("  {}, {} member{}, shard {}", one.row.at("guarantee").get<std::string>(), one.members,
                                one.members == 1 ? "" : "s", one.row.value("shard", 0)),
                    Style::plain},
                   {one.paused ? "  paused" : "", Style::warning}});
  std::vector<std::string> patterns;
  for (const auto& pattern : one.row.at("patterns")) patterns.push_back(pattern.get<std::string>());
  add_words(lines, "patterns", patterns, columns);
  add_options(lines, options, columns);
  const Style style = one.breaker == "open" ? Style::bad : one.breaker == "half-open" ? Style::warning : Style::plain;
  if (has_breaker(one.row)) add_row(lines, "breaker", breaker_text(one.row.at("breaker"), monotonic_ns), style);
  add_row(lines, "oldest", one.oldest_ns == 0 ? "-" : compact_time(one.oldest_ns) + " ago");
  lines.emplace_back();
  add_counters(lines, counters_of(one), columns);
  add_members(lines, one.row, columns, charset);
  add_histogram(lines, "publish to take", one.row, "publish_to_take", columns, charset);
  add_histogram(lines, "publish to ack", one.row, "publish_to_ack", columns, charset);
  return lines;
}

}  // namespace ackring::tools
