// Last values: `@last` keeps the last event of each topic, takes no more room than about twice that, and a subscription
// that begins with them gets each once, in the order in which they were published, and then what comes.
#include <set>

#include "ackring/error.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t ms = 1'000'000;

using Texts = std::vector<std::string>;

void keep(World& world, const std::string& pattern = "#", std::uint64_t max_events = 1'000'000) {
  SubscriptionOptions options;
  options.name = last_values_name;
  options.patterns = {pattern};
  options.max_events = max_events;
  world.x->create_subscription(options, false);
}

SubscriptionOptions from_last() {
  SubscriptionOptions options;
  options.from = StartFrom::last_values;
  return options;
}

Texts take_all(CoreMember& member) {
  Texts texts;
  for (Seen seen; member.take(seen);) texts.push_back(seen.payload);
  return texts;
}

}  // namespace

TEST_CASE("a subscription may begin with the last event of each topic that it matches") {
  World world;
  keep(world);
  auto publisher = world.publisher();
  std::uint64_t at = 0;
  for (const char* topic : {"a.x", "a.y", "b.x", "a.x", "a.z", "a.y"}) {
    publisher.published_ns = ++at;
    publisher.publish(topic, std::string(topic) + std::to_string(at));
  }
  world.run();
  auto member = world.member("s", {"a.*"}, from_last());
  world.run();
  CHECK(take_all(member) == Texts{"a.x4", "a.z5", "a.y6"});
  publisher.publish("a.x", "new");
  world.run();
  CHECK(take_all(member) == Texts{"new"});
  CHECK(row_of(world.stat(), "s")["matched"] == 4);

  auto late = world.member("s2", {"#"});
  world.run();
  CHECK(take_all(late).empty());
  world.restart();
  auto group = from_last();
  group.group = group.ordered_by_key = true;
  auto later = world.member("g", {"a.#", "b.#"}, group);
  world.tick();
  CHECK(take_all(later) == Texts{"b.x3", "a.z5", "a.y6", "new"});
}

TEST_CASE("who joins a subscription that is there gets what is in it, whatever he would begin with") {
  World world;
  keep(world);
  auto publisher = world.publisher();
  publisher.publish("a", "1");
  world.run();
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  auto member = world.member("s", {}, from_last());
  world.run();
  CHECK(take_all(member).empty());
}

TEST_CASE("without last values nothing can begin with them, and nothing is left of what tried") {
  World world;
  const auto files = world.directory->list("").size();
  CHECK_THROWS_WITH_AS(world.member("s", {"#"}, from_last()), doctest::Contains("keeps no last values"), Error);
  CHECK_THROWS_AS(world.member("", {"#"}, from_last()), Error);
  CHECK(world.x->find_queue("s") == nullptr);
  CHECK(world.directory->list("").size() == files);
  CHECK_THROWS_WITH_AS(world.member("@last", {"#"}), doctest::Contains("consumes it"), Error);

  keep(world);
  auto publisher = world.publisher();
  for (const char* topic : {"a", "b", "c"}) publisher.publish(topic, topic);
  world.run();
  auto options = from_last();
  options.max_events = 2;
  CHECK_THROWS_WITH_AS(world.member("s", {"#"}, options), doctest::Contains("more than its limits"), Error);
  CHECK(world.x->find_queue("s") == nullptr);
  world.x->remove_subscription(*world.x->find_queue("@last"));
  CHECK_THROWS_AS(world.member("s", {"#"}, from_last()), Error);
  world.stat();
}

TEST_CASE("what is kept takes about twice the room of the last values, through restarts, and is in the books") {
  World world;
  keep(world);
  auto publisher = world.publisher("p", 4u << 20);
  const std::string payload(1'000, 'x');
  constexpr std::uint64_t topics = 500;
  constexpr std::uint64_t rounds = 40;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (std::uint64_t topic = 0; topic < topics; ++topic) {
      publisher.published_ns = round * topics + topic + 1;
      // Some are written once, and have to be moved again and again.
      if (round != 0 && topic % 5 == 0) continue;
      REQUIRE(publisher.publish("t." + std::to_string(topic), std::to_string(round) + " " + payload));
      if (topic % 50 == 0) world.tick();
    }
    world.tick();
    if (round % 10 == 3) world.restart();
    const auto& block = world.x->find_queue("@last")->block;
    CHECK(block.backlog_bytes <= 2 * topics * 1'072 + (256u << 10));
    CHECK(block.backlog_events >= topics);
    world.stat();
  }
  CHECK(world.x->find_queue("@last")->backlog.file_bytes() <= 2 * topics * 1'072 + (3u << 20));
  auto member = world.member("s", {"#"}, from_last());
  std::set<std::string> first_words;
  std::uint64_t count = 0;
  for (int i = 0; i < 50; ++i) {
    world.tick();
    for (Seen seen; member.take(seen); ++count) {
      first_words.insert(seen.payload.substr(0, seen.payload.find(' ')));
      member.ack_through(seen.entry);
    }
  }
  CHECK(count == topics);
  CHECK(first_words == std::set<std::string>{"0", std::to_string(rounds - 1)});
}

TEST_CASE("the topics that were published to the longest time ago are forgotten when there are too many") {
  World world;
  keep(world, "#", 10);
  auto publisher = world.publisher();
  for (std::uint64_t i = 1; i <= 50; ++i) {
    publisher.published_ns = i;
    publisher.publish("t." + std::to_string(i), std::to_string(i));
    world.run();
  }
  auto member = world.member("s", {"#"}, from_last());
  world.run();
  CHECK(take_all(member) == Texts{"41", "42", "43", "44", "45", "46", "47", "48", "49", "50"});
  CHECK(row_of(world.stat(), "@last")["dropped"]["drop-oldest"] == 40);
  SubscriptionOptions fewer;
  fewer.name = last_values_name;
  fewer.max_events = 3;
  world.x->update_subscription(fewer, {"max_events"});
  world.run();
  CHECK(row_of(world.stat(), "@last")["queued"] == 3);
}

TEST_CASE("what has expired is nobody's beginning, what is delayed comes when it is time, and a purge forgets") {
  World world;
  keep(world);
  auto publisher = world.publisher();
  publisher.publish("a", "expires", {world.now_ns + 50 * ms, 0});
  publisher.publish("b", "later", {0, world.now_ns + 100 * ms});
  publisher.publish("c", "stays");
  world.tick(60 * ms);
  auto member = world.member("s", {"#"}, from_last());
  world.tick();
  CHECK(take_all(member) == Texts{"stays"});
  world.tick();
  CHECK(row_of(world.stat(), "s")["queued"] == 1);
  for (int i = 0; i < 10; ++i) world.tick();
  CHECK(take_all(member) == Texts{"later"});
  CHECK(world.x->purge(*world.x->find_queue("@last"), world.now_ns) == 2);
  world.run();
  publisher.publish("c", "again");
  world.run();
  auto next = world.member("s2", {"#"}, from_last());
  world.run();
  CHECK(take_all(next) == Texts{"again"});
  world.stat();
}
