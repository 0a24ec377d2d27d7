// TraceContext: what is a traceparent and what is not; and that an event keeps its own, whatever happens to it.
#include <doctest/doctest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "ackring/ackring.hpp"
#include "tests/client/hosted_bus.hpp"

namespace ackring {
namespace {

using namespace std::chrono_literals;

const std::string example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST_CASE("what is valid is read, and written as it was") {
  const TraceContext context = TraceContext::parse(example);
  CHECK(context.trace_id[0] == 0x4b);
  CHECK(context.trace_id[15] == 0x36);
  CHECK(context.span_id[0] == 0x00);
  CHECK(context.span_id[7] == 0xb7);
  CHECK(context.sampled());
  CHECK(context.valid());
  CHECK(context.to_string() == example);
  CHECK(!TraceContext().valid());
}

TEST_CASE("of later versions what version 00 has is read") {
  CHECK(TraceContext::parse("cc" + example.substr(2)).to_string() == example);
  CHECK(TraceContext::parse("01" + example.substr(2) + "-what-the-future-brings").to_string() == example);
}

TEST_CASE("what is not valid is refused, with the reason") {
  const auto why = [](const std::string& text) {
    try {
      (void)TraceContext::parse(text);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::invalid_argument);
      CHECK(!traceparent_of(Headers{{"traceparent", text}}));
      return error.why();
    }
    return std::string("nothing");
  };
  const auto with = [](std::size_t at, const std::string& what) {
    std::string text = example;
    return text.replace(at, what.size(), what);
  };
  for (std::size_t bytes = 0; bytes < example.size(); ++bytes) {
    CHECK(why(example.substr(0, bytes)) == "it is shorter than 55 characters");
  }
  for (const std::size_t dash : {2, 35, 52}) {
    CHECK(why(with(dash, "_")) == "its parts are not divided by '-' as 2, 32, 16 and 2 digits");
  }
  for (const std::size_t digit : {0, 1, 3, 34, 36, 51, 53, 54}) {
    CHECK(why(with(digit, "g")) == "a digit is not one of 0-9 and a-f");
    CHECK(why(with(digit, "A")) == "a digit is not one of 0-9 and a-f");
  }
  CHECK(why(with(0, "ff")) == "there is no version ff");
  CHECK(why(example + "-00") == "it goes on behind its flags");
  CHECK(why(with(0, "01") + "00") == "it goes on behind its flags");
  CHECK(why(with(3, std::string(32, '0'))) == "its trace id is all zero");
  CHECK(why(with(36, std::string(16, '0'))) == "its span id is all zero");
}

TEST_CASE("new traces and spans are others, and a child is of the same trace") {
  const TraceContext first = TraceContext::start();
  const TraceContext second = TraceContext::start(false);
  CHECK(first.valid());
  CHECK(first.sampled());
  CHECK(!second.sampled());
  CHECK(first.trace_id != second.trace_id);
  const TraceContext child = first.child();
  CHECK(child.valid());
  CHECK(child.trace_id == first.trace_id);
  CHECK(child.span_id != first.span_id);
  CHECK(child.flags == first.flags);
  CHECK(TraceContext::parse(child.to_string()) == child);
}

TEST_CASE("headers have one") {
  Headers headers{{"a", "b"}, {"traceparent", "nonsense"}, {"traceparent", "more of it"}};
  CHECK(!traceparent_of(headers));
  set_traceparent(headers, TraceContext::parse(example));
  CHECK(headers == Headers{{"a", "b"}, {"traceparent", example}});
  CHECK(traceparent_of(headers) == TraceContext::parse(example));
  CHECK(!traceparent_of(Headers{}));
}

TEST_CASE("an event keeps it over retry, restart, dead letter, dead-letter topic and requeue") {
  test::HostedBus hosted;
  hosted.start();
  Bus bus = hosted.bus();
  const TraceContext context = TraceContext::parse(example);
  Subscriber dead = bus.subscribe({.name = "dead", .patterns = {"dead"}});
  Subscriber subscriber = bus.subscribe(
      {.name = "s", .patterns = {"orders"}, .max_deliveries = 2, .backoff_initial = 1ms, .dead_letter_topic = "dead"});
  Publisher publisher = bus.publisher({.name = "shop"});
  Headers headers;
  set_traceparent(headers, context);
  REQUIRE(publisher.publish("orders", "x", {.headers = &headers}) == Outcome::ok);
  const auto explained = [&] { return nlohmann::json::parse(bus.explain_json("s", {.delivery = 1})); };
  const auto take_and = [&](std::uint32_t attempt, auto verdict) {
    auto delivery = subscriber.take(10s);
    REQUIRE(delivery);
    CHECK(delivery->attempt() == attempt);
    CHECK(traceparent_of(*delivery) == context);
    REQUIRE(verdict(*delivery) == Outcome::ok);
    REQUIRE(subscriber.flush(10s) == Outcome::ok);
  };
  const auto nack = [](Delivery& delivery) { return delivery.nack(); };
  take_and(1, nack);
  CHECK(explained().at("event").at("traceparent") == example);
  hosted.stop();
  hosted.start();
  take_and(2, nack);
  CHECK(explained().at("state") == "dead");
  CHECK(explained().at("event").at("traceparent") == example);
  DeadLetterCursor cursor;
  const auto letter = nlohmann::json::parse(bus.dead_letters_ndjson("s", cursor));
  CHECK(letter.at("headers").at("traceparent") == example);
  auto told = dead.take(10s);
  REQUIRE(told);
  CHECK(traceparent_of(*told) == context);
  CHECK(bus.requeue_dead_letters("s") == 1);
  take_and(3, [](Delivery& delivery) { return delivery.ack(); });

  REQUIRE(publisher.publish("orders", "without one") == Outcome::ok);
  auto plain = subscriber.take(10s);
  REQUIRE(plain);
  CHECK(!traceparent_of(*plain));
  CHECK(!nlohmann::json::parse(bus.explain_json("s", {.delivery = 2})).at("event").contains("traceparent"));
}

}  // namespace
}  // namespace ackring
