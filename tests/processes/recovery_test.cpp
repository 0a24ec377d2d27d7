// How soon an exchange that died with 1,000 subscriptions and 10,000 topics serves again.
#include "tests/processes/support.hpp"

#include <memory>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::size_t subscriptions = 1'000;
constexpr std::size_t topics = 10'000;
constexpr int rounds = 9;

std::string topic_of(std::size_t i) { return "t." + std::to_string(i % subscriptions) + "." + std::to_string(i); }

// One event on each topic, so that each subscription has ten. Then, for each word of the parent: an event that it
// publishes while nobody serves the bus, and the time when that was routed.
void give(Channel& channel, const std::string& directory, bool members) {
  Bus bus = open_bus(directory);
  std::vector<Subscriber> subscribers;
  for (std::size_t i = 0; i < subscriptions; ++i) {
    SubscriptionOptions options;
    options.name = "s" + std::to_string(i);
    options.patterns = {"t." + std::to_string(i) + ".#"};
    options.ring_bytes = 64u << 10;  // a thousand of the usual size would need 4 GiB
    if (members) {
      subscribers.push_back(bus.subscribe(options));
    } else {
      bus.create_subscription(options);
    }
  }
  Publisher publisher = bus.publisher({.name = "p"});
  for (std::size_t i = 0; i < topics; ++i) {
    require(publisher.publish_wait(topic_of(i), as_bytes("x"), patience) == Outcome::ok, "an event was not published");
  }
  require(publisher.flush(patience) == Outcome::ok, "the events were not routed");
  channel.send({{"ready", true}});
  while (!channel.expect(patience, "a word").contains("end")) {
    require(publisher.publish(topic_of(0), as_bytes("y")) == Outcome::ok, "an event was not published");
    channel.send({{"published", true}});
    require(publisher.flush(patience) == Outcome::ok, "the event was not routed");
    channel.send({{"routed_ns", now_ns()}});
  }
}

void measure(const std::string& what, bool members) {
  if (!raise_descriptors(4'000)) return;
  const TemporaryDirectory temporary("recovery");
  auto exchange = std::make_unique<ExchangeProcess>(temporary.path());
  Child giver = Child::start("giver", [&](Channel& channel) { give(channel, temporary.path(), members); });
  giver.channel().expect(patience, "the events");
  std::vector<double> ready;
  std::vector<double> routed;
  for (int i = 0; i < rounds; ++i) {
    exchange->kill();
    giver.channel().send({{"go", true}});
    giver.channel().expect(patience, "an event");
    const std::int64_t start = now_ns();
    exchange = std::make_unique<ExchangeProcess>(temporary.path());
    ready.push_back(static_cast<double>(now_ns() - start) / 1e6);
    const auto end = giver.channel().expect(patience, "its way").at("routed_ns").get<std::int64_t>();
    routed.push_back(static_cast<double>(end - start) / 1e6);
  }
  MESSAGE(what << ": ackring-exchange is ready after " << median(ready) << " ms (median of " << rounds << "), longest "
               << largest(ready) << " ms; routes what waited after " << median(routed) << " ms, longest "
               << largest(routed) << " ms");
  // The aim is 50 ms on a quiet machine; this bound is for one that builds something at the same time.
  CHECK(median(routed) < 500);
  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  CHECK(stat.at("subscriptions").size() == subscriptions);
  CHECK(row_of(stat, "subscriptions", "s0").at("matched") == topics / subscriptions + rounds);
  CHECK(row_of(stat, "subscriptions", "s999").at("queued") == topics / subscriptions);
  giver.channel().send({{"end", true}});
  CHECK(giver.wait(patience) == 0);
  CHECK(exchange->stop() == 0);
}

}  // namespace

TEST_CASE("an exchange with 1,000 subscriptions and 10,000 topics serves again soon after its death") {
  measure("nobody attached", false);
  measure("all attached", true);
}
