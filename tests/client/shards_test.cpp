// An exchange of four shards on threads of their own, and clients on others that publish, take and operate all the while: for
// ThreadSanitizer above all. What the shards do to events: tests/exchange/shards_test.cpp.
#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "ackring/ackring.hpp"
#include "tests/client/hosted_bus.hpp"

using namespace ackring;
using namespace std::chrono_literals;
using Json = nlohmann::json;

namespace {

struct Scene : test::HostedBus {
  void begin(std::size_t shards, Wait wait = Wait::adaptive) {
    exchange::HostOptions options;
    options.shards = shards;
    options.wait = wait;
    start(options);
  }
};

Json row_of(const Json& stat, const std::string& name) {
  for (const Json& row : stat.at("subscriptions")) {
    if (row.at("name") == name) return row;
  }
  return nullptr;
}

SubscriptionOptions everything(const std::string& name) {
  SubscriptionOptions options;
  options.name = name;
  options.patterns = {"t.#"};
  options.backoff_initial = options.backoff_max = 1ms;
  return options;
}

Bytes bytes_of(const std::uint64_t& number) { return std::as_bytes(std::span(&number, 1)); }

// Takes `events` of each of `publishers`, nacking one in 50 the first time: all come, the first ones in order.
void consume(const Scene& scene, const std::string& name, std::uint64_t events, unsigned publishers) {
  Bus bus = scene.bus();
  Subscriber subscriber = bus.subscribe(everything(name));
  std::map<std::string, std::uint64_t> last;
  std::uint64_t acked = 0;
  while (acked < events * publishers) {
    auto delivery = subscriber.take(20s);
    REQUIRE(delivery);
    std::uint64_t number = 0;
    REQUIRE(delivery->payload().size() == sizeof number);
    std::memcpy(&number, delivery->payload().data(), sizeof number);
    if (delivery->attempt() == 1) {
      std::uint64_t& before = last[std::string(delivery->topic())];
      CHECK(number == before + 1);
      before = number;
      if (number % 50 == 0) {
        CHECK(delivery->nack() == Outcome::ok);
        continue;
      }
    }
    CHECK(delivery->ack() == Outcome::ok);
    ++acked;
  }
}

}  // namespace

TEST_CASE("four shards on threads: publishers, members and operators at once lose nothing, and the books agree") {
  Scene scene;
  scene.begin(4);
  constexpr unsigned publishers = 3;
  constexpr unsigned subscriptions = 6;
  constexpr std::uint64_t events = 1500;
  {
    Bus bus = scene.bus();
    for (unsigned i = 0; i < subscriptions; ++i) bus.create_subscription(everything("s" + std::to_string(i)));
  }
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> rounds{0};  // of the operator
  std::vector<std::thread> threads;
  for (unsigned p = 0; p < publishers; ++p) {
    threads.emplace_back([&scene, &rounds, p] {
      Bus bus = scene.bus();
      Publisher publisher = bus.publisher({.name = "p" + std::to_string(p), .ring_bytes = 16384});
      const std::string topic = "t.p" + std::to_string(p);
      for (std::uint64_t n = 1; n <= events; ++n) {
        // No faster than the operator, so that there are events all the while.
        while (rounds.load(std::memory_order_relaxed) * (events / 10) + 100 < n) std::this_thread::sleep_for(100us);
        REQUIRE(publisher.publish_wait(topic, bytes_of(n), 20s) == Outcome::ok);
      }
      CHECK(publisher.flush(20s) == Outcome::ok);
    });
  }
  for (unsigned i = 0; i < subscriptions; ++i) {
    threads.emplace_back([&scene, i] { consume(scene, "s" + std::to_string(i), events, publishers); });
  }
  // What changes the structure of the bus, and what looks at all of it.
  std::thread operators([&scene, &done, &rounds] {
    Bus bus = scene.bus();
    while (!done.load(std::memory_order_relaxed)) {
      const std::string name = "o" + std::to_string(rounds.fetch_add(1, std::memory_order_relaxed) % 5);
      bus.create_subscription(everything(name));
      bus.pause_subscription(name);
      {
        Publisher publisher = bus.publisher({.ring_bytes = 4096});
        (void)publisher.publish("o.x", Bytes{});
      }
      (void)bus.purge_subscription(name);
      bus.resume_subscription(name);
      {
        SubscriptionOptions options;
        options.patterns = {"o.#"};
        Subscriber ephemeral = bus.subscribe(options);
        (void)ephemeral.take(1ms);
      }
      const Json stat = Json::parse(bus.stat_json());
      for (const Json& row : stat.at("subscriptions")) {
        std::uint64_t places = row.at("expired").get<std::uint64_t>();
        for (const char* place :
             {"acked", "queued", "in_flight", "retry_waiting", "dlq_size", "dlq_removed", "purged"}) {
          places += row.at(place).get<std::uint64_t>();
        }
        INFO(row.dump());
        CHECK(places == row.at("matched").get<std::uint64_t>());
      }
      bus.remove_subscription(name, Pending::drop);
    }
  });
  for (std::thread& thread : threads) thread.join();
  done.store(true, std::memory_order_relaxed);
  operators.join();
  CHECK(rounds.load(std::memory_order_relaxed) >= 10);
  scene.stop();
}

