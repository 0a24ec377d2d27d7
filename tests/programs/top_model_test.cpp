// What shmtool top makes of stat documents and of keys; and the small texts that it writes.
#include <clocale>
#include <string>

#include <doctest/doctest.h>

#include "tests/programs/top_support.hpp"

namespace ackring::tools {
namespace {

TEST_CASE("rates are of the time between two looks, and nothing where they can't be compared") {
  nlohmann::json before = stat_of({subscription_row("s", 100, 40)}, {publisher_row("", 5), publisher_row("p", 7)});
  nlohmann::json after = stat_of({subscription_row("s", 150, 70), subscription_row("new", 9)},
                                 {publisher_row("", 4), publisher_row("p", 27)});
  const TopLook look = look_of(before, after);
  CHECK(look.subscriptions[0].matched == 50.0);
  CHECK(look.subscriptions[0].acked == 30.0);
  CHECK(!look.subscriptions[1].matched);
  CHECK(look.acked == 30.0);
  CHECK(look.publishers[0].name == "(anonymous)");
  CHECK(!look.publishers[0].committed_per_s);  // another one, that has published less
  CHECK(look.publishers[1].committed_per_s == 20.0);
  CHECK(look.published == 20.0);

  const TopLook old = stale(look, "it has gone");
  CHECK(!old.published);
  CHECK(!old.subscriptions[0].acked);
  CHECK(old.subscriptions[0].queued == 80);
  CHECK(old.error == "it has gone");
}

TEST_CASE("publishers without a name are one row") {
  const TopLook look = look_of(stat_of({}, {publisher_row("", 1), publisher_row("x", 1), publisher_row("", 2)}));
  REQUIRE(look.publishers.size() == 2);
  CHECK(look.publishers[0].name == "(2 anonymous)");
  CHECK(look.publishers[0].committed == 3);
}

TEST_CASE("a row of an older exchange has no breaker, no age and no latency") {
  nlohmann::json row = subscription_row("s", 3);
  for (const char* key : {"breaker", "consumers", "oldest_monotonic_ns"}) row.erase(key);
  TopLook look = look_of(stat_of({row}));
  CHECK(look.subscriptions[0].breaker == "none");
  CHECK(look.subscriptions[0].oldest_ns == 0);
  row["oldest_monotonic_ns"] = 99 * second_ns;
  row["publish_to_ack"] = {{"p99_ns", 1234U}};
  row["breaker"] = {{"state", "closed"}, {"order", "closed"}};
  look = look_of(stat_of({row}));
  CHECK(look.subscriptions[0].oldest_ns == 2 * second_ns);
  CHECK(look.subscriptions[0].p99_ns == 1234);
  CHECK(look.subscriptions[0].breaker_forced);
  row["oldest_monotonic_ns"] = 500 * second_ns;  // the machine was started anew
  CHECK(look_of(stat_of({row})).subscriptions[0].oldest_ns == 1);
  CHECK_THROWS_AS((void)look_of(nlohmann::json{{"bus", "x"}}), const nlohmann::json::exception&);
}

TEST_CASE("keys move, sort, reverse and filter; the selected row stays selected") {
  nlohmann::json third = subscription_row("ccc", 30);
  third["patterns"] = {"special.*"};
  const TopLook look = look_of(stat_of({subscription_row("aaa", 10), subscription_row("bbb", 20), third}));
  TopView view;
  const auto order = [&] {
    std::string names;
    for (const TopSubscription* one : shown_subscriptions(view, look)) names += one->name.substr(0, 1);
    return names;
  };
  CHECK(order() == "abc");
  press_all(view, look, {letter("j"), letter("r")});
  CHECK(order() == "cba");
  CHECK(view.of_subscriptions.selected == "bbb");
  press_all(view, look, {{TopKey::end, ""}, {TopKey::down, ""}, {TopKey::up, ""}, {TopKey::page_up, ""}, letter("k")});
  CHECK(view.of_subscriptions.selected == "ccc");
  const auto sorted_by = [&] { return std::string(subscription_columns()[view.of_subscriptions.sort].shape.key); };
  press_all(view, look, {letter("<")});
  CHECK(sorted_by() == "patterns");
  press_all(view, look, {letter(">"), letter("s")});
  CHECK(sorted_by() == "matched");
  while (sorted_by() != "lag") {
    press(view, letter(">"), look);
    CHECK(sorted_by() != "breaker");  // nobody has one
  }
  CHECK(order() == "cba");  // the largest first

  press_all(view, look, {letter("/"), letter("S"), letter("p"), letter("q"), {TopKey::backspace, ""}});
  CHECK(view.filter == "Sp");  // q quits nothing, p pauses nothing
  CHECK(!view.quit);
  CHECK(order() == "c");  // by its pattern
  press(view, {TopKey::enter, ""}, look);
  CHECK(!view.filtering);
  press(view, {TopKey::enter, ""}, look);
  CHECK(view.detail_of == "ccc");
  press_all(view, look, {{TopKey::escape, ""}, {TopKey::escape, ""}});
  CHECK(view.detail_of.empty());
  CHECK(order() == "cba");
  press_all(view, look, {letter("/"), letter("ä"), letter("ö"), {TopKey::backspace, ""}});
  CHECK(view.filter == "ä");
  CHECK(order().empty());
  press_all(view, look, {{TopKey::enter, ""}, {TopKey::enter, ""}, letter("j")});  // there is no row to enter
  CHECK(view.page == TopView::Page::table);
}

TEST_CASE("keys pause, change the interval, help and quit") {
  const TopLook look = look_of(stat_of({subscription_row("s")}));
  TopView view;
  press_all(view, look, {letter("p"), letter("+"), letter("+")});
  CHECK(view.paused);
  CHECK(view.interval == std::chrono::seconds(5));
  for (int i = 0; i < 20; ++i) press(view, letter("-"), look);
  CHECK(view.interval == shortest_interval);
  view.interval = std::chrono::hours(1);
  press(view, letter("+"), look);
  CHECK(view.interval == std::chrono::hours(1));
  press(view, letter("-"), look);
  CHECK(view.interval == std::chrono::seconds(60));
  press_all(view, look, {{TopKey::enter, ""}, letter("?")});
  CHECK(view.page == TopView::Page::help);
  press(view, letter("h"), look);
  CHECK(view.page == TopView::Page::detail);
  press_all(view, look, {letter(" "), letter("q")});
  CHECK(!view.paused);
  CHECK(view.quit);
}

TEST_CASE("numbers of a few characters") {
  CHECK(compact_count(9999) == "9999");
  CHECK(compact_count(10'000) == "10.0k");
  CHECK(compact_count(999'499) == "999k");
  CHECK(compact_count(999'500) == "1.00M");
  CHECK(compact_count(~std::uint64_t{0}) == "18.4E");
  CHECK(compact_rate(0) == "0");
  CHECK(compact_rate(7.25) == "7.2");
  CHECK(compact_rate(99.96) == "100");
  CHECK(compact_rate(1e30).size() <= 5);
  CHECK(compact_time(780) == "780ns");
  CHECK(compact_time(999'499) == "999us");
  CHECK(compact_time(999'500) == "1.0ms");
  CHECK(compact_time(59'960'000'000) == "1m00s");
  CHECK(compact_time(3600 * second_ns) == "1h00m");
  CHECK(compact_time(49 * 3600 * second_ns) == "2d01h");
  std::uint64_t value = 1;
  for (int i = 0; i < 64; ++i, value *= 2) {
    for (const std::uint64_t near : {value - 1, value, value + value / 2}) {
      CHECK(compact_count(near).size() <= 5);
      CHECK(compact_time(near).size() <= 7);
    }
  }
}

TEST_CASE("text fits to the column, whatever is in it") {
  REQUIRE(std::setlocale(LC_CTYPE, "C.UTF-8") != nullptr);
  CHECK(fit("abc", 5, Charset::ascii) == "abc  ");
  CHECK(fit("abc", 5, Charset::ascii, true) == "  abc");
  CHECK(fit("abcdef", 4, Charset::ascii) == "abc~");
  CHECK(fit("abcdef", 4, Charset::utf8) == "abc…");
  CHECK(fit("für", 4, Charset::utf8) == "für ");
  CHECK(fit("für", 4, Charset::ascii) == "f?r ");
  CHECK(fit("日本語", 5, Charset::utf8) == "日本…");
  CHECK(fit("日本語", 4, Charset::utf8) == "日… ");  // two columns each
  CHECK(fit("a\x1b[2J\xff\n", 10, Charset::utf8) == "a?[2J??   ");
  CHECK(fit("abc", 0, Charset::utf8).empty());
  CHECK(columns_of("日本", Charset::utf8) == 4);
  CHECK(bar(0, 8, Charset::utf8).empty());
  CHECK(bar(1, 3, Charset::utf8) == "███");
  CHECK(bar(0.5, 3, Charset::utf8) == "█▌");
  CHECK(bar(1e-9, 3, Charset::utf8) == "▏");
  CHECK(bar(0.5, 4, Charset::ascii) == "##");
  CHECK(bar(7, 4, Charset::ascii) == "####");
  std::setlocale(LC_CTYPE, "C");
}

}  // namespace
}  // namespace ackring::tools
