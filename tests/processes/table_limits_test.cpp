// The tables of a bus: 1,024 publishers, 16,384 subscriptions and members, 1,048,576 topics; at the limit and past it.
#include "tests/processes/support.hpp"

#include <optional>

#include "lib/exchange/exchange.hpp"
#include "lib/shm/directory.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::no_space);
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("1,024 publishers; the 1,025th is told so; a place that was left is given again") {
  if (!raise_descriptors(8'000)) return;
  Bus bus = Bus::in_memory();
  Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"#"}});
  std::vector<Publisher> publishers;
  for (std::size_t i = 0; i < limits::publishers; ++i) {
    publishers.push_back(bus.publisher({.name = i % 2 == 0 ? "p" + std::to_string(i) + "x" : "", .ring_bytes = 4096}));
  }
  CHECK(refusal([&] { (void)bus.publisher({.ring_bytes = 4096}); }).find("1,024") != std::string::npos);
  CHECK(refusal([&] { (void)bus.publisher({.name = "late", .ring_bytes = 4096}); }).find("1,024") != std::string::npos);
  for (Publisher& publisher : publishers) REQUIRE(publisher.publish("t", "x") == Outcome::ok);
  for (std::size_t i = 0; i < limits::publishers; ++i) {
    auto delivery = subscriber.take(patience);
    REQUIRE(delivery);
    REQUIRE(delivery->ack() == Outcome::ok);
  }
  publishers.pop_back();  // an anonymous one
  // The exchange gives a place again once it has seen that the ring is drained: at its next tick.
  std::optional<Publisher> heir;
  REQUIRE(eventually([&] {
    try {
      heir.emplace(bus.publisher({.ring_bytes = 4096}));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::no_space);
    }
    return heir.has_value();
  }));
  CHECK(heir->publish("t", "again") == Outcome::ok);
  auto again = subscriber.take(patience);
  REQUIRE(again);
  CHECK(again->text() == "again");
}

TEST_CASE("16,384 subscriptions; the next is told so; all of them are there after a restart") {
  const TemporaryDirectory temporary("subscriptions");
  const auto options = [](std::size_t i) {
    SubscriptionOptions result;
    result.name = "s" + std::to_string(i);
    result.patterns = {"t." + std::to_string(i)};
    return result;
  };
  {
    shm::FileDirectory directory(temporary.path() + "/bus", true);
    exchange::Exchange exchange(directory);
    for (std::size_t i = 0; i < limits::subscriptions; ++i) exchange.create_subscription(options(i), false);
    CHECK(refusal([&] { exchange.create_subscription(options(limits::subscriptions), false); }).find("16,384") !=
          std::string::npos);
    exchange.remove_subscription(*exchange.find_queue("s7"));
    CHECK_NOTHROW(exchange.create_subscription(options(limits::subscriptions), false));
  }
  shm::FileDirectory directory(temporary.path() + "/bus", false);
  exchange::Exchange exchange(directory);
  CHECK(exchange.find_queue("s7") == nullptr);
  CHECK(exchange.find_queue("s16384") != nullptr);
  CHECK(refusal([&] { exchange.create_subscription(options(7), false); }).find("16,384") != std::string::npos);
}

TEST_CASE("1,048,576 topics of one publisher; the next is refused, known ones go on") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"last.#"}});
  for (std::size_t i = 1; i < limits::topics; ++i) {
    REQUIRE(publisher.publish_wait("t." + std::to_string(i), {}, patience) == Outcome::ok);
  }
  CHECK(publisher.publish_wait("last.one", {}, patience) == Outcome::ok);
  CHECK(publisher.publish("one.more", "") == Outcome::too_many_topics);
  CHECK(publisher.publish_wait("last.one", as_bytes("again"), patience) == Outcome::ok);
  CHECK(publisher.publish_wait("t.1", {}, patience) == Outcome::ok);
  CHECK(publisher.flush(patience) == Outcome::ok);
  const auto next = [&]() -> std::string {
    auto delivery = subscriber.take(patience);
    if (!delivery) return "nothing";
    std::string text(delivery->text());
    CHECK(delivery->ack() == Outcome::ok);
    return text;
  };
  CHECK(next().empty());
  CHECK(next() == "again");
  // Others learn it from the exchange; what the bus knows already is theirs as well.
  Publisher other = bus.publisher();
  CHECK(other.publish_wait("t.1", {}, patience) == Outcome::ok);
  for (int i = 0; i < 2; ++i) {
    CHECK(other.publish_wait("one.more", {}, patience) == Outcome::too_many_topics);
    CHECK(other.publish_wait("last.one", as_bytes("other"), patience) == Outcome::ok);
    CHECK(next() == "other");
  }
  CHECK(other.publish("one.more", "") == Outcome::too_many_topics);
  const Json stat = Json::parse(bus.stat_json());
  check_books(stat);
  CHECK(stat.at("publishers").at(1).at("committed") == 3);
  CHECK(stat.at("publishers").at(1).at("discarded") == 0);
  CHECK(stat.at("publishers").at(0).at("unroutable") == limits::topics);
}
