#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tools/common/histogram.hpp"
#include "tools/common/json_text.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

using namespace std::chrono_literals;

TEST_CASE("durations") {
  CHECK(parse_duration("250us") == 250us);
  CHECK(parse_duration("10ms") == 10ms);
  CHECK(parse_duration("5s") == 5s);
  CHECK(parse_duration("2m") == 2min);
  CHECK(parse_duration("1h") == 1h);
  CHECK(parse_duration("7ns") == 7ns);
  CHECK(parse_duration("3") == 3s);
  CHECK(parse_duration("0.5") == 500ms);
  CHECK(parse_duration(".25s") == 250ms);
  CHECK(parse_duration("0") == 0s);
  for (const char* wrong : {"", "s", "-1s", "1 s", "5x", "1e3", "inf", "nan", "1ss", "999999999999h", "0x10"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(static_cast<void>(parse_duration(wrong)), std::invalid_argument);
  }
}

TEST_CASE("sizes") {
  CHECK(parse_size("64") == 64);
  CHECK(parse_size("64B") == 64);
  CHECK(parse_size("4KiB") == 4096);
  CHECK(parse_size("1MiB") == 1u << 20);
  CHECK(parse_size("2GiB") == std::uint64_t{2} << 30);
  CHECK(parse_size("18446744073709551615") == ~std::uint64_t{0});
  for (const char* wrong : {"", "KiB", "-1", "1.5KiB", "4kb", "4 KiB", "18446744073709551616", "99999999999999GiB"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(static_cast<void>(parse_size(wrong)), std::invalid_argument);
  }
}

TEST_CASE("numbers for people") {
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1234567) == "1,234,567");
  CHECK(format_duration(780) == "780 ns");
  CHECK(format_duration(1500) == "1.50 us");
  CHECK(format_duration(2.5e9) == "2.50 s");
}

TEST_CASE("members of an object come back byte for byte") {
  std::vector<std::pair<std::string, std::string>> members;
  const std::string line = R"( { "a" : [1, {"x":"]}"}, 2.50 ] ,"\u0062":"q\"}" , "c":{},"d":-1e5, "e":null })";
  REQUIRE(is_json(line));
  for_each_member(line,
                  [&members](const std::string& name, std::string_view value) { members.emplace_back(name, value); });
  const std::vector<std::pair<std::string, std::string>> expected{
      {"a", R"([1, {"x":"]}"}, 2.50 ])"}, {"b", R"("q\"}")"}, {"c", "{}"}, {"d", "-1e5"}, {"e", "null"}};
  CHECK(members == expected);
  for_each_member("{}", [](const std::string&, std::string_view) { FAIL("an empty object has no members"); });
}

