#include <poll.h>

#include <stdexcept>

#include <nlohmann/json.hpp>

#include "tests/chaos/actors.hpp"
#include "tests/chaos/bus_tools.hpp"

namespace ackring::chaos {

void be_operator(const Place& place, std::size_t other) {
  Notes& notes = *place.notes;
  Life life(place, notes.of_others[other]);
  Bus bus = open_bus(place);
  const std::vector<Role> all = roles();
  while (life.phase() == Phase::storm) {
    ::poll(nullptr, 0, static_cast<int>(life.up_to(60)));
    const Role& role = all[life.random() % all.size()];
    const std::string& name = role.options.name;
    try {
      life.moment();
      if (role.requeued) {
        if (notes.requeued_calls.fetch_add(1, std::memory_order_seq_cst) == 0) {
          notes.first_requeue_ns.store(now_ns(), std::memory_order_seq_cst);
        }
        (void)bus.requeue_dead_letters(name);
      } else if (role.purged && life.in(100)) {
        notes.purged.fetch_add(bus.purge_subscription(name), std::memory_order_seq_cst);
      } else if (role.paused && life.in(400)) {
        bus.pause_subscription(name);
      } else {
        bus.resume_subscription(name);
      }
    } catch (const Error& error) {  // the exchange is away, or has no room
      const ErrorCode code = error.code();
      if (code != ErrorCode::timeout && code != ErrorCode::no_exchange && code != ErrorCode::no_space) throw;
    }
  }
  for (const Role& role : all) {
    with_patience([&] {
      bus.resume_subscription(role.options.name);
      return true;
    });
  }
}

void be_visitor(const Place& place, std::size_t other) {
  Life life(place, place.notes->of_others[other]);
  Bus bus = open_bus(place);
  Publisher publisher = with_patience([&] { return bus.publisher({.ring_bytes = limits::min_ring_bytes}); });
  Subscriber tap = with_patience([&] {
    return bus.subscribe({.patterns = {"chaos.#"},
                          .guarantee = at_most_once,
                          .max_in_flight = 64,
                          .ring_bytes = ring_bytes,
                          .max_events = 100});
  });
  const std::int64_t until = now_ns() + static_cast<std::int64_t>(life.up_to(300)) * 1'000'000;
  while (now_ns() < until && life.phase() == Phase::storm) {
    (void)publisher.publish("visitor.here", "hello");  // nobody's
    auto delivery = tap.take(5ms);
    life.moment();
    if (!delivery) continue;
    place.notes->tap_events.fetch_add(1, std::memory_order_seq_cst);
    const Event event = event_of(place.seed, publisher_number(delivery->publisher()), delivery->sequence());
    if (!same_payload(event, delivery->payload())) throw std::runtime_error("a tap got other bytes");
    if (delivery->attempt() != 1) throw std::runtime_error("a tap got an event twice");
  }
}

void be_observer(const Place& place, std::size_t other, const std::string& shmtool) {
  Life life(place, place.notes->of_others[other]);
  std::int64_t last_seen = now_ns();
  while (life.phase() == Phase::storm) {
    const Ran ran = run({shmtool, "--dir", place.directory, "--bus", bus_name, "stat", "--json"});
    if (ran.status != 0) {  // an exchange without descriptors, for example, tells it nothing; but that ends
      if (now_ns() - last_seen > patience.count()) throw std::runtime_error("shmtool stat does not work any more");
      continue;
    }
    last_seen = now_ns();
    const std::string wrong = imbalance(nlohmann::json::parse(ran.output));
    if (!wrong.empty()) place.notes->complain("stat: " + wrong);
    place.notes->looks.fetch_add(1, std::memory_order_seq_cst);
    ::poll(nullptr, 0, static_cast<int>(200 + life.up_to(400)));
  }
}

}  // namespace ackring::chaos
