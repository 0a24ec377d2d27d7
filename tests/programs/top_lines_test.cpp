// The screen of shmtool top, without a terminal.
#include <clocale>
#include <string>

#include <doctest/doctest.h>

#include "tests/programs/top_support.hpp"
#include "tools/shmtool/subscription_text.hpp"

namespace ackring::tools {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TopLook busy_look() {
  nlohmann::json row = subscription_row("billing", 1500, 500);
  row["nacked"] = 3U;
  row["dlq_size"] = 12345U;
  row["dropped"] = {{"too-large", 21U}};
  row["dead_lettered_by"] = {{"rejected", 22U}};
  row["oldest_monotonic_ns"] = 98 * second_ns;
  row["breaker"] = {
      {"state", "open"}, {"order", "auto"}, {"since_monotonic_ns", 99 * second_ns}, {"failures", 7U}, {"opened", 1U}};
  row["consumers"] = {{{"client", 5U},
                       {"number", 1U},
                       {"entries", 4U},
                       {"breaker", "open"},
                       {"last_errors", {"no such account\n\x1b[31m"}}}};
  row["publish_to_ack"] = {
      {"count", 4U},
      {"sum_ns", 8000U},
      {"p50_ns", 1000U},
      {"p90_ns", 2000U},
      {"p99_ns", 3000000U},
      {"p999_ns", 3000000U},
      {"max_ns", 3500000U},
      {"buckets", {{256U, 0U}, {512U, 0U}, {1024U, 3U}, {2048U, 3U}, {4194304U, 4U}, {8388608U, 4U}}}};
  return look_of(
      stat_of({subscription_row("billing", 500, 500), subscription_row("audit", 10)}, {publisher_row("p", 1)}),
      stat_of({row, subscription_row("audit", 10)}, {publisher_row("p", 1001)}));
}

TEST_CASE("a screen of 80x24") {
  const TopLook look = busy_look();
  TopView view;
  view.of_subscriptions.sort = 6;  // lag
  const std::string text = screen(look, view);
  CHECK(text.starts_with("bus test  exchange running  pid 77  up 1m05s  1 shard  12:00:01Z "));
  CHECK(has(text, "\npublish 1000/s  deliver 0/s  ack 0/s  nack 3.0/s  queued 1010  DLQ 12.3k"));
  CHECK(has(text, "\nSUBSCRIPTION"));
  CHECK(has(text, "\nbilling "));
  CHECK(has(text, " ###### "));
  CHECK(has(text, " 3.0s "));
  CHECK(has(text, " open "));
  CHECK(text.find("\nbilling") < text.find("\naudit"));
  CHECK(has(text, "\n2 of 2, by lag, every 1.0s"));
  CHECK(has(text, "? help  q quit\n"));
}

TEST_CASE("any size: so many lines, so wide, and never a word too much") {
  REQUIRE(std::setlocale(LC_CTYPE, "C.UTF-8") != nullptr);
  TopLook look = busy_look();
  look.subscriptions[1].name = std::string(150, 'x');
  look.publishers[0].name = "日本語の名前がとても長い";
  for (const Charset charset : {Charset::ascii, Charset::utf8}) {
    for (int page = 0; page < 5; ++page) {
      TopView view;
      view.detail_of = page == 2 ? "billing" : page == 3 ? "gone" : "";
      view.page = page == 2 || page == 3 ? TopView::Page::detail
                  : page == 4            ? TopView::Page::help
                                         : TopView::Page::table;
      view.publishers = page == 1;
      view.scroll = 1000;
      for (std::size_t columns = 1; columns < 250; columns += columns < 100 ? 1 : 13) {
        for (const std::size_t rows : {1U, 2U, 4U, 5U, 6U, 8U, 12U, 13U, 24U, 90U}) {
          const auto lines = top_lines(look, view, {rows, columns}, charset);
          REQUIRE(lines.size() == rows);
          for (const TextLine& line : lines) REQUIRE(columns_of(plain(line), charset) == columns);
        }
      }
    }
  }
  std::setlocale(LC_CTYPE, "C");
  TopView view;
  CHECK(has(screen(look, view, {5, 40}), "SUBSCRIPTION"));
  CHECK(screen(look, view, {2, 39}).starts_with("39x2 is too small: 40x5 at least"));
}

TEST_CASE("columns leave in their order, that of the order last") {
  const TopLook look = busy_look();
  TopView view;
  CHECK(!has(screen(look, view, {24, 80}), "P99 ACK"));
  CHECK(has(screen(look, view, {24, 200}), "PATTERNS"));
  const std::string narrow = screen(look, view, {24, 40});
  CHECK(has(narrow, "QUEUED"));
  CHECK(has(narrow, "BREAKER"));
  CHECK(!has(narrow, "MATCH/s"));
  while (std::string(subscription_columns()[view.of_subscriptions.sort].shape.key) != "p99")
    press(view, letter(">"), look);
  const std::string sorted = screen(look, view, {24, 40});
  CHECK(has(sorted, "P99 ACK"));
  CHECK(has(sorted, "3.0ms"));
  CHECK(!has(screen(look_of(stat_of({subscription_row("s")})), view, {24, 200}), "BREAKER"));
}

TEST_CASE("a thousand rows: the selected one is in sight, and told apart") {
  std::vector<nlohmann::json> rows;
  for (int i = 0; i < 1000; ++i) rows.push_back(subscription_row("s" + std::to_string(1000 + i)));
  const TopLook look = look_of(stat_of(rows));
  TopView view;
  CHECK(has(screen(look, view), "s1000"));
  CHECK(!has(screen(look, view), "s1500"));
  for (int i = 0; i < 500; ++i) press(view, {TopKey::down, ""}, look);
  const auto lines = top_lines(look, view, {24, 80}, Charset::ascii);
  int selected = 0;
  for (const TextLine& line : lines) {
    if (line.front().style != Style::selected) continue;
    ++selected;
    CHECK(plain(line).starts_with("s1500 "));
  }
  CHECK(selected == 1);
  press(view, {TopKey::end, ""}, look);
  CHECK(has(screen(look, view), "s1999"));
  const std::string larger = screen(look, view, {90, 80});  // shows no empty rows
  CHECK(has(larger, "s1915"));
  CHECK(!has(larger, "s1914"));
  press(view, {TopKey::home, ""}, look);
  CHECK(has(screen(look, view), "s1000"));
}

TEST_CASE("all about a subscription") {
  const TopLook look = busy_look();
  TopView view;
  view.detail_of = "billing";
  view.page = TopView::Page::detail;
  CHECK(has(screen(look, view, {60, 80}), "options    not known yet"));
  view.options_of = "billing";
  view.options = {{"ack_timeout_ns", 30 * second_ns},
                  {"group", true},
                  {"ordered", false},
                  {"ring_bytes", 4096U},
                  {"max_deliveries", 10U}};
  const std::string text = screen(look, view, {60, 80});
  CHECK(has(text, "subscription billing  at-least-once, 1 member, shard 0"));
  CHECK(has(text, "patterns   a.#  b "));
  CHECK(has(text, "options    ack_timeout 30.0s  group  max_deliveries 10  ring_bytes 4.0 KiB "));
  CHECK(has(text, "breaker    open for 2.0s, 7 failures, opened 1 time "));
  CHECK(has(text, "client 5, member 1: 4 entries, breaker open"));
  CHECK(has(text, "  no such account??[31m"));
  CHECK(has(text, "lost too-large          21"));
  CHECK(has(text, "dead rejected           22"));
  CHECK(has(text, "publish to take"));
  CHECK(has(text, "nothing was measured"));
  CHECK(has(text, "about 4 events: mean 2.0us, p50 1.0us, p90 2.0us, p99 3.0ms"));
  CHECK(has(text, "max 3.5ms"));
  view.options["ack_timeout_ns"] = std::int64_t{250'000'000};
  const std::string narrow = screen(look, view, {60, 50});
  CHECK(has(narrow, "options    ack_timeout 250ms  group "));
  CHECK(has(narrow, "max 3.5ms"));
  CHECK(has(text, "<   1.0us       3  75.00% ####"));
  CHECK(has(text, "<   4.2ms       1  25.00% ####"));
  CHECK(!has(text, "<   512ns"));
  CHECK(!has(text, "<   8.4ms"));
  press(view, {TopKey::end, ""}, look);
  CHECK(has(screen(look, view), "<   4.2ms"));  // the last line
  press(view, {TopKey::home, ""}, look);
  CHECK(has(screen(look, view), "subscription billing"));
}

TEST_CASE("a bus without an exchange says so") {
  TopView view;
  const TopLook stopped = look_of(stat_of({subscription_row("s", 3)}, {}, "stopped"));
  const std::string text = screen(stopped, view);
  CHECK(has(text, "exchange stopped"));
  CHECK(has(text, "No exchange serves this bus"));
  CHECK(!has(text, "pid"));
  CHECK(has(screen(look_of(stat_of({}, {}, "stalled")), view), "stands still"));
  CHECK(has(screen(look_of(stat_of({}, {}, "running")), view), "(none)"));
  CHECK(has(screen(stale(stopped, "bus 'test': there is no such bus"), view),
            "seen last: bus 'test': there is no such bus"));
  nlohmann::json damaged = stat_of({});
  damaged["damaged"] = {"sub.1.json: it is no definition"};
  CHECK(has(screen(look_of(damaged), view), "1 of the files can't be read: sub.1.json"));
}

TEST_CASE("breakers, members and latencies in words") {
  CHECK(breaker_text({{"state", "none"}, {"order", "auto"}}, 5) == "none");
  CHECK(breaker_text(
            {{"state", "closed"}, {"order", "open"}, {"since_monotonic_ns", 0U}, {"failures", 1U}, {"opened", 2U}},
            5) == "closed, 1 failure, opened 2 times, ordered open");
  CHECK(consumer_text({{"client", 1U}, {"number", 2U}, {"entries", 1U}, {"breaker", "none"}}) ==
        "client 1, member 2: 1 entry");
  nlohmann::json row = subscription_row("s");
  CHECK(lines_of(row, "breaker", 0).empty());
  CHECK(lines_of(row, "consumers", 0).empty());
  CHECK(!has_breaker(row));
  row["breaker"]["order"] = "closed";
  CHECK(has_breaker(row));
  row["dropped"] = {{"too-large", 2U}};
  CHECK(lines_of(row, "dropped", 0).front().first == "dropped, too-large");
  row["dead_lettered_by"] = {{"rejected", 3U}};
  CHECK(lines_of(row, "dead_lettered_by", 0).front().first == "dead_lettered, rejected");
  CHECK(lines_of(row, "patterns", 0).front().second == "a.# b");
}

}  // namespace
}  // namespace ackring::tools
