// Workers that hang, that are slow, and that share.
#include <condition_variable>
#include <mutex>
#include <set>

#include "tests/runtime/support.hpp"

using namespace ackring;
using namespace ackring::test;
using namespace std::chrono_literals;

namespace {

/// Calls wait in it until it is opened.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.wait(lock, [this] { return open_; });
    --waiting_;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  int waiting() {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int waiting_ = 0;
};

}  // namespace

TEST_CASE("a handler that hangs holds up no other") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 2});
  Gate gate;
  Shared<int> calls{0};
  events.on("t", [&gate](Delivery&) { gate.pass(); }, {.subscription = {.name = "stuck"}});
  events.on("t", [&calls](Delivery&) { ++calls; }, {.subscription = {.name = "well"}});
  Publisher publisher = bus.publisher();
  const Running running(events);
  publish_some(publisher, "t", 100);
  CHECK(eventually([&] { return calls == 100; }));
  CHECK(eventually([&] { return gate.waiting() == 2; }));
  CHECK(row(bus, "stuck")["in_flight"] == 2);  // it takes for free workers only
  CHECK(events.status().at(0).busy == 2);
  gate.open();
  CHECK(eventually([&] { return row(bus, "stuck")["acked"] == 100; }));
}

TEST_CASE("a long call keeps its delivery, and what waits behind it goes to others") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 1});
  Gate gate;
  Shared<int> calls{0};
  Shared<bool> hang{false};
  const SubscriptionOptions subscription{.name = "s", .ack_timeout = 200ms, .group = true};
  events.on("t",
            [&](Delivery& delivery) {
              if (hang && delivery.text() == "1000") gate.pass();
              ++calls;
            },
            {.subscription = subscription});
  Publisher publisher = bus.publisher();
  const Running running(events);
  publish_some(publisher, "t", 1000);  // its calls are short: from now on it takes many at once
  REQUIRE(eventually([&] { return calls == 1000; }));
  hang = true;
  publish_some(publisher, "t", 20, 1000);
  REQUIRE(eventually([&] { return gate.waiting() == 1; }));
  Subscriber other = bus.subscribe({.name = "s"});
  std::set<std::string> taken;
  CHECK(eventually([&] {
    while (auto delivery = other.take(10ms)) {
      taken.insert(std::string(delivery->text()));
      CHECK(delivery->attempt() == 1);
      (void)delivery->ack();
    }
    return taken.size() + static_cast<std::size_t>(calls) == 1019;
  }));
  CHECK(taken.count("1000") == 0);
  std::this_thread::sleep_for(600ms);  // several ack timeouts
  CHECK(row(bus, "s")["timed_out"] == 0);
  gate.open();
  CHECK(eventually([&] { return row(bus, "s")["acked"] == 1020; }));
  CHECK(row(bus, "s")["timed_out"] == 0);
  CHECK(row(bus, "s")["redelivered"] == 0);
}

TEST_CASE("a call that is too long loses its delivery") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 2});
  Gate gate;
  Shared<int> calls{0};
  HandlerOptions options{.subscription = {.name = "s", .ack_timeout = 100ms, .backoff_initial = 1ms}};
  options.longest_call = 300ms;
  events.on(
      "t",
      [&](Delivery& delivery) {
        ++calls;
        if (delivery.attempt() == 1) gate.pass();
      },
      options);
  Publisher publisher = bus.publisher();
  const Running running(events);
  publish_some(publisher, "t", 1);
  CHECK(eventually([&] { return calls == 2; }));
  CHECK(eventually([&] { return row(bus, "s")["acked"] == 1; }));
  CHECK(row(bus, "s")["timed_out"] == 1);
  CHECK(eventually([&] { return events.status().at(0).overdue == 1; }));
  gate.open();
}

TEST_CASE("what has not begun when time is over is given back, and costs no attempt") {
  Bus bus = Bus::in_memory();
  Gate gate;
  std::thread opener;
  {
    EventBus events(bus, {.workers = 1, .drain_timeout = 0s});
    Shared<int> calls{0};
    Shared<bool> hang{false};
    events.on("t",
              [&](Delivery&) {
                ++calls;
                if (hang) gate.pass();
              },
              {.subscription = {.name = "s", .ordered_by_key = true}});
    Publisher publisher = bus.publisher();
    events.start();
    publish_some(publisher, "t", 2000);
    REQUIRE(eventually([&] { return calls == 2000; }));
    hang = true;
    publish_some(publisher, "t", 50);
    REQUIRE(eventually([&] { return gate.waiting() == 1; }));
    opener = std::thread([&gate] {
      std::this_thread::sleep_for(50ms);
      gate.open();
    });
    events.stop();
    events.join();
    CHECK(calls < 2050);
  }
  opener.join();
  Subscriber rest = bus.subscribe({.name = "s"});
  int taken = 0;
  while (auto delivery = rest.take(200ms)) {
    CHECK(delivery->attempt() == 1);
    ++taken;
    CHECK(delivery->ack() == Outcome::ok);
  }
  CHECK(taken >= 1);
  CHECK(eventually([&] { return row(bus, "s")["acked"] == 2050; }));
}
