// The subscriptions of the chaos run, and how their members behave.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/chaos/events.hpp"

namespace ackring::chaos {

enum class Order : std::uint8_t {
  none,
  first,   // first deliveries of each publisher
  keys,    // first deliveries of each publisher and key
  strict,  // one at a time: nothing before what goes before it is settled
};

/// Of 1,000 deliveries taken in a storm. The rest is acked at once.
struct Habits {
  std::uint32_t nack = 0;
  std::uint32_t reject = 0;
  std::uint32_t hold = 0;    // in the hands for a while, some longer than the ack timeout, then acked
  std::uint32_t forget = 0;  // destroyed without a verdict
};

struct Role {
  SubscriptionOptions options;
  std::uint32_t topic_bits = 0;  // what its patterns match of `topics`
  std::size_t members = 1;
  Order order = Order::none;
  Habits habits = {};
  bool views = false;     // its members take batches of views; others take one Delivery after the other
  bool paused = false;    // by the operator, now and then
  bool purged = false;    // by the operator, now and then
  bool requeued = false;  // dead letters, by the operator

  [[nodiscard]] bool matches(const Event& event) const noexcept { return (topic_bits >> event.topic & 1) != 0; }
  [[nodiscard]] bool at_most_once() const noexcept { return options.guarantee == Guarantee::at_most_once; }
};

inline std::vector<Role> roles() {
  std::vector<Role> all;
  const auto add = [&all](const char* name, const char* pattern, std::uint32_t topic_bits, auto set) {
    Role role;
    role.topic_bits = topic_bits;
    role.options.name = name;
    role.options.patterns = {pattern};
    role.options.ack_timeout = 250ms;
    role.options.max_deliveries = 1'000;  // only where a role says so may an event be given up
    role.options.backoff_initial = 2ms;
    role.options.backoff_max = 40ms;
    role.options.ring_bytes = ring_bytes;
    role.options.max_in_flight = 256;
    set(role);
    all.push_back(std::move(role));
  };
  add("plain", "chaos.#", 31, [](Role& role) {
    role.order = Order::first;
    role.views = true;
  });
  add("small", "chaos.a.*", 3, [](Role& role) {
    role.order = Order::first;
    role.options.ring_bytes = small_ring_bytes;
    role.options.max_in_flight = 16;
    role.habits = {.nack = 5, .hold = 10};
  });
  add("group", "chaos.#", 31, [](Role& role) {
    role.members = 3;
    role.options.group = true;
    role.options.max_in_flight = 32;
    role.habits = {.nack = 10, .hold = 10, .forget = 5};
  });
  add("keys", "chaos.*.x", 5, [](Role& role) {
    role.members = 3;
    role.order = Order::keys;
    role.options.group = role.options.ordered_by_key = true;
    role.options.max_in_flight = 64;
    role.views = true;
    role.habits = {.nack = 5, .hold = 2};
  });
  add("strict", "chaos.b.#", 4, [](Role& role) {
    role.order = Order::strict;
    role.options.ordered = true;
    role.options.ack_timeout = 100ms;
    role.habits = {.nack = 10, .hold = 4};
  });
  add("once", "chaos.#", 31, [](Role& role) {
    role.order = Order::first;
    role.options.guarantee = at_most_once;
    role.options.max_in_flight = 64;
    role.options.max_events = 50;
    role.options.overflow = Overflow::drop_oldest;
  });
  add("failing", "chaos.a.#", 3, [](Role& role) {
    role.options.max_deliveries = 3;
    role.options.ack_timeout = 100ms;
    role.habits = {.nack = 150, .reject = 30, .hold = 10, .forget = 30};
    role.requeued = true;
  });
  add("managed", "chaos.#", 31, [](Role& role) {
    role.order = Order::first;
    role.habits = {.nack = 5, .hold = 5};
    role.paused = role.purged = true;
    role.views = true;
  });
  add("letters", "chaos.big.*", 8, [](Role& role) {  // rejected, and nobody looks after them: what is dead stays dead
    role.options.max_deliveries = 2;
    role.options.backoff_initial = 20ms;
    role.habits = {.nack = 200, .reject = 100};
    role.views = true;
  });
  return all;
}

}  // namespace ackring::chaos
