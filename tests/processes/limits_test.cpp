// Every limit of a bus, at it and past it. What is refused names the limit and changes nothing.
#include "tests/processes/support.hpp"

#include <sys/resource.h>

#include <fstream>
#include <memory>
#include <numeric>

#include "lib/exchange/exchange.hpp"
#include "lib/shm/directory.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

// The refusal must be of this kind and name all of these words.
template <class Call>
void refused(ErrorCode code, std::vector<std::string> words, Call call) {
  try {
    call();
    FAIL_CHECK("accepted where it should be refused: " << words.front());
  } catch (const Error& error) {
    INFO(error.what());
    CHECK(error.code() == code);
    for (const std::string& word : words) CHECK(std::string(error.what()).find(word) != std::string::npos);
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
  }
}

std::uint64_t free_megabytes() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::uint64_t kilobytes = 0;
  for (std::string line; file >> name >> kilobytes && name != "MemAvailable:";) std::getline(file, line);
  return kilobytes / 1024;
}

bool too_little_memory(const char* what) {
  if (free_megabytes() >= 6'000) return false;
  MESSAGE("skipped: " << what << " needs 6 GB of free memory");
  return true;
}

Json stat_of(Bus& bus, const std::string& subscription) {
  const Json stat = Json::parse(bus.stat_json());
  check_books(stat);
  return row_of(stat, "subscriptions", subscription);
}

std::uint64_t dropped(const Json& row, const char* reason) { return row.at("dropped").value(reason, std::uint64_t{0}); }

// Publishes until there is no room; how many were accepted.
std::uint64_t publish_until_full(Publisher& publisher, std::string_view payload) {
  for (std::uint64_t count = 0; count < 1'000'000; ++count) {
    const Outcome outcome = publisher.publish_wait("t", as_bytes(payload), 200ms);
    if (outcome == Outcome::ok) continue;
    CHECK(outcome == Outcome::back_pressured);
    return count;
  }
  FAIL_CHECK("never back-pressured");
  return 0;
}

}  // namespace

TEST_CASE("topics: 255 bytes and any number of words arrive; 256 bytes and other characters are refused") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  Subscriber subscriber = bus.subscribe({.patterns = {"#"}});
  std::string words = "w";
  while (words.size() < limits::topic_bytes) words += ".w";
  REQUIRE(words.size() == 255);
  const std::vector<std::string> good{std::string(255, 'x'), words, "A-Z_0.9", "-", "_"};
  for (const std::string& topic : good) CHECK(publisher.publish(topic, "x") == Outcome::ok);
  for (const std::string& topic : {std::string(256, 'x'), words + ".", "." + words, std::string(), std::string("a..b"),
                                   std::string("a b"), std::string("a.*"), std::string("#"), std::string("\xc3\xa4")}) {
    CHECK_MESSAGE(publisher.publish(topic, "x") == Outcome::invalid_topic, topic);
  }
  CHECK(publisher.sequence() == good.size());
  for (const std::string& topic : good) {
    auto delivery = subscriber.take(patience);
    REQUIRE(delivery);
    CHECK(delivery->topic() == topic);
    CHECK(delivery->ack() == Outcome::ok);
  }
  CHECK_FALSE(subscriber.take(1ms));
}

TEST_CASE("patterns: 255 bytes and 64 of them; past that the limit is named") {
  Bus bus = Bus::in_memory();
  const std::string longest(255, 'x');
  CHECK_NOTHROW((void)bus.subscribe({.name = "long", .patterns = {longest}}));
  refused(ErrorCode::invalid_argument, {"255"}, [&] { (void)bus.subscribe({.patterns = {longest + "x"}}); });
  for (const char* pattern : {"", "a..b", "a*", "##", "a b", "a.#b"}) {
    refused(ErrorCode::invalid_argument, {"pattern"}, [&] { (void)bus.subscribe({.patterns = {pattern}}); });
  }
  std::vector<std::string> many;
  for (std::size_t i = 0; i < limits::patterns; ++i) many.push_back("p" + std::to_string(i));
  CHECK_NOTHROW((void)bus.subscribe({.name = "many", .patterns = many}));
  many.push_back("one.more");
  refused(ErrorCode::invalid_argument, {"65", "64"}, [&] { (void)bus.subscribe({.name = "more", .patterns = many}); });
  refused(ErrorCode::not_found, {"none", "pattern"}, [&] { (void)bus.subscribe({.name = "without"}); });
}

