// End to end: endpoints through an exchange on a thread of this process.
#include "ackring/bus.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

using namespace ackring;
using namespace std::chrono_literals;

TEST_CASE("an event goes from a publisher to a subscriber, with everything that belongs to it") {
  Bus bus = Bus::in_memory();
  CHECK(bus.connected());
  Publisher publisher = bus.publisher({.name = "gateway"});
  Subscriber subscriber = bus.subscribe({.name = "billing", .patterns = {"orders.#"}});
  CHECK(subscriber.name() == "billing");
  const Headers headers{{"type", "json"}};
  REQUIRE(publisher.publish("orders.created", "hello", {.key = "k1", .headers = &headers}) == Outcome::ok);
  REQUIRE(publisher.publish("other", "not for billing") == Outcome::ok);
  REQUIRE(publisher.publish("orders.closed", "") == Outcome::ok);
  CHECK(publisher.flush(5s) == Outcome::ok);
  CHECK(publisher.in_ring() == 0);
  auto first = subscriber.take(5s);
  REQUIRE(first);
  CHECK(first->topic() == "orders.created");
  CHECK(first->text() == "hello");
  CHECK(first->key() == "k1");
  CHECK(first->headers() == headers);
  CHECK(first->publisher() == "gateway");
  CHECK(first->sequence() == 1);
  CHECK(first->delivery() == 1);
  first->detach();
  CHECK(first->topic() == "orders.created");
  CHECK(first->publisher() == "gateway");
  CHECK(first->ack() == Outcome::ok);
  auto second = subscriber.take(5s);
  REQUIRE(second);
  CHECK(second->payload().empty());
  CHECK(second->sequence() == 3);
  CHECK(second->ack() == Outcome::ok);
  CHECK_FALSE(subscriber.take(1ms));
  CHECK(subscriber.flush(5s) == Outcome::ok);
  const auto stat = nlohmann::json::parse(bus.stat_json());
  CHECK(stat.at("subscriptions").at(0).at("acked") == 2);
}

TEST_CASE("a nacked delivery comes again") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  Subscriber subscriber = bus.subscribe({.patterns = {"#"}});
  REQUIRE(publisher.publish("t", "x") == Outcome::ok);
  auto delivery = subscriber.take(5s);
  REQUIRE(delivery);
  CHECK(delivery->nack() == Outcome::ok);
  auto again = subscriber.take(10s);
  REQUIRE(again);
  CHECK(again->attempt() == 2);
  CHECK(again->delivery() == 1);
  CHECK(again->ack() == Outcome::ok);
}

TEST_CASE("what a subscriber took without a verdict goes to the next one") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  std::optional<Delivery> kept;
  {
    Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"#"}});
    REQUIRE(publisher.publish("t", "x") == Outcome::ok);
    kept = subscriber.take(5s);
    REQUIRE(kept);
    kept->detach();
    CHECK_THROWS_AS((void)bus.subscribe({.name = "s"}), Error);
  }
  CHECK(kept->ack() == Outcome::stale);
  CHECK(kept->text() == "x");
  Subscriber subscriber = bus.subscribe({.name = "s"});
  auto again = subscriber.take(10s);
  REQUIRE(again);
  CHECK(again->text() == "x");
  CHECK(again->ack() == Outcome::ok);
}

TEST_CASE("subscriptions are created, read, updated and removed by name") {
  Bus bus = Bus::in_memory();
  SubscriptionOptions options{.name = "s", .patterns = {"a.*"}, .max_deliveries = 3};
  bus.create_subscription(options);
  CHECK_THROWS_AS(bus.create_subscription(options), Error);
  CHECK(bus.subscription("s").max_deliveries == 3);
  CHECK(bus.subscription("s").patterns == std::vector<std::string>{"a.*"});
  options.patterns = {"b.#"};
  bus.update_subscription(options);
  CHECK(bus.subscription("s").patterns == std::vector<std::string>{"b.#"});
  options.max_deliveries = SubscriptionOptions{}.max_deliveries;
  bus.update_subscription(options);
  CHECK(bus.subscription("s").max_deliveries == SubscriptionOptions{}.max_deliveries);
  try {
    (void)bus.subscribe({.name = "s", .max_deliveries = 4});
    FAIL("other options were accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::option_mismatch);
  }
  bus.remove_subscription("s");
  try {
    (void)bus.subscription("s");
    FAIL("it is still there");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::not_found);
  }
  CHECK_THROWS_AS((void)bus.subscribe({.patterns = {"a..b"}}), Error);
  CHECK_THROWS_AS((void)bus.subscribe({}), Error);
  CHECK_THROWS_AS((void)bus.publisher({.ring_bytes = 5000}), Error);
}

TEST_CASE("batches of several publishers arrive whole and in order, acked from another thread") {
  constexpr std::uint64_t count = 20'000;
  Bus bus = Bus::in_memory();
  Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"t.#"}, .ring_bytes = 64u << 10});
  std::vector<std::thread> threads;
  for (const char* name : {"p0", "p1"}) {
    threads.emplace_back([&bus, name] {
      Publisher publisher = bus.publisher({.name = name, .ring_bytes = 64u << 10});
      for (std::uint64_t i = 1; i <= count;) {
        if (publisher.add("t.x", as_bytes(std::to_string(i))) == Outcome::ok) {
          if (++i % 32 == 0) (void)publisher.commit_batch();
          continue;
        }
        (void)publisher.commit_batch();
        if (i <= count && publisher.publish_wait("t.x", as_bytes(std::to_string(i)), 10s) == Outcome::ok) ++i;
      }
      (void)publisher.commit_batch();
      CHECK(publisher.flush(20s) == Outcome::ok);
    });
  }
  std::array<std::uint64_t, 2> last{};
  std::array<DeliveryView, 64> views;
  for (std::uint64_t total = 0; total < 2 * count;) {
    const std::size_t taken = subscriber.take_batch(views, 10s);
    REQUIRE(taken != 0);
    for (std::size_t i = 0; i < taken; ++i) {
      const std::string_view publisher = subscriber.publisher(views[i]);
      std::uint64_t& before = last.at(static_cast<std::size_t>(publisher.back() - '0'));
      const Bytes payload = views[i].payload();
      if (views[i].sequence() != ++before) FAIL("sequence ", views[i].sequence(), " after ", before - 1);
      if (std::string_view(reinterpret_cast<const char*>(payload.data()), payload.size()) != std::to_string(before)) {
        FAIL("payload of ", before);
      }
    }
    total += taken;
    std::thread([&] { CHECK(subscriber.ack_through(views[taken - 1]) == Outcome::ok); }).join();
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(subscriber.flush(5s) == Outcome::ok);
}
