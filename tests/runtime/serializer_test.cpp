// Typed handlers and publishers.
#include "ackring/serializer.hpp"

#include <vector>

#include "ackring/json.hpp"
#include "tests/runtime/support.hpp"

using namespace ackring;
using namespace ackring::test;
using namespace std::chrono_literals;

namespace {

struct Tick {
  double price;
  int size;
};

struct Order {
  std::string id;
  std::vector<int> lines;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Order, id, lines)
};

struct Reversed {
  static std::string encode(const std::string& text) { return {text.rbegin(), text.rend()}; }
  static std::string decode(Bytes bytes) { return encode(TextSerializer::decode(bytes)); }
};

static_assert(Serializer<TrivialSerializer<Tick>, Tick>);
static_assert(Serializer<JsonSerializer<Order>, Order>);
static_assert(std::is_same_v<DefaultSerializer<Order>, JsonSerializer<Order>>);
static_assert(std::is_same_v<DefaultSerializer<Tick>, TrivialSerializer<Tick>>);

struct ReversedText {
  std::string text;
  operator Bytes() const { return as_bytes(text); }  // NOLINT(google-explicit-constructor)
};
struct ReversingSerializer {
  static ReversedText encode(const std::string& text) { return {Reversed::encode(text)}; }
  static std::string decode(Bytes bytes) { return Reversed::decode(bytes); }
};

}  // namespace

TEST_CASE("values go as bytes, as JSON, as text, or as a serializer of one's own has it") {
  Bus bus = Bus::in_memory();
  EventBus events(bus);
  Publisher publisher = bus.publisher();
  Tick tick{};
  Order order;
  std::string text;
  std::string reversed;
  events.on<Tick>("tick", [&tick](const Tick& value) { tick = value; });
  events.on<Order>("order", [&order](const Order& value, Delivery& delivery) {
    CHECK(delivery.topic() == "order");
    order = value;
  });
  events.on<std::string>("text", [&text](const std::string& value) { text = value; });
  events.on<std::string, ReversingSerializer>("reversed", [&reversed](const std::string& value) { reversed = value; });
  CHECK(publish(publisher, "tick", Tick{1.5, 7}) == Outcome::ok);
  CHECK(publish(publisher, "order", Order{"o1", {1, 2}}) == Outcome::ok);
  CHECK(publish(publisher, "text", std::string("hello")) == Outcome::ok);
  CHECK(publish<std::string, ReversingSerializer>(publisher, "reversed", "abc") == Outcome::ok);
  for (int i = 0; i < 4; ++i) CHECK(events.run_one(10s));
  CHECK(tick.price == 1.5);
  CHECK(tick.size == 7);
  CHECK(order.id == "o1");
  CHECK(order.lines == std::vector<int>{1, 2});
  CHECK(text == "hello");
  CHECK(reversed == "abc");
}

TEST_CASE("an event that can't be decoded is rejected, and says why") {
  Bus bus = Bus::in_memory();
  EventBus events(bus);
  Publisher publisher = bus.publisher();
  int calls = 0;
  events.on<Tick>("tick", [&calls](const Tick&) { ++calls; }, {.subscription = {.name = "ticks"}});
  events.on<Order>("order", [&calls](const Order&) { ++calls; }, {.subscription = {.name = "orders"}});
  REQUIRE(publisher.publish("tick", "short") == Outcome::ok);
  REQUIRE(publisher.publish("order", "{\"id\": 7}") == Outcome::ok);
  CHECK(events.run_one(10s));
  CHECK(events.run_one(10s));
  CHECK(calls == 0);
  CHECK(eventually([&] { return row(bus, "ticks")["dlq_size"] == 1 && row(bus, "orders")["dlq_size"] == 1; }));
  DeadLetterCursor cursor;
  const auto letter = nlohmann::json::parse(bus.dead_letters_ndjson("ticks", cursor));
  CHECK(letter.at("reason") == "rejected: can't decode it: it has 5 bytes, not 16");
  CHECK(events.status().at(0).rejected == 1);
  CHECK(events.status().at(0).breaker == CircuitState::closed);
}