TEST_CASE("shards that sleep are woken by publishers, by acks and by the end of a delay") {
  for (const Wait wait : {Wait::park, Wait::adaptive}) {
    Scene scene;
    scene.begin(3, wait);
    Bus bus = scene.bus();
    std::vector<Subscriber> subscribers;
    for (int i = 0; i < 3; ++i) subscribers.push_back(bus.subscribe(everything("s" + std::to_string(i))));
    const Json stat = Json::parse(bus.stat_json());
    CHECK(row_of(stat, "s0").at("shard") != row_of(stat, "s1").at("shard"));
    Publisher publisher = bus.publisher({.name = "p"});
    const auto begin = std::chrono::steady_clock::now();
    constexpr int wake_ups = 20;
    for (int round = 0; round < wake_ups; ++round) {
      std::this_thread::sleep_for(3ms);  // longer than anybody yields
      REQUIRE(publisher.publish("t", Bytes{}) == Outcome::ok);
      for (Subscriber& subscriber : subscribers) {
        auto delivery = subscriber.take(10s);
        REQUIRE(delivery);
        if (round % 5 != 0) {
          CHECK(delivery->ack() == Outcome::ok);
          continue;
        }
        CHECK(delivery->nack() == Outcome::ok);
        delivery = subscriber.take(10s);
        REQUIRE(delivery);
        CHECK(delivery->attempt() == 2);
        CHECK(delivery->ack() == Outcome::ok);
      }
    }
    // A wake-up that is lost shows as a park of a second, and there would be many.
    CHECK(std::chrono::steady_clock::now() - begin < wake_ups * 500ms);
    scene.stop();
  }
}

TEST_CASE("another number of shards at each start: subscriptions and what waits in them stay") {
  Scene scene;
  std::uint64_t published = 0;
  for (const std::size_t shards : {2u, 4u, 1u, 3u, 2u}) {
    scene.begin(shards);
    Bus bus = scene.bus();
    if (published == 0) {
      for (int i = 0; i < 5; ++i) bus.create_subscription(everything("s" + std::to_string(i)));
    }
    Publisher publisher = bus.publisher({.name = "p"});
    for (int i = 0; i < 100; ++i) {
      ++published;
      REQUIRE(publisher.publish_wait("t", bytes_of(published), 10s) == Outcome::ok);
    }
    REQUIRE(publisher.flush(10s) == Outcome::ok);
    const Json stat = Json::parse(bus.stat_json());
    CHECK(stat.at("exchange").at("shards") == shards);
    for (int i = 0; i < 5; ++i) CHECK(row_of(stat, "s" + std::to_string(i)).at("queued") == published);
    scene.stop();
  }
  scene.begin(2);
  for (int i = 0; i < 5; ++i) {
    Bus bus = scene.bus();
    Subscriber subscriber = bus.subscribe(everything("s" + std::to_string(i)));
    for (std::uint64_t n = 1; n <= published; ++n) {
      auto delivery = subscriber.take(10s);
      REQUIRE(delivery);
      std::uint64_t number = 0;
      std::memcpy(&number, delivery->payload().data(), sizeof number);
      REQUIRE(number == n);
      CHECK(delivery->ack() == Outcome::ok);
    }
  }
}
