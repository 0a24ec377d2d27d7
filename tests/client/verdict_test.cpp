// Verdicts and extensions through the public classes, against an exchange that the test plays.
#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <thread>
#include <vector>

#include "ackring/bus.hpp"
#include "lib/shm/environment.hpp"
#include "tests/client/played_exchange.hpp"

using namespace ackring;
using namespace std::chrono_literals;
using ring::Verdict;
using test::PlayedExchange;
using test::PlayedMember;

namespace {
constexpr std::uint32_t longest_ms = 0xfffffe;

Delivery take(PlayedMember& played) {
  auto delivery = played.member->take(played.member, 0ns);
  REQUIRE(delivery);
  return std::move(*delivery);
}
}  // namespace

TEST_CASE("the delay of a nack is in whole milliseconds, rounded up, within what a word holds") {
  const std::vector<std::pair<Nanoseconds, std::uint32_t>> delays{{0ns, 0},
                                                                  {-1ns, 0},
                                                                  {-1h, 0},
                                                                  {1ns, 1},
                                                                  {1ms, 1},
                                                                  {1ms + 1ns, 2},
                                                                  {250ms, 250},
                                                                  {1h, 3'600'000},
                                                                  {16'777'214ms, longest_ms},
                                                                  {16'777'215ms, longest_ms},
                                                                  {240h, longest_ms},
                                                                  {Nanoseconds::max(), longest_ms},
                                                                  {Nanoseconds::min(), 0}};
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  std::uint64_t entry = 0;
  for (const auto& [delay, milliseconds] : delays) {
    const std::int64_t count = delay.count();  // clang 14 captures no structured bindings
    CAPTURE(count);
    played.deliver("x");
    Delivery delivery = take(played);
    CHECK(delivery.nack(delay) == Outcome::ok);
    CHECK_FALSE(delivery.pending());
    CHECK(delivery.nack(delay) == Outcome::stale);
    CHECK(played.acks.verdict(entry) == Verdict::nack);
    CHECK(played.acks.seen(entry).delay == milliseconds);
    ++entry;
  }
  played.deliver("x");
  CHECK(take(played).nack() == Outcome::ok);  // without a delay: the back-off
  CHECK(played.acks.seen(entry).delay == ring::delay_default);
  played.deliver("x");
  { const Delivery dropped = take(played); }
  CHECK(played.acks.verdict(entry + 1) == Verdict::nack);
  CHECK(played.acks.seen(entry + 1).delay == ring::delay_default);
}

TEST_CASE("give_back is final, and its delay is that of a nack; without one it is 0, not the back-off") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096, std::uint64_t{0} - 2);  // entries pass 2^64
  const std::vector<std::pair<Nanoseconds, std::uint32_t>> delays{
      {0ns, 0}, {-1ns, 0}, {1ns, 1}, {250ms, 250}, {240h, longest_ms}};
  std::uint64_t entry = std::uint64_t{0} - 2;
  for (const auto& [delay, milliseconds] : delays) {
    played.deliver("x");
    Delivery delivery = take(played);
    CHECK(delivery.extend(1s) == Outcome::ok);
    CHECK(delivery.give_back(delay) == Outcome::ok);
    CHECK_FALSE(delivery.pending());
    CHECK(delivery.give_back() == Outcome::stale);
    CHECK(delivery.ack() == Outcome::stale);
    CHECK(delivery.nack("why") == Outcome::stale);
    CHECK(played.acks.verdict(entry) == Verdict::give_back);
    CHECK(played.acks.seen(entry).delay == milliseconds);
    ++entry;
  }
  played.deliver("x");
  CHECK(take(played).give_back() == Outcome::ok);
  CHECK(played.acks.seen(entry).delay == 0);
}

TEST_CASE("a nack with a reason is final, and its reason arrives; without one it is a nack with the back-off") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  for (int i = 0; i < 2; ++i) played.deliver("x");
  Delivery first = take(played);
  CHECK(first.nack("disk full") == Outcome::ok);
  CHECK(first.reject("no") == Outcome::stale);
  CHECK(first.give_back() == Outcome::stale);
  CHECK(played.acks.verdict(0) == Verdict::nack_reason);
  CHECK(played.acks.reason(0, played.acks.seen(0).delay) == "disk full");
  CHECK(take(played).nack(std::string_view()) == Outcome::ok);
  CHECK(played.acks.reason(1, played.acks.seen(1).delay).empty());
}

TEST_CASE("reject is final, and its reason arrives") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096, std::uint64_t{0} - 4);  // entries pass 2^64
  for (int i = 0; i < 8; ++i) played.deliver("x");
  for (std::uint64_t n = 0; n < 8; ++n) {
    const std::uint64_t entry = std::uint64_t{0} - 4 + n;
    CAPTURE(n);
    Delivery delivery = take(played);
    CHECK(delivery.reject(n % 2 == 0 ? "no customer " + std::to_string(n) : "") == Outcome::ok);
    CHECK(delivery.text().empty());
    CHECK(delivery.ack() == Outcome::stale);
    CHECK(delivery.extend(1s) == Outcome::stale);
    CHECK(played.acks.verdict(entry) == Verdict::reject);
    const bool nameable = n != 2;  // entry 2^64 - 2 is one of two that a slot can't name
    CHECK(played.acks.reason(entry, played.acks.seen(entry).delay) ==
          (n % 2 == 0 && nameable ? "no customer " + std::to_string(n) : ""));
  }
}

