// Many processes at once: 20 publishers, 50 subscribers, 10,000 topics, events of 0 bytes to the largest.
//
// What an event is follows from its publisher and sequence alone, so that every subscriber knows what must come to it
// without asking the library: its own idea of a match is arithmetic on the topic's number.
#include "tests/processes/support.hpp"

#include <array>
#include <memory>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t publishers = 20;
constexpr std::uint64_t subscribers = 50;
constexpr std::uint64_t topics = 10'000;
constexpr std::uint64_t regions = 10;
constexpr std::uint64_t kinds = 20;
constexpr std::uint64_t picked = 64;  // patterns of a subscriber that wants single topics

// SplitMix64, by Sebastiano Vigna (public domain).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

struct Plan {
  std::uint64_t number;  // over all publishers
  std::uint64_t topic;
  std::size_t bytes;  // of payload and key together
  std::string key;
};

Plan plan(std::uint64_t publisher, std::uint64_t sequence, std::size_t largest_event) {
  Plan plan{};
  plan.number = (sequence - 1) * publishers + publisher;
  plan.topic = plan.number * 7919 % topics;  // 7919 and 10,000 have no common divisor: all topics are used
  const std::uint64_t dice = mix(plan.number);
  if (sequence % 500 == 3) {
    plan.bytes = largest_event;
  } else if (dice % 8 == 0) {
    plan.bytes = 0;
  } else {
    plan.bytes = dice % 16 == 1 ? dice / 16 % 20'000 : dice / 16 % 500;
  }
  if (plan.number % 3 == 0) plan.key = std::to_string(plan.number);
  if (plan.key.size() > plan.bytes) plan.key.clear();
  return plan;
}

std::string topic_text(std::uint64_t topic) {
  return "crowd.r" + std::to_string(topic % regions) + ".k" + std::to_string(topic / regions % kinds) + ".t" +
         std::to_string(topic);
}

void fill(std::vector<std::byte>& payload, std::uint64_t seed) {
  for (std::size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<std::byte>((seed + i) ^ ((seed + i) >> 7));
  }
}

std::uint64_t pick(std::uint64_t subscriber, std::uint64_t i) { return mix(subscriber * picked + i) % topics; }

std::vector<std::string> patterns_of(std::uint64_t subscriber) {
  if (subscriber == 0) return {"#"};
  if (subscriber == 1) return {"crowd.#", "crowd.r1.#"};  // two of its patterns match: still one delivery
  if (subscriber < 2 + regions) return {"crowd.r" + std::to_string(subscriber - 2) + ".#"};
  if (subscriber < 2 + regions + kinds) return {"*.*.k" + std::to_string(subscriber - 2 - regions) + ".*"};
  std::vector<std::string> patterns;
  for (std::uint64_t i = 0; i < picked; ++i) {
    const std::uint64_t topic = pick(subscriber, i);
    patterns.push_back(i % 2 == 0 ? topic_text(topic) : "#.t" + std::to_string(topic));
  }
  std::sort(patterns.begin(), patterns.end());
  patterns.erase(std::unique(patterns.begin(), patterns.end()), patterns.end());
  return patterns;
}

std::vector<bool> wanted_by(std::uint64_t subscriber) {
  std::vector<bool> wanted(topics, subscriber < 2);
  if (subscriber < 2) return wanted;
  for (std::uint64_t topic = 0; topic < topics; ++topic) {
    if (subscriber < 2 + regions) {
      wanted[topic] = topic % regions == subscriber - 2;
    } else if (subscriber < 2 + regions + kinds) {
      wanted[topic] = topic / regions % kinds == subscriber - 2 - regions;
    }
  }
  if (subscriber >= 2 + regions + kinds) {
    for (std::uint64_t i = 0; i < picked; ++i) wanted[pick(subscriber, i)] = true;
  }
  return wanted;
}

std::string publisher_name(std::uint64_t publisher) { return "crowd-" + std::to_string(publisher); }

void publish_all(Channel& channel, const std::string& directory, std::uint64_t publisher, std::uint64_t events) {
  Bus bus = open_bus(directory);
  Publisher handle = bus.publisher({.name = publisher_name(publisher)});
  channel.send({{"largest", handle.max_event_bytes()}});
  channel.expect(patience, "go");
  std::vector<std::byte> payload(handle.max_event_bytes() + 1);
  require(handle.publish("crowd.large", Bytes(payload)) == Outcome::too_large, "one byte too much was accepted");
  for (std::uint64_t sequence = 1; sequence <= events; ++sequence) {
    const Plan event = plan(publisher, sequence, handle.max_event_bytes());
    payload.resize(event.bytes - event.key.size());
    fill(payload, event.number);
    const Outcome outcome = handle.publish_wait(topic_text(event.topic), Bytes(payload), patience, {.key = event.key});
    require(outcome == Outcome::ok,
            publisher_name(publisher) + " " + std::to_string(sequence) + ": " + to_string(outcome));
  }
  require(handle.sequence() == events, "a refused event took a sequence number");
  require(handle.flush(patience) == Outcome::ok, "flush");
  channel.send({{"done", true}});
}

