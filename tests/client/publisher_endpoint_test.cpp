#include "lib/client/publisher_endpoint.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <thread>

#include "tests/client/played_exchange.hpp"

using namespace ackring;
using namespace std::chrono_literals;
using test::PlayedExchange;
using test::PlayedIngress;

namespace {
std::string payload_of(const std::byte* record) {
  const auto parts = ring::parts(record);
  return {reinterpret_cast<const char*>(parts.payload), parts.header->payload_bytes};
}
const shm::RecordHeader& header_of(const std::byte* record) { return *ring::parts(record).header; }
}  // namespace

TEST_CASE("a topic is defined before its first event, once") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  for (const char* topic : {"orders.created", "orders.created", "a", "orders.created", "a"}) {
    REQUIRE(endpoint.publish(topic, as_bytes(topic), {}) == Outcome::ok);
  }
  std::vector<std::string> seen;
  std::uint64_t sequence = 0;
  while (const std::byte* record = ingress.next()) {
    const bool topic = header_of(record).kind == static_cast<std::uint16_t>(shm::RecordKind::topic);
    seen.push_back((topic ? "T" : "E") + std::to_string(header_of(record).topic) + payload_of(record));
    if (!topic) CHECK(header_of(record).sequence == ++sequence);
  }
  CHECK(seen == std::vector<std::string>{"T1orders.created", "E1orders.created", "E1orders.created", "T2a", "E2a",
                                         "E1orders.created", "E2a"});
  CHECK(ingress.words().topics.load(std::memory_order_relaxed) == 2);
  CHECK(ingress.words().events.load(std::memory_order_relaxed) == 5);
}

TEST_CASE("invalid topics and events too large are refused before a byte is written") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  for (const std::string& topic : {std::string(), std::string("a..b"), std::string("a b"), std::string(256, 'a')}) {
    CHECK(endpoint.publish(topic, {}, {}) == Outcome::invalid_topic);
  }
  const std::string largest(endpoint.max_event_bytes(), 'x');
  CHECK(largest.size() == 4096 / 4 - 48 - 32);
  CHECK(endpoint.publish("a", as_bytes(largest + "x"), {}) == Outcome::too_large);
  CHECK(endpoint.publish("a", as_bytes(largest), {.key = "k"}) == Outcome::too_large);
  CHECK(endpoint.publish("a", {}, {.key = std::string(65'536, 'k')}) == Outcome::too_large);
  CHECK(ingress.next() == nullptr);
  CHECK(endpoint.publish("a", as_bytes(largest), {}) == Outcome::ok);
  CHECK(endpoint.publish(std::string(255, 'a'), {}, {}) == Outcome::ok);
}

TEST_CASE("a batch is invisible before its commit and has one time") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  const Headers headers{{"h", "v"}};
  REQUIRE(endpoint.add("a", as_bytes("1"), {.key = "key", .headers = &headers}) == Outcome::ok);
  REQUIRE(endpoint.add("a", {}, {}) == Outcome::ok);
  CHECK(ingress.next() == nullptr);
  CHECK(endpoint.sequence() == 0);
  REQUIRE(endpoint.commit() == Outcome::ok);
  CHECK(endpoint.sequence() == 2);
  (void)ingress.next();  // the topic
  const std::byte* first = ingress.next();
  REQUIRE(first != nullptr);
  const auto parts = ring::parts(first);
  CHECK(std::string(reinterpret_cast<const char*>(parts.key), parts.header->key_bytes) == "key");
  CHECK(client::decode_headers({parts.headers, parts.header->headers_bytes}) == headers);
  const std::byte* second = ingress.next();
  REQUIRE(second != nullptr);
  CHECK(payload_of(second).empty());
  CHECK(header_of(first).published_ns == header_of(second).published_ns);
  CHECK(endpoint.in_ring() == 2);
}

TEST_CASE("a full ring answers back_pressured, counts it, and goes on when there is room") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096, std::uint64_t{0} - 4096);  // the position wraps
  auto& endpoint = ingress.endpoint;
  std::random_device device;
  const std::uint32_t seed = device();
  INFO("replay: put seed ", seed, " in place of device()");
  std::mt19937 random(seed);
  std::uint64_t published = 0;
  std::uint64_t read = 0;
  std::uint64_t refused = 0;
  for (int round = 0; round < 5'000; ++round) {
    const std::string payload(random() % 900, static_cast<char>('a' + published % 26));
    const Outcome outcome = endpoint.publish("t", as_bytes(payload), {});
    if (outcome == Outcome::ok) ++published;
    if (outcome == Outcome::back_pressured) {
      ++refused;
      for (unsigned i = random() % 4 + 1; i > 0;) {
        const std::byte* record = ingress.next();
        if (record == nullptr) break;
        if (header_of(record).kind == static_cast<std::uint16_t>(shm::RecordKind::topic)) continue;
        CHECK(header_of(record).sequence == ++read);
        const char letter = static_cast<char>('a' + (read - 1) % 26);
        CHECK(payload_of(record) == std::string(header_of(record).payload_bytes, letter));
        --i;
      }
      ingress.free_all();
    }
  }
  CHECK(refused > 0);
  CHECK(ingress.words().back_pressured.load(std::memory_order_relaxed) == refused);
}