TEST_CASE("an extended delivery stays pending, readable and open to every verdict") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096, (std::uint64_t{1} << 63) - 1);
  const std::uint64_t first = (std::uint64_t{1} << 63) - 1;
  for (int i = 0; i < 4; ++i) played.deliver("text");
  Delivery zero = take(played);
  Delivery one = take(played);
  Delivery two = take(played);
  for (std::uint32_t i = 1; i <= 20; ++i) {
    CHECK(zero.extend(std::chrono::seconds(i)) == Outcome::ok);
    CHECK(played.acks.seen(first).verdict == Verdict::extend);
    CHECK(played.acks.seen(first).delay == 1000 * i);
    CHECK(played.acks.seen(first).count == i % 16);
  }
  CHECK(zero.pending());
  CHECK(zero.text() == "text");
  CHECK(played.acks.verdict(first) == Verdict::none);
  CHECK(zero.extend(-5s) == Outcome::ok);
  CHECK(played.acks.seen(first).delay == 1);
  CHECK(zero.extend(Nanoseconds::max()) == Outcome::ok);
  CHECK(played.acks.seen(first).delay == longest_ms);
  CHECK(zero.ack() == Outcome::ok);
  CHECK(played.acks.verdict(first) == Verdict::ack);
  CHECK(one.extend(1s) == Outcome::ok);
  CHECK(one.reject("gave up") == Outcome::ok);
  CHECK(played.acks.reason(first + 1, played.acks.seen(first + 1).delay) == "gave up");
  // Extended, then destroyed: nacked. Extended, then acked through: acked, and no verdict of its own after that.
  CHECK(two.extend(1s) == Outcome::ok);
  two = take(played);
  CHECK(played.acks.verdict(first + 2) == Verdict::nack);
  CHECK(two.extend(1s) == Outcome::ok);
  CHECK(played.member->ack_through(first + 3) == Outcome::ok);
  CHECK(two.extend(1s) == Outcome::stale);
  CHECK(two.pending());
  CHECK(two.nack() == Outcome::stale);
  CHECK(played.acks.verdict(first + 3) == Verdict::none);
  CHECK(played.acks.acked_through() == first + 4);
}

TEST_CASE("an extension does not release the view, a detached one is released as before") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  for (int i = 0; i < 3; ++i) played.deliver("x");
  Delivery zero = take(played);
  Delivery one = take(played);
  one.detach();
  CHECK(zero.extend(1s) == Outcome::ok);
  CHECK(one.extend(1s) == Outcome::ok);
  Delivery two = take(played);
  two.detach();
  CHECK(played.acks.released() == 0);  // the view of entry 0 is in use
  CHECK(zero.reject() == Outcome::ok);
  CHECK(played.acks.released() == 3);
  CHECK(one.text() == "x");
  CHECK(one.nack(2s) == Outcome::ok);
  CHECK(played.acks.seen(1).delay == 2000);
  CHECK(two.ack() == Outcome::ok);
}

TEST_CASE("attempt, first delivery and the redelivered flag are on each delivery") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  shm::AttemptInfo third{};
  third.first_delivered_ns = 123'456'789;
  third.attempt = 3;
  third.cause = 1;
  played.deliver("first");
  played.deliver("third", true, &third);
  const std::uint64_t before = shm::Environment::now_ns();
  std::array<DeliveryView, 2> views;
  REQUIRE(played.member->take_batch(views, 0ns) == 2);
  CHECK(views[0].attempt() == 1);
  CHECK_FALSE(views[0].redelivered());
  CHECK(views[0].first_delivered_ns() >= before);
  CHECK(views[1].attempt() == 3);
  CHECK(views[1].redelivered());
  CHECK(views[1].first_delivered_ns() == 123'456'789);
  played.deliver("again", true, &third);
  Delivery delivery = take(played);
  CHECK(delivery.redelivered());
  CHECK(delivery.text() == "again");
  CHECK(delivery.first_delivered_ns() == 123'456'789);
  CHECK(delivery.ack() == Outcome::ok);
  CHECK(delivery.first_delivered_ns() == 0);
  CHECK_FALSE(delivery.redelivered());
}

