// co_await take(): what is there at once, waits, time-outs, stops, wakes for nothing, loops that refuse.
#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ackring/ackring.hpp"
#include "ackring/poll_loop.hpp"

namespace ackring {
namespace {

using namespace std::chrono_literals;

// Keeps what it is asked, for a test that plays the loop.
struct PlayedLoop {
  void when_readable(int fd, Deadline, Resume resume) {
    if (refuses) throw std::runtime_error("no room in the loop");
    asked_fd = fd;
    waits.push_back(resume);
  }
  void end_wait(bool readable) {
    REQUIRE(waits.size() == 1);
    const Resume resume = waits.front();
    waits.clear();
    resume(readable);
  }
  bool refuses = false;
  int asked_fd = -1;
  std::vector<Resume> waits;
};

struct Seen {
  std::vector<std::string> texts;
  bool ended = false;
  std::string failure;
};

template <class Loop>
DetachedCoroutine take_all(Subscriber& subscriber, Loop& loop, Seen& seen, Nanoseconds timeout = Nanoseconds::max()) {
  try {
    while (auto delivery = co_await take(subscriber, loop, timeout)) {
      seen.texts.emplace_back(delivery->text());
      (void)delivery->ack();
    }
  } catch (const std::exception& error) {
    seen.failure = error.what();
  }
  seen.ended = true;
}

struct World {
  Bus bus = Bus::in_memory();
  Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"#"}});
  Publisher publisher = bus.publisher();
  Seen seen;

  void publish(const char* text) {
    REQUIRE(publisher.publish("t", text) == Outcome::ok);
    REQUIRE(publisher.flush(10s) == Outcome::ok);  // it is in the subscriber's ring
  }
};

TEST_CASE("what is there is taken without the loop, and what is not is waited for") {
  World world;
  PlayedLoop loop;
  world.publish("1");
  world.publish("2");
  take_all(world.subscriber, loop, world.seen);
  CHECK(world.seen.texts == std::vector<std::string>{"1", "2"});
  CHECK(loop.waits.size() == 1);
  CHECK(loop.asked_fd == world.subscriber.fd());
  world.publish("3");
  loop.end_wait(true);
  CHECK(world.seen.texts.size() == 3);
  CHECK(loop.waits.size() == 1);
  CHECK(!world.seen.ended);
  loop.end_wait(false);
  CHECK(world.seen.ended);
  CHECK(world.seen.failure.empty());
}

TEST_CASE("a descriptor that is readable for nothing begins the wait again") {
  World world;
  PlayedLoop loop;
  take_all(world.subscriber, loop, world.seen);
  for (int i = 0; i < 3; ++i) loop.end_wait(true);
  CHECK(loop.waits.size() == 1);
  CHECK(!world.seen.ended);
  world.publish("1");
  loop.end_wait(true);
  CHECK(world.seen.texts.size() == 1);
  loop.end_wait(false);
  CHECK(world.seen.ended);
}

TEST_CASE("no time to wait: the loop is not asked") {
  World world;
  PlayedLoop loop;
  take_all(world.subscriber, loop, world.seen, 0s);
  CHECK(world.seen.ended);
  CHECK(loop.waits.empty());
}

TEST_CASE("a loop that throws: at the first wait, and when a wait begins again") {
  World world;
  PlayedLoop loop;
  SUBCASE("first") { loop.refuses = true; }
  SUBCASE("again") {}
  take_all(world.subscriber, loop, world.seen);
  if (!loop.refuses) {
    loop.refuses = true;
    loop.end_wait(true);
  }
  CHECK(world.seen.ended);
  CHECK(world.seen.failure == "no room in the loop");
}

DetachedCoroutine take_some(Subscriber& subscriber, PollLoop& loop, Seen& seen, std::size_t count) {
  while (seen.texts.size() < count) {
    auto delivery = co_await take(subscriber, loop, 10s);
    if (!delivery) break;
    seen.texts.emplace_back(delivery->text());
    (void)delivery->ack();
  }
  seen.ended = true;
}

TEST_CASE("PollLoop: events of another thread come, in order, whether the loop sleeps or not") {
  World world;
  PollLoop loop;
  constexpr std::size_t events = 2'000;
  take_some(world.subscriber, loop, world.seen, events);
  std::thread publisher([&] {
    for (std::size_t i = 0; i < events; ++i) {
      (void)world.publisher.publish_wait("t", as_bytes(std::to_string(i)), 10s);
      if (i % 100 == 0) std::this_thread::sleep_for(100us);  // the loop goes to sleep meanwhile
    }
  });
  loop.run();
  publisher.join();
  REQUIRE(world.seen.ended);
  REQUIRE(world.seen.texts.size() == events);
  for (std::size_t i = 0; i < events; ++i) CHECK(world.seen.texts[i] == std::to_string(i));
}

TEST_CASE("PollLoop: a deadline ends one wait, and stop() all of them") {
  World world;
  PollLoop loop;
  Subscriber other = world.bus.subscribe({.patterns = {"other"}});
  Seen waits_for_ever;
  take_all(other, loop, waits_for_ever);
  const auto started = std::chrono::steady_clock::now();
  const auto stop_at_the_end = [&]() -> DetachedCoroutine {
    auto nothing = co_await take(world.subscriber, loop, 20ms);
    CHECK(!nothing);
    CHECK(std::chrono::steady_clock::now() - started >= 20ms);
    CHECK(!waits_for_ever.ended);
    world.seen.ended = true;
    std::thread([&] { loop.stop(); }).join();  // any thread may
  };
  stop_at_the_end();
  loop.run();
  CHECK(world.seen.ended);
  CHECK(waits_for_ever.ended);
}

}  // namespace
}  // namespace ackring
