#include "tools/shmtool/top_columns.hpp"

#include <algorithm>
#include <array>

namespace ackring::tools {
namespace {

Cell count_cell(std::uint64_t count, Style above_zero = Style::plain) {
  return {compact_count(count), count == 0 ? Style::plain : above_zero};
}

Cell rate_cell(const Rate& rate, Style above_zero = Style::plain) {
  if (!rate) return {"-", Style::faint};
  return {compact_rate(*rate), *rate > 0 ? above_zero : Style::plain};
}

Cell time_cell(std::uint64_t ns) { return ns == 0 ? Cell{"-", Style::faint} : Cell{compact_time(ns)}; }

// What is not known sorts below what is 0.
double value_of(const Rate& rate) { return rate.value_or(-1); }

Cell breaker_cell(const TopSubscription& one) {
  if (one.breaker == "none") return {one.breaker_forced ? "ordered" : "-", Style::faint};
  const Style style = one.breaker == "open" ? Style::bad : one.breaker == "closed" ? Style::good : Style::warning;
  return {one.breaker + (one.breaker_forced ? "!" : ""), style};
}

double breaker_value(const TopSubscription& one) {
  if (one.breaker == "open") return 3;
  if (one.breaker == "half-open") return 2;
  return one.breaker == "closed" ? 1 : 0;
}

using Sub = TopSubscription;
using Pub = TopPublisher;

constexpr std::size_t lag_columns = 6;

constexpr auto sub_columns = std::to_array<Column<Sub>>({
    {{"name", "SUBSCRIPTION", 12, 0, false},
     nullptr,
     [](const Sub& one, const TopScale&) {
       return one.paused ? Cell{one.name + " (paused)", Style::warning} : Cell{one.name};
     }},
    {{"matched", "MATCH/s", 7, 5, true},
     [](const Sub& one) { return value_of(one.matched); },
     [](const Sub& one, const TopScale&) { return rate_cell(one.matched); }},
    {{"delivered", "DELIV/s", 7, 10, true},
     [](const Sub& one) { return value_of(one.delivered); },
     [](const Sub& one, const TopScale&) { return rate_cell(one.delivered); }},
    {{"acked", "ACK/s", 5, 4, true},
     [](const Sub& one) { return value_of(one.acked); },
     [](const Sub& one, const TopScale&) { return rate_cell(one.acked); }},
    {{"nacked", "NACK/s", 6, 8, true},
     [](const Sub& one) { return value_of(one.nacked); },
     [](const Sub& one, const TopScale&) { return rate_cell(one.nacked, Style::warning); }},
    {{"queued", "QUEUED", 6, 1, true},
     [](const Sub& one) { return static_cast<double>(one.queued); },
     [](const Sub& one, const TopScale&) { return count_cell(one.queued); }},
    {{"lag", "LAG", lag_columns, 6, false},
     [](const Sub& one) { return static_cast<double>(one.lag); },
     [](const Sub& one, const TopScale& scale) {
       const double part =
           scale.largest_lag == 0 ? 0 : static_cast<double>(one.lag) / static_cast<double>(scale.largest_lag);
       return Cell{bar(part, lag_columns, scale.charset)};
     }},
    {{"oldest", "OLDEST", 6, 3, true},
     [](const Sub& one) { return static_cast<double>(one.oldest_ns); },
     [](const Sub& one, const TopScale&) { return time_cell(one.oldest_ns); }},
    {{"in-flight", "FLIGHT", 6, 7, true},
     [](const Sub& one) { return static_cast<double>(one.in_flight); },
     [](const Sub& one, const TopScale&) { return count_cell(one.in_flight); }},
    {{"retry", "RETRY", 5, 9, true},
     [](const Sub& one) { return static_cast<double>(one.retry_waiting); },
     [](const Sub& one, const TopScale&) { return count_cell(one.retry_waiting, Style::warning); }},
    {{"dlq", "DLQ", 5, 2, true},
     [](const Sub& one) { return static_cast<double>(one.dlq_size); },
     [](const Sub& one, const TopScale&) { return count_cell(one.dlq_size, Style::bad); }},
    {{"breaker", "BREAKER", 10, 2, false},
     breaker_value,
     [](const Sub& one, const TopScale&) { return breaker_cell(one); }},
    {{"p99", "P99 ACK", 7, 11, true},
     [](const Sub& one) { return static_cast<double>(one.p99_ns); },
     [](const Sub& one, const TopScale&) { return time_cell(one.p99_ns); }},
    {{"members", "MEMBERS", 7, 12, true},
     [](const Sub& one) { return static_cast<double>(one.members); },
     [](const Sub& one, const TopScale&) { return count_cell(one.members); }},
    {{"patterns", "PATTERNS", 20, 13, false},
     nullptr,
     [](const Sub& one, const TopScale&) { return Cell{one.patterns, Style::faint}; }},
});

constexpr auto pub_columns = std::to_array<Column<Pub>>({
    {{"name", "PUBLISHER", 12, 0, false},
     nullptr,
     [](const Pub& one, const TopScale&) {
       return one.quarantined ? Cell{one.name + " (quarantined)", Style::bad} : Cell{one.name};
     }},
    {{"published", "PUBLISH/s", 9, 1, true},
     [](const Pub& one) { return value_of(one.committed_per_s); },
     [](const Pub& one, const TopScale&) { return rate_cell(one.committed_per_s); }},
    {{"committed", "COMMITTED", 9, 2, true},
     [](const Pub& one) { return static_cast<double>(one.committed); },
     [](const Pub& one, const TopScale&) { return count_cell(one.committed); }},
    {{"routed", "ROUTED", 6, 4, true},
     [](const Pub& one) { return static_cast<double>(one.routed); },
     [](const Pub& one, const TopScale&) { return count_cell(one.routed); }},
    {{"in-ring", "IN RING", 7, 3, true},
     [](const Pub& one) { return static_cast<double>(one.in_ring); },
     [](const Pub& one, const TopScale&) { return count_cell(one.in_ring); }},
    {{"back-pressured", "BACK-PR", 7, 5, true},
     [](const Pub& one) { return static_cast<double>(one.back_pressured); },
     [](const Pub& one, const TopScale&) { return count_cell(one.back_pressured, Style::warning); }},
    {{"unroutable", "UNROUTED", 8, 6, true},
     [](const Pub& one) { return static_cast<double>(one.unroutable); },
     [](const Pub& one, const TopScale&) { return count_cell(one.unroutable, Style::warning); }},
    {{"duplicates", "DUPLIC", 6, 7, true},
     [](const Pub& one) { return static_cast<double>(one.duplicates); },
     [](const Pub& one, const TopScale&) { return count_cell(one.duplicates); }},
    {{"denied", "DENIED", 6, 8, true},
     [](const Pub& one) { return static_cast<double>(one.denied); },
     [](const Pub& one, const TopScale&) { return count_cell(one.denied, Style::bad); }},
    {{"discarded", "DISCARD", 7, 9, true},
     [](const Pub& one) { return static_cast<double>(one.discarded); },
     [](const Pub& one, const TopScale&) { return count_cell(one.discarded, Style::bad); }},
});

}  // namespace

std::span<const Column<TopSubscription>> subscription_columns() { return sub_columns; }
std::span<const Column<TopPublisher>> publisher_columns() { return pub_columns; }

std::size_t breaker_column_place() {
  const auto* const found = std::find_if(sub_columns.begin(), sub_columns.end(), [](const Column<Sub>& column) {
    return std::string_view(column.shape.key) == "breaker";
  });
  return static_cast<std::size_t>(found - sub_columns.begin());
}

bool any_breaker(const TopLook& look) {
  return std::any_of(look.subscriptions.begin(), look.subscriptions.end(),
                     [](const TopSubscription& one) { return one.breaker != "none" || one.breaker_forced; });
}

std::vector<std::size_t> columns_that_fit(const std::vector<ColumnShape>& shapes, std::size_t width, std::size_t sorted,
                                          std::size_t hidden) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    if (i == 0 || i == sorted || i != hidden) order.push_back(i);
  }
  const auto rank = [&](std::size_t place) { return place == sorted ? 0 : shapes[place].priority; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t left, std::size_t right) { return rank(left) < rank(right); });
  std::vector<std::size_t> result;
  std::size_t used = 0;
  for (const std::size_t place : order) {
    const std::size_t needed = shapes[place].width + (used == 0 ? 0 : 1);
    if (rank(place) != 0 && used + needed > width) break;
    used += needed;
    result.push_back(place);
  }
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace ackring::tools
