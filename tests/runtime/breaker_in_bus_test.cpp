// A handler that fails: its breaker opens, its events wait and lose no attempt, others go on, and people see it.

#include "tests/runtime/support.hpp"

using namespace ackring;
using namespace ackring::test;
using namespace std::chrono_literals;

TEST_CASE("a handler that fails for a while loses nothing and holds up nobody") {
  for (const std::size_t workers : {0, 1, 4}) {
    CAPTURE(workers);
    Bus bus = Bus::in_memory();
    EventBus events(bus, {.workers = workers});
    Shared<bool> broken{true};
    Shared<int> failed{0};
    Shared<int> handled{0};
    Shared<int> others{0};
    HandlerOptions options{.subscription = {.name = "weak", .max_deliveries = 6, .backoff_initial = 1ms}};
    options.breaker = {.failures = 4, .open_for = 10ms, .longest_open = 20ms};
    events.on(
        "t",
        [&](Delivery&) {
          if (broken) {
            ++failed;
            throw std::runtime_error("the database is away");
          }
          ++handled;
        },
        options);
    events.on("t", [&others](Delivery&) { ++others; }, {.subscription = {.name = "strong"}});
    Publisher publisher = bus.publisher();
    const Running running(events);
    publish_some(publisher, "t", 300);
    CHECK(eventually([&] { return others == 300; }));
    CHECK(eventually([&] { return row(bus, "weak")["breaker"].value("opened", 0) >= 8; }));  // several probes later
    CHECK(row(bus, "weak")["dead_lettered"] == 0);
    CHECK(row(bus, "weak")["nacked"] <= 4 + workers);
    CHECK(events.status().at(0).given_back >= 7);
    broken = false;
    CHECK(eventually([&] { return row(bus, "weak")["acked"] == 300; }));
    CHECK(handled == 300);
    CHECK(row(bus, "weak")["dead_lettered"] == 0);
    CHECK(eventually([&] { return row(bus, "weak")["breaker"]["state"] == "closed"; }));
    CHECK(row(bus, "strong")["breaker"]["opened"] == 0);
  }
}

TEST_CASE("an event that fails whenever it is tried does not keep its breaker open for ever") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 1});
  HandlerOptions options{.subscription = {.name = "s", .max_deliveries = 6, .backoff_initial = 1ms}};
  options.breaker = {.failures = 2, .open_for = 1ms, .longest_open = 2ms, .free_probes = 3};
  Shared<int> calls{0};
  events.on(
      "t",
      [&calls](Delivery&) {
        ++calls;
        throw std::runtime_error("never");
      },
      options);
  Publisher publisher = bus.publisher();
  const Running running(events);
  publish_some(publisher, "t", 1);
  CHECK(eventually([&] { return row(bus, "s")["dlq_size"] == 1; }));
  CHECK(calls == 6 + 3);  // its attempts, and the probes that were free
}

TEST_CASE("an operator opens and closes it") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 1});
  Shared<int> calls{0};
  events.on("t", [&calls](Delivery&) { ++calls; }, {.subscription = {.name = "s"}});
  Publisher publisher = bus.publisher();
  const Running running(events);
  publish_some(publisher, "t", 1);
  REQUIRE(eventually([&] { return calls == 1; }));
  bus.order_breaker("s", BreakerOrder::open);
  CHECK(eventually([&] { return row(bus, "s")["breaker"]["state"] == "open"; }));
  CHECK(row(bus, "s")["breaker"]["order"] == "open");
  publish_some(publisher, "t", 5);
  CHECK(eventually([&] { return row(bus, "s")["queued"] == 5; }));
  CHECK(calls == 1);
  bus.order_breaker("s", BreakerOrder::automatic);
  CHECK(eventually([&] { return calls == 6; }));
  CHECK_THROWS_AS(bus.order_breaker("none", BreakerOrder::open), Error);
}
