// Dead letters are published, each once, to a topic of their own.
#include <doctest/doctest.h>

#include "ackring/error.hpp"
#include "lib/client/headers_codec.hpp"
#include "tests/exchange/retry_world.hpp"

namespace ackring::test {
namespace {

SubscriptionOptions with_topic(const std::string& topic) {
  SubscriptionOptions options = exact();
  options.dead_letter_topic = topic;
  return options;
}

// The headers of the delivery of this entry, from the ring of a member.
Headers headers_of(World& world, const CoreMember& member, std::uint64_t entry) {
  const ring::EventParts event = ring::parts(world.x->find_queue(member.name)->lane.record_of(entry));
  return client::decode_headers({event.headers, event.header->headers_bytes});
}

std::string header(const Headers& headers, const std::string& name) {
  for (const auto& [found, value] : headers) {
    if (found == name) return value;
  }
  return "";
}

void reject_all(CoreMember& member) {
  Seen seen;
  while (member.take(seen)) member.reject(seen.entry, "no good");
}

}  // namespace

TEST_CASE("a dead letter is published to the dead-letter topic, with headers that say whose it is and why") {
  World world;
  CorePublisher publisher = world.publisher("app");
  CoreMember member = world.member("orders", {"orders.#"}, with_topic("dead.orders"));
  CoreMember watcher = world.member("watch", {"dead.#"});
  publisher.add("orders.eu", "payload", "key");
  publisher.commit();
  world.run();
  reject_all(member);
  world.tick();
  Seen seen;
  REQUIRE(watcher.take(seen));
  CHECK(seen.payload == "payload");
  CHECK(seen.key == "key");
  CHECK(seen.sequence == 1);
  CHECK(seen.attempt == 1);
  const Headers headers = headers_of(world, watcher, seen.entry);
  CHECK(header(headers, "dead-letter-subscription") == "orders");
  CHECK(header(headers, "dead-letter-reason") == "rejected: no good");
  CHECK(header(headers, "dead-letter-topic") == "orders.eu");
  CHECK(header(headers, "dead-letter-publisher") == "app");
  CHECK(header(headers, "dead-letter-sequence") == "1");
  CHECK(header(headers, "dead-letter-delivery") == "1");
  CHECK(header(headers, "dead-letter-attempts") == "1");
  CHECK_FALSE(watcher.take(seen));
  CHECK(dead_letters(world, "orders").size() == 1);
  world.stat();
  watcher.verdict(seen.entry, ring::Verdict::ack);
}

TEST_CASE("letters are published once, over restarts, and from the moment on at which there is a topic") {
  World world;
  CorePublisher publisher = world.publisher("app");
  SubscriptionOptions options = exact();
  CoreMember member = world.member("orders", {"orders"}, options);
  CoreMember watcher = world.member("watch", {"dead.#"});
  publisher.publish("orders", "before");
  world.run();
  reject_all(member);
  world.tick();
  options = with_topic("dead.a");
  options.name = "orders";
  world.x->update_subscription(options, {"dead_letter_topic"});
  std::vector<std::string> seen_payloads;
  Seen seen;
  for (int i = 0; i < 6; ++i) {
    publisher.publish("orders", std::to_string(i));
    world.run();
    reject_all(member);
    world.tick();
    if (i == 3) {
      options.dead_letter_topic = "dead.b";
      world.x->update_subscription(options, {"dead_letter_topic"});
    }
    if (i % 2 == 0) world.restart();
    world.tick();
    while (watcher.take(seen)) {
      seen_payloads.push_back(seen.payload);
      CHECK(seen.sequence == seen_payloads.size());
      watcher.verdict(seen.entry, ring::Verdict::ack);
    }
  }
  CHECK(seen_payloads == std::vector<std::string>{"0", "1", "2", "3", "4", "5"});
  world.tick();
  const auto stat = world.stat();
  CHECK(row_of(stat, "watch")["acked"] == 6);
  bool found = false;
  for (const auto& row : stat["publishers"]) {
    if (row["name"] != "@dead-letters") continue;
    found = true;
    CHECK(row["routed"] == 6);
    CHECK(row["in_ring"] == 0);
  }
  CHECK(found);
}

TEST_CASE("a dead-letter topic by which letters could come back is refused, whichever way round") {
  World world;
  const auto create = [&](const std::string& name, const std::string& pattern, const std::string& topic) {
    SubscriptionOptions options = with_topic(topic);
    options.name = name;
    options.patterns = {pattern};
    world.x->create_subscription(options, false);
  };
  CHECK_THROWS_AS(create("itself", "#", "dead"), Error);
  create("a", "a.#", "b.dead");
  create("b", "b.#", "c.dead");
  CHECK_THROWS_AS(create("c", "c.#", "a.dead"), Error);
  create("c", "c.#", "d");
  SubscriptionOptions options = with_topic("a.dead");
  options.name = "c";
  CHECK_THROWS_AS(world.x->update_subscription(options, {"dead_letter_topic"}), Error);
  CHECK(world.x->find_queue("c")->options.dead_letter_topic == "d");
  options.patterns = {"c.#", "d"};
  CHECK_THROWS_AS(world.x->update_subscription(options, {}), Error);
  CHECK(world.x->find_queue("c")->options.patterns.size() == 1);
  CHECK_THROWS_AS(create("bad", "x", "not a topic"), Error);
  CHECK_THROWS_AS(world.publisher("@dead-letters"), Error);
}

TEST_CASE("a watcher that is full holds letters back; none is lost") {
  World world;
  CorePublisher publisher = world.publisher("app", 1 << 20);
  SubscriptionOptions options = with_topic("dead");
  options.ring_bytes = 1 << 20;
  CoreMember member = world.member("orders", {"orders"}, options);
  SubscriptionOptions few;
  few.name = "watch";
  few.patterns = {"dead"};
  few.max_events = 3;
  few.ring_bytes = 1 << 20;
  world.x->create_subscription(few, false);
  const std::string large(100'000, 'x');
  std::uint64_t published = 0;
  for (int i = 0; i < 60; ++i) {
    published += publisher.publish("orders", large) ? 1 : 0;
    world.tick();
    reject_all(member);
    world.tick();
  }
  CHECK(published == 60);
  auto row = row_of(world.stat(), "watch");
  CHECK(row["queued"] == 3);
  CHECK(row_of(world.stat(), "orders")["dlq_size"] == 60);
  world.restart();
  CoreMember watcher = world.member("watch", {});
  std::uint64_t seen_letters = 0;
  Seen seen;
  for (int i = 0; i < 200 && seen_letters < published; ++i) {
    while (watcher.take(seen)) {
      CHECK(seen.sequence == ++seen_letters);
      CHECK(seen.payload == large);
      watcher.verdict(seen.entry, ring::Verdict::ack);
    }
    world.tick();
  }
  CHECK(seen_letters == published);
}

TEST_CASE("letters that are requeued or purged before they are published are published all the same") {
  for (const bool purged : {false, true}) {
    CAPTURE(purged);
    World world;
    CorePublisher publisher = world.publisher("app", 1 << 20);
    SubscriptionOptions options = with_topic("dead");
    options.ring_bytes = 1 << 20;
    CoreMember member = world.member("orders", {"orders"}, options);
    SubscriptionOptions few;
    few.name = "watch";
    few.patterns = {"dead"};
    few.max_events = 3;
    few.ring_bytes = 1 << 20;
    world.x->create_subscription(few, false);
    const std::string large(100'000, 'x');
    constexpr std::uint64_t letters = 60;  // more than the ring of the exchange's own publisher holds
    for (std::uint64_t i = 0; i < letters; ++i) {
      REQUIRE(publisher.publish("orders", large));
      world.tick();
      reject_all(member);
      world.tick();
    }
    exchange::Queue* orders = world.x->find_queue("orders");
    REQUIRE(orders->block.dead_events == letters);
    if (purged) {
      while (world.x->purge_dead(*orders, {}).done != 0) {
      }
      CHECK(orders->block.dead_removed == letters);
      world.x->detach_member(orders->lane);
      world.x->end_subscription(*orders);
      world.tick();
    } else {
      while (world.x->requeue_dead(*orders, {}, world.now_ns).done != 0) {
      }
      CHECK(orders->block.requeued == letters);
    }
    world.restart();
    world.tick();
    CHECK(world.x->find_queue("orders") != nullptr);  // it has something to say
    CoreMember watcher = world.member("watch", {});
    std::uint64_t seen_letters = 0;
    Seen seen;
    for (int i = 0; i < 200 && seen_letters < letters; ++i) {
      while (watcher.take(seen)) {
        CHECK(seen.sequence == ++seen_letters);
        watcher.verdict(seen.entry, ring::Verdict::ack);
      }
      world.tick();
    }
    CHECK(seen_letters == letters);
    world.tick();
    if (purged) {
      CHECK(world.x->find_queue("orders") == nullptr);
    } else {
      CHECK(world.x->find_queue("orders")->dead.file_bytes() == 0);
    }
    world.stat();
  }
}

}  // namespace ackring::test