void take_all(Channel& channel, const std::string& directory, std::uint64_t subscriber, std::uint64_t events) {
  Bus bus = open_bus(directory);
  Subscriber handle = bus.subscribe({.name = "sub-" + std::to_string(subscriber), .patterns = patterns_of(subscriber)});
  channel.send({{"ready", true}});
  const auto largest_event = channel.expect(patience, "the largest event").at("largest").get<std::size_t>();
  const std::vector<bool> wanted = wanted_by(subscriber);
  std::array<std::uint64_t, publishers> next{};  // sequence of the next event that must come from each publisher
  const auto advance = [&](std::uint64_t publisher) {
    while (++next[publisher] <= events && !wanted[plan(publisher, next[publisher], 0).topic]) {
    }
  };
  std::uint64_t expected = 0;
  for (std::uint64_t publisher = 0; publisher < publishers; ++publisher) {
    for (std::uint64_t sequence = 1; sequence <= events; ++sequence) {
      expected += wanted[plan(publisher, sequence, 0).topic] ? 1 : 0;
    }
    advance(publisher);
  }
  std::vector<std::byte> payload;
  for (std::uint64_t count = 1; count <= expected; ++count) {
    auto delivery = handle.take(patience);
    require(delivery.has_value(), "only " + std::to_string(count - 1) + " of " + std::to_string(expected) + " came");
    const std::string id = std::string(delivery->publisher()) + "/" + std::to_string(delivery->sequence());
    require(delivery->publisher().starts_with("crowd-"), id + ": an event of a stranger");
    const std::uint64_t publisher = std::strtoull(std::string(delivery->publisher().substr(6)).c_str(), nullptr, 10);
    require(publisher < publishers && delivery->sequence() == next[publisher],
            id + " came where " + std::to_string(next[publisher]) + " was expected");
    const Plan event = plan(publisher, delivery->sequence(), largest_event);
    payload.resize(event.bytes - event.key.size());
    fill(payload, event.number);
    require(delivery->topic() == topic_text(event.topic), id + ": its topic is " + std::string(delivery->topic()));
    require(std::ranges::equal(delivery->payload(), payload), id + ": its payload is another one");
    require(delivery->key() == event.key, id + ": its key is another one");
    require(delivery->delivery() == count && delivery->attempt() == 1, id + ": delivery number or attempt is wrong");
    require(delivery->ack() == Outcome::ok, id + ": ack");
    advance(publisher);
  }
  channel.send({{"taken", expected}});
  channel.expect(patience, "the end of the run");
  require(!handle.take(20ms).has_value(), "more came than was published");
  require(handle.flush(patience) == Outcome::ok, "flush");
  channel.send({{"settled", true}});
  channel.expect(patience, "the last look at stat");
}

}  // namespace

TEST_CASE("20 publishers, 50 subscribers, 10,000 topics: every event once and in order at each") {
  // All 10,000 topics are used from 500 events per publisher on.
  const std::uint64_t events = std::max<std::uint64_t>(500, amount("ACKRING_CROWD_EVENTS", 4'000));
  const TemporaryDirectory temporary("crowd");
  ExchangeProcess exchange(temporary.path());
  const std::int64_t started = now_ns();

  std::vector<std::unique_ptr<Child>> takers;
  for (std::uint64_t i = 0; i < subscribers; ++i) {
    takers.push_back(std::make_unique<Child>(
        Child::start("crowd-sub", [&, i](Channel& channel) { take_all(channel, temporary.path(), i, events); })));
  }
  std::vector<std::unique_ptr<Child>> givers;
  for (std::uint64_t i = 0; i < publishers; ++i) {
    givers.push_back(std::make_unique<Child>(
        Child::start("crowd-pub", [&, i](Channel& channel) { publish_all(channel, temporary.path(), i, events); })));
  }
  Json largest_event;
  for (auto& taker : takers) taker->channel().expect(patience, "a subscriber");
  for (auto& giver : givers) largest_event = giver->channel().expect(patience, "a publisher");
  for (auto& taker : takers) taker->channel().send(largest_event);
  for (auto& giver : givers) giver->channel().send({{"go", true}});

  Bus bus = open_bus(temporary.path());
  std::uint64_t looks = 0;
  std::uint64_t expected = 0;
  const auto wait_for_all = [&](auto& children, auto&& each) {
    for (auto& child : children) {
      std::optional<nlohmann::json> message;
      const std::int64_t deadline = now_ns() + (4 * patience).count();
      while (!message && now_ns() < deadline) {
        message = child->channel().receive(50ms);
        if (++looks % 4 == 0) check_books(Json::parse(bus.stat_json()));
      }
      REQUIRE_MESSAGE(message, "a process did not end");
      each(*message);
    }
  };
  wait_for_all(givers, [](const Json&) {});
  std::vector<std::uint64_t> taken;
  wait_for_all(takers, [&](const Json& message) { taken.push_back(message.at("taken")); });
  for (auto& taker : takers) taker->channel().send({{"end", true}});
  wait_for_all(takers, [](const Json&) {});

  const Json stat = Json::parse(bus.stat_json());
  check_books(stat);
  for (std::uint64_t i = 0; i < subscribers; ++i) {
    const Json row = row_of(stat, "subscriptions", "sub-" + std::to_string(i));
    INFO(row.dump());
    CHECK(row.at("matched") == taken[i]);
    CHECK(row.at("acked") == taken[i]);
    CHECK(row.at("redelivered") == 0);
    expected += taken[i];
  }
  std::uint64_t unroutable = 0;
  for (std::uint64_t i = 0; i < publishers; ++i) {
    const Json row = row_of(stat, "publishers", publisher_name(i));
    CHECK(row.at("routed") == events);
    unroutable += row.at("unroutable").get<std::uint64_t>();
  }
  CHECK(unroutable == 0);
  MESSAGE((publishers * events) << " events, " << expected << " deliveries, " << looks / 4 << " looks at stat, "
                                << static_cast<double>(now_ns() - started) / 1e9 << " s");
}