TEST_CASE("publish_wait and flush sleep until the exchange has read, and are rung") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  const std::string payload(900, 'x');
  while (endpoint.publish("t", as_bytes(payload), {}) == Outcome::ok) {
  }
  CHECK(endpoint.publish_wait("t", as_bytes(payload), 1ms, {}) == Outcome::back_pressured);
  CHECK(endpoint.flush(1ms) == Outcome::timed_out);
  std::thread reader([&] {
    while (ingress.words().parked.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
    while (ingress.next() != nullptr) {
    }
    ingress.free_all();
    (void)ingress.bell.ring();
  });
  CHECK(endpoint.publish_wait("t", as_bytes(payload), 10s, {}) == Outcome::ok);
  reader.join();
  (void)ingress.next();
  ingress.free_all();
  CHECK(endpoint.flush(0ns) == Outcome::ok);
}

TEST_CASE("a loan is published by its commit only") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  {
    Loan unused;
    endpoint.lend(unused, "t", 5, {});
    CHECK(unused);
    CHECK(reinterpret_cast<std::uintptr_t>(unused.data().data()) % 16 == 0);
  }
  CHECK(ingress.next() == nullptr);
  Loan loan;
  endpoint.lend(loan, "t", 5, {.key = "k"});
  REQUIRE(loan.data().size() == 5);
  std::memcpy(loan.data().data(), "hello", 5);
  Loan moved = std::move(loan);
  CHECK(moved.commit() == Outcome::ok);
  CHECK(moved.commit() == Outcome::closed);
  Loan overtaken;
  endpoint.lend(overtaken, "t", 5, {});
  CHECK(endpoint.publish("t", as_bytes("other"), {}) == Outcome::ok);
  CHECK(overtaken.commit() == Outcome::closed);
  (void)ingress.next();  // the topic
  CHECK(payload_of(ingress.next()) == "hello");
  CHECK(payload_of(ingress.next()) == "other");
  CHECK(ingress.next() == nullptr);
}

TEST_CASE("a commit rings the bell of an exchange that does not poll") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  REQUIRE(ingress.endpoint.publish("t", {}, {}) == Outcome::ok);
  CHECK_FALSE(ingress.bell.wait(0));
  ingress.cursor_words().not_polled.store(1, std::memory_order_relaxed);
  REQUIRE(ingress.endpoint.publish("t", {}, {}) == Outcome::ok);
  CHECK(ingress.bell.wait(1'000'000'000));
}

TEST_CASE("a quarantined publisher is closed") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  ingress.cursor_words().quarantined.store(1, std::memory_order_relaxed);
  Outcome outcome = Outcome::ok;
  while (outcome == Outcome::ok) outcome = ingress.endpoint.publish("t", as_bytes(std::string(500, 'x')), {});
  CHECK(outcome == Outcome::closed);
  CHECK(ingress.endpoint.flush(1s) == Outcome::closed);
}

