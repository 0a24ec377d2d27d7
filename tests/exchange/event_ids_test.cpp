// Duplicates are ignored and counted. An event whose id is known is one, whoever publishes it, for as long as `@ids` keeps the
// id; and one whose number its publisher has used.
#include <array>

#include "ackring/error.hpp"
#include "lib/ring/header_field.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t ms = 1'000'000;

std::string header(std::string_view name, std::string_view value) {
  std::string text(ring::header_prefix_bytes, '\0');
  ring::write_header_prefix(reinterpret_cast<std::byte*>(text.data()), name, value);
  return text.append(name).append(value);
}
std::string with_id(std::string_view id) { return header("other", "x") + header(event_id_header, id); }

struct Ids : World {
  explicit Ids(std::uint64_t ttl_ms = 1'000) {
    SubscriptionOptions options;
    options.name = event_ids_name;
    options.patterns = {"o.#"};
    options.ttl = std::chrono::milliseconds(ttl_ms);
    options.max_events = limits::least_event_ids;
    x->create_subscription(options, false);
  }
};

std::uint64_t count(CoreMember& member) {
  std::uint64_t events = 0;
  for (Seen seen; member.take(seen); ++events) member.ack_through(seen.entry);
  return events;
}
std::uint64_t duplicates(World& world) {
  std::uint64_t sum = 0;
  const auto stat = world.stat();
  for (const auto& row : stat["publishers"]) sum += row["duplicates"].get<std::uint64_t>();
  return sum;
}

}  // namespace

TEST_CASE("an event with an id that is known is a duplicate, whoever publishes it and in whichever batch") {
  Ids world;
  auto first = world.publisher("first");
  auto second = world.publisher("second");
  auto member = world.member("s", {"#"});
  first.headers = second.headers = with_id("7");
  first.add("o.a", "1");
  first.add("o.a", "the same batch");
  first.commit();
  world.run();
  CHECK(count(member) == 1);
  second.publish("o.b", "another publisher");
  world.run();
  CHECK(count(member) == 0);
  CHECK(duplicates(world) == 2);

  first.publish("q", "a topic without ids");
  first.headers = with_id("8");
  first.publish("o.a", "another id");
  first.headers = header("event-id ", "7") + header("event", "7");
  first.publish("o.a", "no id");
  first.publish("o.a", "no id");
  world.run();
  CHECK(count(member) == 4);
  world.restart();
  first.headers = with_id("8");
  first.publish("o.c", "known to the next exchange, too");
  world.run();
  CHECK(count(member) == 0);
  CHECK(duplicates(world) == 3);
  CHECK(row_of(world.stat(), "@ids")["queued"] == 2);
}

TEST_CASE("an id is known for the time to live of @ids, whatever time its publisher names, and is a new one after it") {
  Ids world(100);
  auto publisher = world.publisher();
  auto member = world.member("s", {"#"});
  publisher.published_ns = ~std::uint64_t{0} / 2;
  publisher.headers = with_id("x");
  world.tick();
  publisher.publish("o", "1");
  world.run();
  world.tick(99 * ms);
  publisher.publish("o", "2");
  world.run();
  CHECK(count(member) == 1);
  world.tick(1 * ms);
  publisher.publish("o", "3");
  world.run();
  CHECK(count(member) == 1);
  CHECK(duplicates(world) == 1);
  CHECK(row_of(world.stat(), "@ids")["expired"] == 1);
}

TEST_CASE("as many ids are known as @ids may hold; the oldest are forgotten first") {
  Ids world;
  auto publisher = world.publisher("", 1u << 20);
  auto member = world.member("s", {"#"});
  std::uint64_t got = 0;
  for (std::uint64_t i = 0; i < 3 * limits::least_event_ids; ++i) {
    publisher.headers = with_id(std::to_string(i));
    REQUIRE(publisher.publish("o", ""));
    if (i % 100 == 0) world.tick(100'000);
    got += count(member);
  }
  world.run();
  CHECK(got + count(member) == 3 * limits::least_event_ids);
  CHECK(row_of(world.stat(), "@ids")["queued"] == limits::least_event_ids);
  publisher.headers = with_id(std::to_string(2 * limits::least_event_ids));
  publisher.publish("o", "known");
  publisher.headers = with_id(std::to_string(2 * limits::least_event_ids - 1));
  publisher.publish("o", "forgotten");
  world.run();
  CHECK(count(member) == 1);
  CHECK(duplicates(world) == 1);
}

TEST_CASE("headers may be any bytes, and an id as long as a record may be") {
  Ids world;
  auto publisher = world.publisher("", 1u << 20);
  auto member = world.member("s", {"#"});
  for (const std::string& headers :
       {std::string("\xff"), std::string(6, '\xff'), header("a", "b") + "\x01", header("event-id", "")}) {
    publisher.headers = headers;
    publisher.publish("o", "");
    publisher.publish("o", "");
  }
  world.run();
  CHECK(count(member) == 8);
  for (const std::size_t size : {1u, 400u, 500u, 5'000u, 200'000u}) {
    publisher.headers = with_id(std::string(size, 'i'));
    REQUIRE(publisher.publish("o", ""));
    REQUIRE(publisher.publish("o", ""));
    world.run();
    CHECK(count(member) == 1);
  }
  CHECK(duplicates(world) == 5);
}

TEST_CASE("@ids takes what makes sense for it, and goes without a question") {
  Ids world;
  SubscriptionOptions options;
  options.name = event_ids_name;
  options.max_events = limits::least_event_ids - 1;
  CHECK_THROWS_AS(world.x->update_subscription(options, {"max_events"}), Error);
  CHECK_THROWS_AS(world.member("@ids", {}), Error);
  options = {};
  options.name = "@other";
  options.patterns = {"#"};
  CHECK_THROWS_AS(world.x->create_subscription(options, false), Error);
  options.name = last_values_name;
  options.group = true;
  CHECK_THROWS_AS(world.x->create_subscription(options, false), Error);
  auto publisher = world.publisher();
  auto member = world.member("s", {"#"});
  publisher.headers = with_id("1");
  publisher.publish("o", "");
  world.run();
  world.x->remove_subscription(*world.x->find_queue("@ids"));
  publisher.publish("o", "");
  world.run();
  CHECK(count(member) == 2);
  CHECK(duplicates(world) == 0);
}

TEST_CASE("a publisher with its own numbers: what comes again is a duplicate, gaps are none") {
  World world;
  CorePublisher publisher = world.publisher("app");
  CoreMember member = world.member("s", {"#"}, {});
  publisher.number_from(99);
  publisher.publish("a", "100");
  publisher.publish("a", "101");
  publisher.number_from(99);
  publisher.publish("a", "100");
  publisher.publish("a", "101");
  publisher.publish("a", "102");
  publisher.number_from(500);
  publisher.publish("a", "501");
  world.run();
  std::vector<std::string> got;
  for (Seen seen; member.take(seen);) got.push_back(seen.payload);
  CHECK(got == std::vector<std::string>{"100", "101", "102", "501"});
  const auto row = world.stat()["publishers"][0];
  CHECK(row["committed"] == 6);
  CHECK(row["duplicates"] == 2);
  CHECK(row["in_ring"] == 0);
}