TEST_CASE("what is JSON and what is UTF-8") {
  CHECK(is_json("5"));
  CHECK(is_json(" [1] "));
  CHECK_FALSE(is_json(""));
  CHECK_FALSE(is_json("{} {}"));
  CHECK_FALSE(is_json(std::string_view("5\0x", 3)));
  CHECK_FALSE(is_json("\xef\xbb\xbf{}"));
  CHECK(is_utf8("\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"));
  for (const char* wrong :
       {"\xff", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3", "\xe2\x82"}) {
    CHECK_FALSE(is_utf8(wrong));
  }
}

TEST_CASE("a payload as a member of a line") {
  CHECK(data_member("{\"a\": 1.0}") == "\"data\":{\"a\": 1.0}");
  CHECK(data_member("") == "\"data\":\"\"");
  CHECK(data_member("plain") == "\"data\":\"plain\"");
  CHECK(data_member("[1,\n2]") == "\"data\":\"[1,\\n2]\"");  // a line break would end the line too early
  CHECK(data_member("\xff\x01") == "\"data_base64\":\"/wE=\"");
}

TEST_CASE("base64 there and back") {
  std::mt19937 random(1);
  for (std::size_t length = 0; length < 64; ++length) {
    std::string bytes;
    for (std::size_t i = 0; i < length; ++i) bytes += static_cast<char>(random());
    CHECK(base64_decode(base64_encode(bytes)) == bytes);
  }
  CHECK(base64_encode("Man") == "TWFu");
  CHECK_FALSE(base64_decode("abc"));
  CHECK_FALSE(base64_decode("ab=c"));
  CHECK_FALSE(base64_decode("a b="));
}

TEST_CASE("histogram: percentiles are those of the sorted values, within a thousandth") {
  const std::uint32_t seed = 20'240'611;
  CAPTURE(seed);  // the same seed gives the same values
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> values;
  Histogram histogram;
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t value = random() >> (24 + random() % 40);
    values.push_back(value);
    histogram.record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    CAPTURE(percent);
    const auto rank = static_cast<std::size_t>(std::max(1.0, std::ceil(percent / 100 * 20'000)));
    const auto exact = static_cast<double>(values[rank - 1]);
    const auto found = static_cast<double>(histogram.percentile(percent));
    CHECK(found >= exact);
    CHECK(found <= exact * 1.001 + 1);
  }
  CHECK(histogram.max() == values.back());
  const Histogram copy = Histogram::from_json(histogram.to_json());
  CHECK(copy.count() == histogram.count());
  CHECK(copy.percentile(99) == histogram.percentile(99));
  CHECK(copy.mean() == histogram.mean());
  Histogram twice = histogram;
  twice.merge(copy);
  CHECK(twice.count() == 2 * histogram.count());
  CHECK(twice.percentile(50) == histogram.percentile(50));
}

TEST_CASE("histogram: empty, tiny and huge values") {
  Histogram histogram;
  CHECK(histogram.percentile(50) == 0);
  CHECK(histogram.percentile_table(1).find("Total count    =            0") != std::string::npos);
  histogram.record(0);
  CHECK(histogram.percentile(50) == 0);
  histogram.record(~std::uint64_t{0});
  CHECK(histogram.max() == Histogram::largest_value());
  CHECK(histogram.percentile(100) == Histogram::largest_value());
  const std::string table = histogram.percentile_table(1000);
  CHECK(table.find("1.000000000000          2") != std::string::npos);
}

TEST_CASE("histogram: the table is that of HdrHistogram, line for line") {
  Histogram histogram;
  for (const std::uint64_t value : {1, 1, 2, 5}) histogram.record(value);
  // Steps of a tenth up to one half, then of a twentieth up to three quarters, and so on; the first line at which all are
  // counted comes once, and the last one says 100%.
  CHECK(histogram.percentile_table(1) ==
        "       Value     Percentile TotalCount 1/(1-Percentile)\n\n"
        "       1.000 0.000000000000          2           1.00\n"
        "       1.000 0.100000000000          2           1.11\n"
        "       1.000 0.200000000000          2           1.25\n"
        "       1.000 0.300000000000          2           1.43\n"
        "       1.000 0.400000000000          2           1.67\n"
        "       1.000 0.500000000000          2           2.00\n"
        "       2.000 0.550000000000          3           2.22\n"
        "       2.000 0.600000000000          3           2.50\n"
        "       2.000 0.650000000000          3           2.86\n"
        "       2.000 0.700000000000          3           3.33\n"
        "       2.000 0.750000000000          3           4.00\n"
        "       5.000 0.775000000000          4           4.44\n"
        "       5.000 1.000000000000          4\n"
        "#[Mean    =        2.250, StdDeviation   =        1.639]\n"
        "#[Max     =        5.000, Total count    =            4]\n"
        "#[Buckets =           32, SubBuckets     =         2048]\n");
}

TEST_CASE("table: text to the left, numbers to the right") {
  Table table({"NAME", ">COUNT"});
  table.add({"a", "1"});
  table.add({"long name", "1,000"});
  CHECK(table.text() == "NAME       COUNT\na              1\nlong name  1,000\n");
}

}  // namespace
}  // namespace ackring::tools