TEST_CASE("names of a bus, a publisher and a subscription: 63 bytes of [A-Za-z0-9_.-]") {
  Bus bus = Bus::in_memory();
  const std::string longest(63, 'n');
  CHECK(bus.publisher({.name = longest}).name() == longest);
  CHECK(bus.subscribe({.name = longest, .patterns = {"#"}}).name() == longest);
  const TemporaryDirectory temporary("names");
  CHECK(Bus::open(longest, bus_options(temporary.path(), ExchangeMode::automatic)).name() == longest);
  for (const std::string& name : {longest + "n", std::string("a/b"), std::string(".hidden"), std::string("a b")}) {
    INFO(name);
    refused(ErrorCode::invalid_argument, {"63"}, [&] { (void)bus.publisher({.name = name}); });
    refused(ErrorCode::invalid_argument, {"63"}, [&] { (void)bus.subscribe({.name = name, .patterns = {"#"}}); });
    refused(ErrorCode::invalid_argument, {"63"}, [&] { (void)Bus::open(name, bus_options(temporary.path())); });
  }
}

TEST_CASE("events: exactly a quarter of the ring goes through; one byte more is refused before a byte is written") {
  Bus bus = Bus::in_memory();
  for (const std::size_t ring_bytes : {std::size_t{4096}, std::size_t{1} << 16, limits::default_ring_bytes}) {
    INFO(ring_bytes);
    Publisher publisher = bus.publisher({.ring_bytes = ring_bytes});
    Subscriber subscriber = bus.subscribe({.patterns = {"#"}, .ring_bytes = ring_bytes});
    const std::uint64_t before = publisher.sequence();  // an anonymous slot that is used again goes on counting
    const std::size_t most = publisher.max_event_bytes();
    CHECK(most <= ring_bytes / 4);
    CHECK(most + 128 > ring_bytes / 4);
    const std::string whole(most, 'x');
    CHECK(publisher.publish("t", whole + "x") == Outcome::too_large);
    CHECK(publisher.loan("t", most + 1).outcome() == Outcome::too_large);
    CHECK(publisher.add("t", as_bytes(whole + "x")) == Outcome::too_large);
    CHECK(publisher.publish("t", whole, {.key = "k"}) == Outcome::too_large);
    const Headers headers{{"name", "value"}};
    CHECK(publisher.publish("t", whole, {.headers = &headers}) == Outcome::too_large);
    CHECK(publisher.sequence() == before);
    // More than the ring holds at once, so that the largest events wrap in every position.
    for (int i = 0; i < 9; ++i) {
      REQUIRE(publisher.publish("t", std::string_view(whole).substr(i == 8 ? 1 : 0), {.key = i == 8 ? "k" : ""}) ==
              Outcome::ok);
      auto delivery = subscriber.take(patience);
      REQUIRE(delivery);
      CHECK(delivery->payload().size() + delivery->key().size() == most);
      CHECK(delivery->nack() == Outcome::ok);  // the largest event fits when it comes again too
      auto again = subscriber.take(patience);
      REQUIRE(again);
      CHECK(again->attempt() == 2);
      CHECK(again->text() == std::string_view(whole).substr(i == 8 ? 1 : 0));
      CHECK(again->ack() == Outcome::ok);
    }
  }
}

TEST_CASE("an event larger than a quarter of the subscription's ring is counted as dropped there, and nowhere else") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  Subscriber small = bus.subscribe({.name = "small", .patterns = {"#"}, .ring_bytes = 4096});
  Subscriber large = bus.subscribe({.name = "large", .patterns = {"#"}});
  REQUIRE(publisher.publish("t", std::string(2000, 'x')) == Outcome::ok);
  REQUIRE(publisher.publish("t", "fits") == Outcome::ok);
  auto delivery = small.take(patience);
  REQUIRE(delivery);
  CHECK(delivery->text() == "fits");
  CHECK(large.take(patience)->payload().size() == 2000);
  CHECK(dropped(stat_of(bus, "small"), "too-large") == 1);
  CHECK(dropped(stat_of(bus, "large"), "too-large") == 0);
}