TEST_CASE("on a bus that is nearly full of topics a new one is asked for first") {
  PlayedExchange exchange;
  shm::Segment topics =
      shm::Segment::create(exchange.directory, "topics", shm::SegmentKind::topics, shm::page_bytes, 1, 0);
  auto& count = topics.as<shm::TopicsSegment>()->count;
  exchange.view->topics = control::TopicReader(
      shm::Segment::attach(exchange.directory, "topics", shm::SegmentKind::topics, shm::Access::read_only));
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  ingress.cursor.grow(2 * shm::page_bytes);
  auto* map = ingress.cursor.as<shm::Word32>(shm::page_bytes);
  // X's part: what is there is consumed, and the next topic gets this number.
  const auto answer = [&](std::uint64_t topic, std::uint32_t number) {
    while (ingress.next() != nullptr) {
    }
    map[topic - 1].store(number, std::memory_order_relaxed);
    ingress.cursor_words().topics.store(topic, std::memory_order_release);
    ingress.free_all();
  };
  CHECK(endpoint.publish("a", {}, {}) == Outcome::ok);
  answer(1, 7);
  count.store(limits::topics, std::memory_order_relaxed);
  CHECK(endpoint.publish("b", {}, {}) == Outcome::back_pressured);
  CHECK(endpoint.publish("b", {}, {}) == Outcome::back_pressured);
  CHECK(endpoint.publish("c", {}, {}) == Outcome::back_pressured);  // one question at a time
  CHECK(endpoint.publish("a", as_bytes("x"), {}) == Outcome::ok);   // known ones go on, under their own number
  CHECK(payload_of(ingress.next()) == "b");
  const std::byte* event = ingress.next();
  REQUIRE(event != nullptr);
  CHECK(header_of(event).topic == 1);
  answer(2, 9);
  CHECK(endpoint.publish("b", {}, {}) == Outcome::ok);
  CHECK(endpoint.publish("c", {}, {}) == Outcome::back_pressured);
  answer(3, 0);
  CHECK(endpoint.publish("c", {}, {}) == Outcome::too_many_topics);
  CHECK(endpoint.publish("c", {}, {}) == Outcome::too_many_topics);
  CHECK(ingress.next() == nullptr);

  // Behind events that are not committed it goes out with them.
  CHECK(endpoint.add("a", {}, {}) == Outcome::ok);
  CHECK(endpoint.add("d", {}, {}) == Outcome::back_pressured);
  CHECK(ingress.next() == nullptr);
  CHECK(endpoint.commit() == Outcome::ok);
  answer(4, 10);
  CHECK(endpoint.publish("d", {}, {}) == Outcome::ok);

  // There is room again, but X had none for the last one that it has seen.
  CHECK(endpoint.publish("e", {}, {}) == Outcome::back_pressured);
  answer(5, 0);
  count.store(1, std::memory_order_relaxed);
  CHECK(endpoint.publish("f", {}, {}) == Outcome::back_pressured);
  answer(6, 11);
  CHECK(endpoint.publish("f", {}, {}) == Outcome::ok);
  CHECK(endpoint.publish("g", {}, {}) == Outcome::ok);
}

TEST_CASE("a topic that the access rules keep from this user is denied before a byte is written") {
  PlayedExchange exchange;
  exchange.view->permissions.everything = false;
  exchange.view->permissions.publish = {"orders.#"};
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  for (int i = 0; i < 3; ++i) {
    CHECK(endpoint.publish("secret", as_bytes("x"), {}) == Outcome::denied);
    CHECK(endpoint.publish_wait("secret", as_bytes("x"), 1s, {}) == Outcome::denied);
    CHECK(endpoint.publish("orders.eu", as_bytes("x"), {}) == Outcome::ok);
  }
  CHECK(endpoint.publish("not a topic", {}, {}) == Outcome::invalid_topic);
  CHECK(payload_of(ingress.next()) == "orders.eu");  // the only topic that was defined
  for (int i = 0; i < 3; ++i) CHECK(payload_of(ingress.next()) == "x");
  CHECK(ingress.next() == nullptr);
}

TEST_CASE("the exchange's own answer that a topic is denied is believed, and asked for from then on") {
  PlayedExchange exchange;
  PlayedIngress ingress(exchange, 4096);
  auto& endpoint = ingress.endpoint;
  ingress.cursor.grow(2 * shm::page_bytes);
  auto* map = ingress.cursor.as<shm::Word32>(shm::page_bytes);
  const auto answer = [&](std::uint64_t topic, std::uint32_t number) {
    while (ingress.next() != nullptr) {
    }
    map[topic - 1].store(number, std::memory_order_relaxed);
    ingress.cursor_words().topics.store(topic, std::memory_order_release);
    ingress.free_all();
  };
  CHECK(endpoint.publish("a", {}, {}) == Outcome::ok);  // rules that this client has not heard of
  answer(1, shm::denied_topic);
  CHECK(endpoint.publish("b", {}, {}) == Outcome::back_pressured);
  answer(2, shm::denied_topic);
  CHECK(endpoint.publish("b", {}, {}) == Outcome::denied);
  CHECK(endpoint.publish("b", {}, {}) == Outcome::denied);
  CHECK(endpoint.publish("c", {}, {}) == Outcome::back_pressured);
  answer(3, 7);
  CHECK(endpoint.publish("c", {}, {}) == Outcome::ok);
}
