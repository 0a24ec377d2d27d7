#include "lib/client/member.hpp"

#include <doctest/doctest.h>
#include <poll.h>

#include <array>
#include <thread>

#include "tests/client/played_exchange.hpp"

using namespace ackring;
using namespace std::chrono_literals;
using ring::Verdict;
using test::PlayedExchange;
using test::PlayedMember;

namespace {
bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}
}  // namespace

TEST_CASE("take stores taken, a verdict stores its word, and only the first counts") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096, 100);
  CHECK_FALSE(played.member->take(played.member, 0ns));
  for (const char* text : {"one", "two", "three"}) played.deliver(text);
  auto one = played.member->take(played.member, 0ns);
  REQUIRE(one);
  CHECK(one->text() == "one");
  CHECK(one->attempt() == 1);
  CHECK(played.acks.taken() == 101);
  CHECK(one->ack() == Outcome::ok);
  CHECK(one->ack() == Outcome::stale);
  CHECK_FALSE(one->pending());
  CHECK(played.acks.verdict(100) == Verdict::ack);
  played.member->take(played.member, 0ns).reset();  // no verdict: nacked
  CHECK(played.acks.verdict(101) == Verdict::nack);
  auto three = played.member->take(played.member, 0ns);
  REQUIRE(three);
  CHECK(played.member->ack_through(103) == Outcome::stale);
  CHECK(played.member->ack_through(102) == Outcome::ok);
  CHECK(played.acks.acked_through() == 103);
  CHECK(three->ack() == Outcome::stale);
}

TEST_CASE("a batch takes what is there, and skips what was revoked") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  for (int i = 0; i < 10; ++i) played.deliver("x", i == 9);
  std::array<DeliveryView, 4> views;
  CHECK(played.member->take_batch(views, 0ns) == 4);
  CHECK(views[3].delivery() == 4);
  CHECK(played.acks.taken() == 4);
  played.words().revoked.store(6, std::memory_order_relaxed);
  CHECK(played.member->take_batch(views, 0ns) == 2);
  CHECK(views[0].delivery() == 7);
  CHECK(played.acks.verdict(4) == Verdict::returned);
  CHECK(played.acks.verdict(5) == Verdict::returned);
  CHECK(played.acks.verdict(6) == Verdict::none);
  CHECK(played.member->take_batch(views, 0ns) == 2);
  CHECK(played.member->take_batch(views, 0ns) == 0);
}

TEST_CASE("at-most-once releases views at the next take and needs no verdict") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096, 0, true);
  for (int i = 0; i < 3; ++i) played.deliver("x");
  std::array<DeliveryView, 2> views;
  CHECK(played.member->take_batch(views, 0ns) == 2);
  CHECK(played.acks.released() == 0);
  CHECK(played.member->verdict(0, Verdict::ack) == Outcome::ok);
  CHECK(played.acks.verdict(0) == Verdict::none);
  CHECK(played.member->take_batch(views, 0ns) == 1);
  CHECK(played.acks.released() == 2);
  CHECK(played.member->take_batch(views, 0ns) == 0);
  CHECK(played.acks.released() == 3);
}

TEST_CASE("detach lets go of the view in the ring, in order, and keeps the event") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  for (const char* text : {"zero", "one", "two"}) played.deliver(text);
  auto zero = played.member->take(played.member, 0ns);
  auto one = played.member->take(played.member, 0ns);
  auto two = played.member->take(played.member, 0ns);
  REQUIRE(two);
  one->detach();
  CHECK(played.acks.released() == 0);
  CHECK(zero->ack() == Outcome::ok);
  CHECK(played.acks.released() == 2);
  CHECK(one->pending());
  CHECK(one->text() == "one");
  CHECK(one->ack() == Outcome::ok);
  CHECK(one->text() == "one");
  CHECK(two->nack() == Outcome::ok);
  CHECK(two->text().empty());
}

TEST_CASE("a verdict rings an exchange that waits for it") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  played.deliver("x");
  auto delivery = played.member->take(played.member, 0ns);
  REQUIRE(delivery);
  played.words().acks_wanted.store(1, std::memory_order_relaxed);
  CHECK(delivery->ack() == Outcome::ok);
  CHECK(played.bell.wait(1'000'000'000));
}

TEST_CASE("a waiting take sleeps and is rung") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  std::thread exchange_thread([&] {
    for (int i = 0; i < 20; ++i) {
      while (played.page_words().parked.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
      played.deliver("x");
      (void)played.bell.ring();
      while (played.acks.taken() != static_cast<std::uint64_t>(i) + 1) std::this_thread::yield();
    }
  });
  for (int i = 0; i < 20; ++i) {
    auto delivery = played.member->take(played.member, 10s);
    REQUIRE(delivery);
    CHECK(delivery->ack() == Outcome::ok);
  }
  exchange_thread.join();
  CHECK_FALSE(played.member->take(played.member, 1ms));
}

TEST_CASE("fd is readable when take may find something, and not after it found nothing") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  const int fd = played.member->fd();
  CHECK(readable(fd));
  CHECK_FALSE(played.member->take(played.member, 0ns));
  CHECK_FALSE(readable(fd));
  CHECK(played.page_words().parked.load(std::memory_order_relaxed) == 1);
  played.deliver("x");
  (void)played.bell.ring();
  CHECK(readable(fd));
  auto delivery = played.member->take(played.member, 0ns);
  REQUIRE(delivery);
  CHECK(delivery->ack() == Outcome::ok);
  CHECK(played.page_words().parked.load(std::memory_order_relaxed) == 0);
  CHECK_FALSE(played.member->take(played.member, 0ns));
  CHECK_FALSE(readable(fd));
  // The exchange dies: no endless readiness; its successor brings a bell for the same number.
  played.bell = {};
  CHECK(readable(fd));
  CHECK_FALSE(played.member->take(played.member, 0ns));
  CHECK_FALSE(readable(fd));
  auto ends = shm::Bell::make_pair();
  played.member->resumed(shm::UniqueFd(ends.second.release()));
  CHECK(readable(fd));
  CHECK_FALSE(played.member->take(played.member, 0ns));
  CHECK_FALSE(readable(fd));
  (void)ends.first.ring();
  CHECK(readable(fd));
  CHECK(played.member->fd() == fd);
}

TEST_CASE("a delivery that outlives its subscriber is stale") {
  PlayedExchange exchange;
  PlayedMember played(exchange, 4096);
  played.deliver("x");
  auto delivery = played.member->take(played.member, 0ns);
  REQUIRE(delivery);
  played.member->leave();
  CHECK(delivery->ack() == Outcome::stale);
  CHECK(played.acks.verdict(0) == Verdict::none);
  CHECK_FALSE(played.member->take(played.member, 1s));
}