TEST_CASE("events of 64 MiB, the most that any ring takes") {
  if (too_little_memory("a ring of 512 MiB at both ends")) return;
  Bus bus = Bus::in_memory();
  constexpr std::size_t ring_bytes = 512u << 20;
  Publisher publisher = bus.publisher({.ring_bytes = ring_bytes});
  Subscriber subscriber = bus.subscribe({.patterns = {"#"}, .ring_bytes = ring_bytes});
  CHECK(publisher.max_event_bytes() == limits::event_bytes);
  CHECK(publisher.loan("t", limits::event_bytes + 1).outcome() == Outcome::too_large);
  Loan loan = publisher.loan("t", limits::event_bytes);
  REQUIRE(loan);
  std::iota(reinterpret_cast<std::uint32_t*>(loan.data().data()),
            reinterpret_cast<std::uint32_t*>(loan.data().data() + loan.data().size()), 7u);
  REQUIRE(loan.commit() == Outcome::ok);
  auto delivery = subscriber.take(patience);
  REQUIRE(delivery);
  REQUIRE(delivery->payload().size() == limits::event_bytes);
  std::uint32_t expected = 7;
  std::uint64_t wrong = 0;
  const auto* words = reinterpret_cast<const std::uint32_t*>(delivery->payload().data());
  for (std::size_t i = 0; i < limits::event_bytes / 4; ++i) wrong += words[i] != expected++ ? 1 : 0;
  CHECK(wrong == 0);
}

TEST_CASE("keys: 65,535 bytes arrive, 65,536 are refused") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  Subscriber subscriber = bus.subscribe({.patterns = {"#"}});
  const std::string longest(limits::key_bytes, 'k');
  CHECK(publisher.publish("t", "x", {.key = longest + "k"}) == Outcome::too_large);
  CHECK(publisher.publish("t", "x", {.key = longest}) == Outcome::ok);
  auto delivery = subscriber.take(patience);
  REQUIRE(delivery);
  CHECK(delivery->sequence() == 1);
  CHECK(delivery->key() == longest);
  CHECK(delivery->text() == "x");
}

TEST_CASE("rings: 4 KiB to 1 GiB, powers of two, at both ends") {
  Bus bus = Bus::in_memory();
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{2048}, std::size_t{4095}, std::size_t{12'288},
                                  limits::max_ring_bytes - 4096, limits::max_ring_bytes * 2}) {
    INFO(bytes);
    refused(ErrorCode::invalid_argument, {"ring_bytes", std::to_string(bytes)},
            [&] { (void)bus.publisher({.ring_bytes = bytes}); });
    refused(ErrorCode::invalid_argument, {"ring_bytes", std::to_string(bytes)},
            [&] { (void)bus.subscribe({.patterns = {"#"}, .ring_bytes = bytes}); });
  }
  std::vector<std::size_t> sizes{limits::min_ring_bytes};
  if (!too_little_memory("a ring of 1 GiB at both ends")) sizes.push_back(limits::max_ring_bytes);
  for (const std::size_t bytes : sizes) {
    Publisher publisher = bus.publisher({.ring_bytes = bytes});
    Subscriber subscriber = bus.subscribe({.patterns = {"#"}, .ring_bytes = bytes});
    REQUIRE(publisher.publish("t", "x") == Outcome::ok);
    CHECK(subscriber.take(patience)->text() == "x");
  }
}

