// Bus::peek_ndjson and Bus::explain_json, end to end.
#include <doctest/doctest.h>

#include <unistd.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "ackring/bus.hpp"

using namespace ackring;
using namespace std::chrono_literals;

namespace {

Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::vector<nlohmann::json> parse_lines(const std::string& lines) {
  std::vector<nlohmann::json> all;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = lines.find('\n', at);
    all.push_back(nlohmann::json::parse(lines.substr(at, end - at)));
    at = end + 1;
  }
  return all;
}

nlohmann::json explain(Bus& bus, const EventSelection& which) {
  return nlohmann::json::parse(bus.explain_json("s", which));
}

ErrorCode code_of(Bus& bus, const std::string& name, const EventSelection& which) {
  try {
    (void)bus.explain_json(name, which);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::system;
}

}  // namespace

TEST_CASE("peek asks as often as it takes: many events, and large ones") {
  Bus bus = Bus::in_memory();
  bus.create_subscription({.name = "s", .patterns = {"small.#"}});
  bus.create_subscription({.name = "large", .patterns = {"large"}});
  Publisher publisher = bus.publisher({.name = "shop"});
  constexpr std::uint64_t events = 10'000;  // a request answers 4,096 at most
  for (std::uint64_t i = 1; i <= events; ++i) {
    REQUIRE(publisher.publish_wait("small.x", bytes_of("payload"), 10s) == Outcome::ok);
  }
  const std::string megabyte(1'000'000, 'x');
  for (int i = 0; i < 10; ++i) REQUIRE(publisher.publish_wait("large", bytes_of(megabyte), 10s) == Outcome::ok);
  REQUIRE(publisher.flush(10s) == Outcome::ok);

  const auto before = nlohmann::json::parse(bus.stat_json()).at("subscriptions");
  CHECK(parse_lines(bus.peek_ndjson("s")).size() == 10);
  CHECK(bus.peek_ndjson("s", 0).empty());
  const auto all = parse_lines(bus.peek_ndjson("s", 1'000'000));
  REQUIRE(all.size() == events);
  for (std::uint64_t i = 0; i < events; ++i) REQUIRE(all[i].at("delivery") == i + 1);
  CHECK(all[4].at("publisher") == "shop");
  CHECK(all[4].at("sequence") == 5);
  CHECK(all[4].at("attempt") == 1);
  CHECK(all[4].at("data") == "payload");
  CHECK(parse_lines(bus.peek_ndjson("s", 5000)).size() == 5000);
  const auto large = parse_lines(bus.peek_ndjson("large", 9));
  REQUIRE(large.size() == 9);
  for (const auto& line : large) CHECK(line.at("data") == megabyte);
  CHECK(nlohmann::json::parse(bus.stat_json()).at("subscriptions") == before);
  CHECK_THROWS_AS((void)bus.peek_ndjson("nobody"), Error);
}

TEST_CASE("explain: an event by its delivery, and by its publisher and sequence") {
  Bus bus = Bus::in_memory();
  bus.create_subscription(
      {.name = "s", .patterns = {"a.#"}, .max_deliveries = 2, .backoff_initial = 1h, .backoff_max = 1h});
  Publisher publisher = bus.publisher({.name = "shop"});
  const Headers headers{{"type", "json"}};
  REQUIRE(publisher.publish("other", "not for s") == Outcome::ok);
  for (int i = 0; i < 4; ++i) {
    REQUIRE(publisher.publish("a.b", std::string(100'000, 'x'), {.key = "k\xff", .headers = &headers}) == Outcome::ok);
  }
  REQUIRE(publisher.flush(10s) == Outcome::ok);
  auto where = explain(bus, {.publisher = "shop", .sequence = 4});
  CHECK(where.at("subscription") == "s");
  CHECK(where.at("delivery") == 3);
  CHECK(where.at("state") == "queued");
  CHECK(where.at("event").at("topic") == "a.b");
  CHECK(where.at("event").at("key") == "k\u00ff");
  CHECK(where.at("event").at("headers") == nlohmann::json{{"type", "json"}});
  CHECK(where.at("event").at("sequence") == 4);
  CHECK_FALSE(where.contains("attempts"));
  CHECK_FALSE(where.contains("due_ns"));

  Subscriber subscriber = bus.subscribe({.name = "s"});
  auto held = subscriber.take(10s);
  auto nacked = subscriber.take(10s);
  auto rejected = subscriber.take(10s);
  REQUIRE((held && nacked && rejected));
  REQUIRE(nacked->nack() == Outcome::ok);
  REQUIRE(rejected->reject("wrong shape") == Outcome::ok);
  REQUIRE(subscriber.take(10s)->ack() == Outcome::ok);
  REQUIRE(explain(bus, {.delivery = 4}).at("state") == "settled");
  where = explain(bus, {.delivery = 1});
  CHECK(where.at("state") == "in_flight");
  CHECK(where.at("member").at("pid") == ::getpid());
  CHECK(where.at("until_ns").get<std::uint64_t>() - where.at("since_ns").get<std::uint64_t>() == 30'000'000'000);
  where = explain(bus, {.delivery = 2});
  CHECK(where.at("state") == "retry_waiting");
  CHECK(where.at("reason") == "nacked");
  CHECK(where.at("attempt") == 2);
  REQUIRE(where.at("attempts").size() == 1);
  CHECK(where.at("attempts")[0].at("cause") == "nacked");
  const std::uint64_t wait_ns =
      where.at("due_ns").get<std::uint64_t>() - where.at("attempts")[0].at("time_ns").get<std::uint64_t>();
  CHECK(wait_ns > 3'000'000'000'000);
  CHECK(wait_ns < 4'200'000'000'000);
  where = explain(bus, {.delivery = 3});
  CHECK(where.at("state") == "dead");
  CHECK(where.at("reason") == "rejected: wrong shape");
  CHECK(where.at("since_ns") == where.at("attempts")[0].at("time_ns"));
  CHECK(explain(bus, {.publisher = "shop", .sequence = 1}).at("state") == "unknown");
  CHECK(explain(bus, {.publisher = "shop", .sequence = 1}).at("event").at("sequence") == 1);

  CHECK(code_of(bus, "s", {.delivery = 5}) == ErrorCode::not_found);
  CHECK(code_of(bus, "s", {.publisher = "shop", .sequence = 6}) == ErrorCode::not_found);
  CHECK(code_of(bus, "s", {.publisher = "nobody", .sequence = 1}) == ErrorCode::not_found);
  CHECK(code_of(bus, "nobody", {.delivery = 1}) == ErrorCode::not_found);
  CHECK(code_of(bus, "s", {}) == ErrorCode::invalid_argument);
  CHECK(code_of(bus, "s", {.publisher = "shop"}) == ErrorCode::invalid_argument);
}

TEST_CASE("explain finds what is further away than one look goes") {
  Bus bus = Bus::in_memory();
  bus.create_subscription({.name = "s", .patterns = {"a"}});
  Publisher publisher = bus.publisher({.name = "shop"});
  constexpr std::uint64_t events = 150'000;
  for (std::uint64_t i = 1; i <= events; ++i) REQUIRE(publisher.publish_wait("a", {}, 10s) == Outcome::ok);
  REQUIRE(publisher.flush(10s) == Outcome::ok);
  CHECK(explain(bus, {.delivery = events}).at("position") == events - 1);
  CHECK(explain(bus, {.publisher = "shop", .sequence = 70'000}).at("position") == 69'999);
}