TEST_CASE("verdicts without a delivery, after the member left, and at most once") {
  Delivery none;
  CHECK(none.nack(1s) == Outcome::stale);
  CHECK(none.reject("x") == Outcome::stale);
  CHECK(none.nack("x") == Outcome::stale);
  CHECK(none.give_back() == Outcome::stale);
  CHECK(none.extend(1s) == Outcome::stale);
  CHECK(none.first_delivered_ns() == 0);
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  for (int i = 0; i < 3; ++i) played.deliver("x");
  Delivery zero = take(played);
  Delivery one = take(played);
  Delivery two = take(played);
  played.member->leave();
  CHECK(zero.extend(1s) == Outcome::stale);
  CHECK(zero.pending());
  CHECK(zero.nack(1s) == Outcome::stale);
  CHECK(one.reject("x") == Outcome::stale);
  CHECK(two.give_back(1s) == Outcome::stale);
  for (std::uint64_t entry = 0; entry < 3; ++entry) CHECK(played.acks.seen(entry).verdict == Verdict::none);

  PlayedExchange other;
  PlayedMember once(other, 4096, 0, true);
  once.deliver("x");
  Delivery delivery = take(once);
  CHECK(delivery.extend(1s) == Outcome::ok);
  CHECK(delivery.reject("x") == Outcome::ok);
  CHECK(once.acks.seen(0).verdict == Verdict::none);
  for (int i = 0; i < 2; ++i) once.deliver("x");
  CHECK(take(once).give_back(1s) == Outcome::ok);
  CHECK(take(once).nack("x") == Outcome::ok);
  for (std::uint64_t entry = 1; entry < 3; ++entry) CHECK(once.acks.seen(entry).verdict == Verdict::none);
}

TEST_CASE("verdicts of a subscriber's views") {
  Bus bus = Bus::in_memory();
  Publisher publisher = bus.publisher();
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  Subscriber subscriber = bus.subscribe(options);
  for (int i = 0; i < 5; ++i) REQUIRE(publisher.publish("a", as_bytes("x")) == Outcome::ok);
  REQUIRE(publisher.flush(10s) == Outcome::ok);
  std::vector<DeliveryView> views(5);
  std::size_t taken = 0;
  while (taken < views.size()) {
    const std::size_t more = subscriber.take_batch(std::span(views).subspan(taken), 10s);
    REQUIRE(more != 0);
    taken += more;
  }
  CHECK(subscriber.extend(views[0], 10s) == Outcome::ok);
  CHECK(subscriber.extend(views[0], 10s) == Outcome::ok);
  CHECK(subscriber.ack(views[0]) == Outcome::ok);
  CHECK(subscriber.extend(views[0], 10s) == Outcome::stale);
  CHECK(subscriber.nack(views[1]) == Outcome::ok);
  CHECK(subscriber.nack(views[2], 1ms) == Outcome::ok);
  CHECK(subscriber.nack(views[2], 1ms) == Outcome::stale);
  CHECK(subscriber.reject(views[3], "no such customer") == Outcome::ok);
  CHECK(subscriber.reject(views[3]) == Outcome::stale);
  CHECK(subscriber.extend(views[4], 10s) == Outcome::ok);
  CHECK(subscriber.ack_through(views[4]) == Outcome::ok);
  CHECK(subscriber.extend(views[4], 10s) == Outcome::stale);
  CHECK(subscriber.reject(views[4]) == Outcome::stale);
  const DeliveryView nothing;
  CHECK(subscriber.nack(nothing, 1s) == Outcome::stale);
  CHECK(subscriber.reject(nothing) == Outcome::stale);
  CHECK(subscriber.extend(nothing, 1s) == Outcome::stale);
  const Subscriber moved = std::move(subscriber);
  CHECK(subscriber.nack(views[4], 1s) == Outcome::closed);
  CHECK(subscriber.reject(views[4]) == Outcome::closed);
  CHECK(subscriber.extend(views[4], 1s) == Outcome::closed);
}

TEST_CASE("rejects, nacks and extensions of four threads on views of one batch") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 256 << 10);
  std::vector<DeliveryView> views(64);
  std::uint64_t wrong = 0;
  for (std::uint64_t lap = 0; lap < 20; ++lap) {
    for (std::size_t i = 0; i < views.size(); ++i) played.deliver("x");
    REQUIRE(played.member->take_batch(views, 0ns) == views.size());
    std::array<std::uint64_t, 4> refused{};
    std::vector<std::thread> threads;
    for (std::size_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        for (std::size_t i = thread; i < views.size(); i += 4) {
          const std::uint64_t entry = views[i].entry;
          (void)played.member->extend(views[(i + 1) % views.size()].entry, 1s);  // while its thread decides
          const Outcome outcome =
              i % 3 == 0 ? played.member->reject(entry, std::to_string(entry)) : played.member->nack(entry, 7ms);
          refused[thread] += outcome != Outcome::ok;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (std::size_t i = 0; i < views.size(); ++i) {
      const std::uint64_t entry = views[i].entry;
      const ring::AckSeen seen = played.acks.seen(entry);
      const bool reject = i % 3 == 0;
      wrong += seen.verdict != (reject ? Verdict::reject : Verdict::nack);
      wrong += reject ? played.acks.reason(entry, seen.delay) != std::to_string(entry) : seen.delay != 7;
    }
    for (const std::uint64_t count : refused) wrong += count;
  }
  CHECK(wrong == 0);
}