TEST_CASE("options of a subscription: max_in_flight, max_deliveries, ack_timeout") {
  Bus bus = Bus::in_memory();
  const auto with = [](auto set) {
    SubscriptionOptions options{.patterns = {"#"}, .ring_bytes = 4096};
    set(options);
    return options;
  };
  for (const std::uint32_t value : {0u, limits::max_in_flight + 1}) {
    refused(ErrorCode::invalid_argument, {"max_in_flight", "1048576"},
            [&] { (void)bus.subscribe(with([&](SubscriptionOptions& options) { options.max_in_flight = value; })); });
  }
  for (const std::uint32_t value : {0u, limits::max_deliveries + 1}) {
    refused(ErrorCode::invalid_argument, {"max_deliveries", "1000"},
            [&] { (void)bus.subscribe(with([&](SubscriptionOptions& options) { options.max_deliveries = value; })); });
  }
  refused(ErrorCode::invalid_argument, {"ack_timeout", "1 ms"},
          [&] { (void)bus.subscribe(with([](SubscriptionOptions& options) { options.ack_timeout = 999'999ns; })); });
  for (const std::uint32_t value : {1u, limits::max_deliveries}) {
    CHECK_NOTHROW((void)bus.subscribe(with([&](SubscriptionOptions& options) { options.max_deliveries = value; })));
  }

  Publisher publisher = bus.publisher();
  {
    // One in flight: the second waits for the verdict on the first.
    Subscriber one = bus.subscribe({.name = "one", .patterns = {"a"}, .max_in_flight = 1});
    for (int i = 0; i < 3; ++i) REQUIRE(publisher.publish("a", "x") == Outcome::ok);
    for (std::uint64_t i = 1; i <= 3; ++i) {
      auto delivery = one.take(patience);
      REQUIRE(delivery);
      CHECK(delivery->sequence() == i);
      CHECK_FALSE(one.take(20ms));
      CHECK(delivery->ack() == Outcome::ok);
    }
  }
  Subscriber all = bus.subscribe({.name = "all", .patterns = {"b"}, .max_in_flight = limits::max_in_flight});
  REQUIRE(publisher.publish("b", "x") == Outcome::ok);
  CHECK(all.take(patience).has_value());
  Subscriber hasty = bus.subscribe({.name = "hasty", .patterns = {"c"}, .ack_timeout = 1ms});
  REQUIRE(publisher.publish("c", "x") == Outcome::ok);
  auto late = hasty.take(patience);
  REQUIRE(late);
  auto again = hasty.take(patience);
  REQUIRE(again);
  CHECK(again->attempt() == 2);
  CHECK(again->delivery() == 1);
}

TEST_CASE("backlog: at max_events or max_bytes a subscription that blocks stops its publisher, others drop and count") {
  Bus bus = Bus::in_memory();
  bus.create_subscription({.name = "block", .patterns = {"t"}, .max_events = 5});
  Publisher publisher = bus.publisher({.ring_bytes = 4096});
  const std::uint64_t accepted = publish_until_full(publisher, "x");
  Json row = stat_of(bus, "block");
  CHECK(row.at("queued") == 5);
  CHECK(row.at("matched") == 5);
  CHECK(accepted > 5);  // the rest waits in the ring
  CHECK(publisher.in_ring() == accepted - 5);
  {
    Subscriber subscriber = bus.subscribe({.name = "block"});
    for (std::uint64_t i = 1; i <= accepted; ++i) {
      auto delivery = subscriber.take(patience);
      REQUIRE(delivery);
      REQUIRE(delivery->sequence() == i);
      REQUIRE(delivery->ack() == Outcome::ok);
    }
  }
  CHECK(publisher.flush(patience) == Outcome::ok);
  bus.remove_subscription("block", Pending::drop);

  bus.create_subscription({.name = "bytes", .patterns = {"t"}, .max_bytes = 10'000});
  const std::uint64_t of_bytes = publish_until_full(publisher, std::string(900, 'x'));
  row = stat_of(bus, "bytes");
  CHECK(row.at("queued").get<std::uint64_t>() >= 9);  // a record is a little more than its payload
  CHECK(row.at("queued").get<std::uint64_t>() <= 11);
  CHECK(of_bytes > row.at("queued").get<std::uint64_t>());
  bus.remove_subscription("bytes", Pending::drop);
  CHECK(publisher.flush(patience) == Outcome::ok);  // what waited for it has nowhere to go, and is routed

  const std::uint64_t base = publisher.sequence();
  bus.create_subscription({.name = "newest", .patterns = {"t"}, .max_events = 5, .overflow = Overflow::drop_newest});
  bus.create_subscription({.name = "oldest", .patterns = {"t"}, .max_events = 5, .overflow = Overflow::drop_oldest});
  bus.create_subscription({.name = "most-once", .patterns = {"t"}, .guarantee = at_most_once, .max_events = 5});
  for (int i = 0; i < 12; ++i) REQUIRE(publisher.publish_wait("t", as_bytes("x"), patience) == Outcome::ok);
  CHECK(publisher.flush(patience) == Outcome::ok);
  CHECK(dropped(stat_of(bus, "newest"), "drop-newest") == 7);
  CHECK(dropped(stat_of(bus, "oldest"), "drop-oldest") == 7);
  CHECK(dropped(stat_of(bus, "most-once"), "drop-oldest") == 7);
  CHECK(bus.subscribe({.name = "newest"}).take(patience)->sequence() == base + 1);
  CHECK(bus.subscribe({.name = "oldest"}).take(patience)->sequence() == base + 8);
  CHECK(bus.subscribe({.name = "most-once"}).take(patience)->sequence() == base + 8);
}
