// Handlers on a bus of their own: how calls end, and what becomes of the deliveries.
#include "ackring/event_bus.hpp"

#include <mutex>
#include <vector>

#include "tests/runtime/support.hpp"

using namespace ackring;
using namespace ackring::test;
using namespace std::chrono_literals;

TEST_CASE("a handler is called with each event, and returning acks it") {
  for (const std::size_t workers : {0, 1, 4}) {
    CAPTURE(workers);
    Bus bus = Bus::in_memory();
    EventBus events(bus, {.workers = workers});
    Shared<int> sum{0};
    events.on("orders.*", [&sum](Delivery& delivery) { sum += std::stoi(std::string(delivery.text())); },
              {.subscription = {.name = "billing"}});
    Publisher publisher = bus.publisher();
    publish_some(publisher, "orders.created", 50);
    publish_some(publisher, "other", 1);
    {
      const Running running(events);
      publish_some(publisher, "orders.created", 50, 50);
      CHECK(eventually([&] { return sum == 4950; }));
    }
    CHECK(eventually([&] { return row(bus, "billing")["acked"] == 100; }));
    CHECK(row(bus, "billing")["matched"] == 100);
    CHECK(events.status().at(0).handled == 100);
    CHECK(events.status().at(0).busy == 0);
  }
}

TEST_CASE("an exception nacks, and its text is known; a Reject makes a dead letter at once") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 1});
  Shared<int> calls{0};
  std::mutex mutex;
  std::vector<std::string> told;
  HandlerOptions options{.subscription = {.name = "s", .max_deliveries = 3, .backoff_initial = 1ms}};
  options.on_failure = [&](const Delivery& delivery, std::string_view what) {
    const std::lock_guard lock(mutex);
    told.push_back(std::string(delivery.text()) + ": " + std::string(what));
  };
  events.on(
      "t",
      [&calls](Delivery& delivery) {
        ++calls;
        if (delivery.text() == "0") throw std::runtime_error("the disk is full");
        if (delivery.text() == "1") throw Reject("no such account");
        if (delivery.text() == "2") throw 42;
      },
      options);
  Publisher publisher = bus.publisher();
  const Running running(events);
  publish_some(publisher, "t", 4);
  CHECK(eventually([&] { return row(bus, "s")["dlq_size"] == 3; }));
  CHECK(calls == 3 + 1 + 3 + 1);
  DeadLetterCursor cursor;
  std::vector<std::string> reasons;
  std::istringstream letters(bus.dead_letters_ndjson("s", cursor));
  for (std::string line; std::getline(letters, line);) reasons.push_back(nlohmann::json::parse(line).at("reason"));
  std::sort(reasons.begin(), reasons.end());
  CHECK(reasons == std::vector<std::string>{"max_deliveries: an exception that is no std::exception",
                                            "max_deliveries: the disk is full", "rejected: no such account"});
  const auto consumers = row(bus, "s")["consumers"];
  REQUIRE(consumers.size() == 1);
  CHECK(consumers[0]["last_errors"].size() == 5);
  const HandlerStatus status = events.status().at(0);
  CHECK(status.failed == 6);
  CHECK(status.rejected == 1);
  CHECK(status.handled == 1);
  const std::lock_guard lock(mutex);
  CHECK(told.size() == 6);
  CHECK(std::count(told.begin(), told.end(), "0: the disk is full") == 3);
}

TEST_CASE("a handler may give the verdict itself, or later") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 2});
  std::mutex mutex;
  std::vector<Delivery> kept;
  events.on("t",
            [&](Delivery& delivery) {
              if (delivery.text() == "0") {
                CHECK(delivery.reject("by hand") == Outcome::ok);
              } else {
                const std::lock_guard lock(mutex);
                kept.push_back(std::move(delivery));
              }
            },
            {.subscription = {.name = "s"}});
  Publisher publisher = bus.publisher();
  publish_some(publisher, "t", 3);
  {
    const Running running(events);
    CHECK(eventually([&] {
      const std::lock_guard lock(mutex);
      return kept.size() == 2;
    }));
  }
  const bool rejected = eventually([&] { return row(bus, "s")["dlq_size"] == 1; });
  CHECK(rejected);
  CHECK(row(bus, "s")["in_flight"] == 2);
  for (Delivery& delivery : kept) CHECK(delivery.ack() == Outcome::ok);
  CHECK(eventually([&] { return row(bus, "s")["acked"] == 2; }));
}

