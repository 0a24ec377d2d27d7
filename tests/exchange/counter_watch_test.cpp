// CounterWatch: what an operator is told of counters, and how often.
#include "lib/exchange/counter_watch.hpp"

#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;
using exchange::CounterWatch;
using exchange::Notice;

namespace {

constexpr std::uint64_t second = 1'000'000'000;

struct Watched {
  World world;
  std::vector<Notice> told;
  std::unique_ptr<CounterWatch> watch;

  void begin() {
    watch = std::make_unique<CounterWatch>(*world.x, [this](const Notice& notice) { told.push_back(notice); });
  }
  exchange::Queue& create(const std::string& name, Overflow overflow) {
    SubscriptionOptions options;
    options.name = name;
    options.patterns = {"#"};
    options.overflow = overflow;
    options.max_events = 3;
    return world.x->create_subscription(options, false);
  }
  void publish(int events) {
    auto publisher = world.publisher();
    for (int i = 0; i < events; ++i) REQUIRE(publisher.publish("a", "x"));
    world.run();
  }
  /// One tick, which is enough for all of so few; what came of it.
  std::vector<Notice> look(std::uint64_t now_ns) {
    told.clear();
    watch->tick(now_ns);
    return told;
  }
};

std::uint64_t number(const Notice& notice, std::string_view field) {
  for (const auto& [name, value] : notice.fields) {
    if (field == name) return std::get<std::uint64_t>(value);
  }
  FAIL("no field ", field);
  return 0;
}

}  // namespace

TEST_CASE("drops are told at once, and then every ten seconds with how many came since") {
  Watched watched;
  watched.create("old", Overflow::drop_newest);
  watched.publish(5);
  watched.begin();  // what was dropped before is told by nobody
  CHECK(watched.look(100 * second).empty());
  watched.publish(4);
  CHECK(watched.look(100 * second + second / 2).empty());  // the next look is a second after the last one
  auto told = watched.look(101 * second);
  REQUIRE(told.size() == 1);
  CHECK(told[0].event == std::string_view("subscription.dropped"));
  CHECK(told[0].text == "subscription old: 4 events were dropped: its backlog was full");
  CHECK(number(told[0], "events") == 4);
  CHECK(number(told[0], "total") == 6);
  for (int i = 0; i < 8; ++i) {
    watched.publish(1);
    CHECK(watched.look((102 + i) * second).empty());
  }
  told = watched.look(111 * second);
  REQUIRE(told.size() == 1);
  CHECK(number(told[0], "events") == 8);
  watched.publish(1);
  CHECK(watched.look(112 * second).empty());
  watched.told.clear();
  watched.watch->finish(113 * second);  // at the end all is told
  REQUIRE(watched.told.size() == 1);
  CHECK(number(watched.told[0], "events") == 1);
}

TEST_CASE(
    "a subscription that is made later is told of from its first event on, also where another one had its place") {
  Watched watched;
  watched.begin();
  exchange::Queue& first = watched.create("first", Overflow::drop_newest);
  watched.publish(5);
  CHECK(watched.look(1 * second).size() == 1);
  watched.world.x->remove_subscription(first);
  watched.create("second", Overflow::drop_newest);
  watched.publish(4);
  const auto told = watched.look(2 * second);
  REQUIRE(told.size() == 1);
  CHECK(told[0].text == "subscription second: 1 events were dropped: its backlog was full");
}

TEST_CASE("many subscriptions are looked at in several ticks, and each once a second") {
  Watched watched;
  watched.begin();
  for (std::size_t i = 0; i < CounterWatch::looks_per_tick + 10; ++i) {
    watched.create("s" + std::to_string(i), Overflow::drop_newest);
  }
  watched.publish(4);
  const std::size_t first = watched.look(1 * second).size();
  CHECK(first < CounterWatch::looks_per_tick + 1);
  CHECK(first + watched.look(1 * second).size() == CounterWatch::looks_per_tick + 10);
  CHECK(watched.look(1 * second).empty());
}

TEST_CASE("publishers that wait for a full backlog are told of, and that they do so no more") {
  Watched watched;
  watched.begin();
  exchange::Queue& queue = watched.create("s", Overflow::block);
  watched.publish(2);
  CHECK(watched.look(1 * second).empty());
  watched.publish(3);
  auto told = watched.look(2 * second);
  REQUIRE(told.size() == 1);
  CHECK(told[0].event == std::string_view("subscription.blocked"));
  CHECK(watched.look(3 * second).empty());
  CHECK(watched.look(12 * second).size() == 1);  // still
  watched.world.x->purge(queue, watched.world.now_ns);
  told = watched.look(22 * second);
  REQUIRE(told.size() == 1);
  CHECK(told[0].event == std::string_view("subscription.unblocked"));
  CHECK(watched.look(40 * second).empty());
}