TEST_CASE("run_one calls one handler once") {
  Bus bus = Bus::in_memory();
  EventBus events(bus);
  int first = 0;
  int second = 0;
  events.on("a", [&first](Delivery&) { ++first; });
  events.on("b", [&second](Delivery&) { ++second; }, {.workers = 0});
  Publisher publisher = bus.publisher();
  CHECK_FALSE(events.run_one());
  publish_some(publisher, "a", 2);
  publish_some(publisher, "b", 1);
  for (int i = 0; i < 3; ++i) CHECK(events.run_one(10s));
  CHECK(first == 2);
  CHECK(second == 1);
  CHECK_FALSE(events.run_one(1ms));
}

TEST_CASE("run() returns when it is stopped, from a handler too, and can run again") {
  Bus bus = Bus::in_memory();
  for (const std::size_t workers : {0, 2}) {
    EventBus events(bus, {.workers = workers});
    Shared<int> calls{0};
    events.on("t", [&](Delivery&) {
      ++calls;
      events.stop();
    });
    Publisher publisher = bus.publisher();
    for (int i = 1; i <= 3; ++i) {
      publish_some(publisher, "t", 1);
      events.run();
      CHECK(calls == i);
    }
    events.stop();
    events.run();  // stopped before it began
    events.start();
    CHECK_THROWS_AS(events.run(), Error);
    CHECK_THROWS_AS((void)events.run_one(), Error);
    events.stop();
    events.join();
  }
}

TEST_CASE("a bus whose run has ended by itself can be started again") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 1});
  Shared<int> calls{0};
  events.on("t", [&](Delivery&) {
    ++calls;
    events.stop();
  });
  Publisher publisher = bus.publisher();
  for (int i = 1; i <= 3; ++i) {
    publish_some(publisher, "t", 1);
    REQUIRE(eventually([&] {
      try {
        events.start();
        return true;
      } catch (const Error&) {
        return false;  // the run before is about to end
      }
    }));
    CHECK(eventually([&] { return calls == i; }));
  }
  events.stop();  // the run before may have handled the last event, and this one waits for more
  events.join();
}

TEST_CASE("handlers that can't be are refused") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 1});
  CHECK_THROWS_AS(events.on("t", Handler()), Error);
  CHECK_THROWS_AS(events.on("not a pattern!", [](Delivery&) {}), Error);
  CHECK_THROWS_AS(events.on("t", [](Delivery&) {}, {.workers = 257}), Error);
  CHECK(events.status().empty());
}

TEST_CASE("a handler is added while others run") {
  Bus bus = Bus::in_memory();
  EventBus events(bus);
  const Running running(events);
  Shared<int> calls{0};
  events.on("t", [&calls](Delivery&) { ++calls; });
  Publisher publisher = bus.publisher();
  publish_some(publisher, "t", 10);
  CHECK(eventually([&] { return calls == 10; }));
}

TEST_CASE("at most once: each event is handled once, by any worker") {
  for (const std::size_t workers : {0, 1, 4}) {
    Bus bus = Bus::in_memory();
    EventBus events(bus, {.workers = workers});
    std::mutex mutex;
    std::vector<int> seen(2000);
    events.on("t",
              [&](Delivery& delivery) {
                const std::lock_guard lock(mutex);
                ++seen.at(static_cast<std::size_t>(std::stoi(std::string(delivery.text()))));
              },
              {.subscription = {.name = "s", .guarantee = at_most_once, .ring_bytes = 4096}});
    Publisher publisher = bus.publisher();
    {
      const Running running(events);
      publish_some(publisher, "t", 2000);
      CHECK(eventually([&] { return events.status().at(0).handled == 2000; }));
    }
    CHECK(seen == std::vector<int>(2000, 1));
  }
}

TEST_CASE("started and stopped again and again, it loses nothing, and leaves no thread and no descriptor") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 2});
  Shared<int> calls{0};
  events.on("t", [&calls](Delivery&) { ++calls; }, {.subscription = {.name = "s"}});
  Publisher publisher = bus.publisher();
  const std::size_t threads = entries_of("/proc/self/task");
  const std::size_t descriptors = entries_of("/proc/self/fd");
  for (int i = 0; i < 200; ++i) {
    publish_some(publisher, "t", 10);
    events.start();
    if (i % 3 == 0) std::this_thread::yield();
    events.stop();
    events.join();
  }
  // A thread that was joined is listed for a moment; the exchange, which is in this process, opens files of its own.
  CHECK(eventually([&] { return entries_of("/proc/self/task") <= threads; }));
  CHECK(entries_of("/proc/self/fd") < descriptors + 50);
  const Running running(events);
  CHECK(eventually([&] { return row(bus, "s")["acked"] == 2000; }));
  CHECK(calls == 2000);
}
