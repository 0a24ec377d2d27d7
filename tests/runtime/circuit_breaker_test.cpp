// The breaker alone, with a time that the test lets pass.
#include "lib/runtime/circuit_breaker.hpp"

#include <doctest/doctest.h>

#include "ackring/error.hpp"

using namespace ackring;
using namespace ackring::runtime;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t second = 1'000'000'000;

struct World {
  explicit World(CircuitBreakerOptions options = {}) : breaker(options, now) {}
  bool fail(bool probe = false) { return breaker.failed(probe, now, delay); }
  void succeed(std::uint64_t calls = 1, bool probe = false) { breaker.succeeded(calls, probe, now); }
  Permit permit() { return breaker.permit(now); }
  CircuitState state() { return breaker.view().state; }

  std::uint64_t now = 1000 * second;
  std::uint64_t delay = 0;
  CircuitBreaker breaker;
};

}  // namespace

TEST_CASE("closed, it allows everything, and a success makes up for failures") {
  World world;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) CHECK(world.fail());
    CHECK(world.state() == CircuitState::closed);
    CHECK(world.permit().deliveries > 1'000'000);
    world.succeed(100);
  }
  CHECK(world.breaker.view().failures == 0);
  CHECK(world.breaker.view().opened == 0);
}

TEST_CASE("failures in a row open it; what fails then does not count") {
  World world;
  for (int i = 0; i < 5; ++i) CHECK(world.fail());
  CHECK(world.state() == CircuitState::open);
  CHECK(world.breaker.is_open());
  CHECK(world.permit().deliveries == 0);
  CHECK(world.permit().again_ns <= world.now + second);
  world.now += second / 4;
  CHECK_FALSE(world.fail());  // of a worker that had begun before
  CHECK(world.delay == second * 3 / 4);
  CHECK(world.breaker.view().opened == 1);
}

TEST_CASE("half-open, as many are tried as have to succeed, and then it closes") {
  World world;
  for (int i = 0; i < 5; ++i) (void)world.fail();
  world.now += second;
  Permit permit = world.permit();
  CHECK(permit.probe);
  CHECK(permit.deliveries == 3);
  CHECK(world.state() == CircuitState::half_open);
  world.breaker.began(2);
  CHECK(world.permit().deliveries == 1);
  world.succeed(1, true);
  CHECK(world.permit().deliveries == 1);
  world.breaker.began(1);
  CHECK(world.permit().deliveries == 0);
  world.succeed(1, false);  // begun before it opened: no probe
  CHECK(world.state() == CircuitState::half_open);
  world.succeed(2, true);
  CHECK(world.state() == CircuitState::closed);
  CHECK_FALSE(world.permit().probe);
}

TEST_CASE("a probe that fails opens it again, for twice as long, up to a bound") {
  World world({.longest_open = 3s});
  for (int i = 0; i < 5; ++i) (void)world.fail();
  for (const std::uint64_t next : {2 * second, 3 * second, 3 * second}) {
    world.now += 3 * second;
    REQUIRE(world.permit().deliveries == 3);
    world.breaker.began(1);
    CHECK_FALSE(world.fail(true));
    CHECK(world.delay == next);
    CHECK(world.state() == CircuitState::open);
  }
  CHECK(world.breaker.view().opened == 4);
  world.now += 3 * second;
  REQUIRE(world.permit().deliveries == 3);
  world.breaker.began(3);
  world.succeed(3, true);
  for (int i = 0; i < 5; ++i) (void)world.fail();
  CHECK(world.permit().deliveries == 0);
  world.now += second;  // it has forgotten how long it was open
  CHECK(world.permit().deliveries == 3);
}

TEST_CASE("probes that were taken and never tried are free again") {
  World world;
  for (int i = 0; i < 5; ++i) (void)world.fail();
  world.now += second;
  REQUIRE(world.permit().deliveries == 3);
  world.breaker.began(3);
  CHECK(world.permit().deliveries == 0);
  world.breaker.dropped(2);
  CHECK(world.permit().deliveries == 2);
}

TEST_CASE("a rate of failures opens it, of the window alone") {
  World world({.failures = 0, .failure_rate = 0.5, .minimum_calls = 20, .window = 10s});
  for (int i = 0; i < 9; ++i) {
    world.succeed();
    CHECK(world.fail());
  }
  CHECK(world.state() == CircuitState::closed);  // too few
  world.now += 11 * second;
  for (int i = 0; i < 9; ++i) {
    world.succeed();
    CHECK(world.fail());
  }
  CHECK(world.state() == CircuitState::closed);  // those before are too old
  world.succeed();
  CHECK(world.fail());
  CHECK(world.state() == CircuitState::open);
}

TEST_CASE("an operator's order holds, whatever happens") {
  World world;
  world.breaker.order(BreakerOrder::open, world.now);
  CHECK(world.state() == CircuitState::open);
  world.now += 100 * second;
  CHECK(world.permit().deliveries == 0);
  world.breaker.order(BreakerOrder::closed, world.now);
  CHECK(world.state() == CircuitState::closed);
  for (int i = 0; i < 50; ++i) CHECK(world.fail());
  CHECK(world.permit().deliveries > 1'000'000);
  world.breaker.order(BreakerOrder::automatic, world.now);
  world.succeed();
  for (int i = 0; i < 5; ++i) (void)world.fail();
  CHECK(world.state() == CircuitState::open);
}

TEST_CASE("without one, every failure counts") {
  World world({.enabled = false});
  for (int i = 0; i < 50; ++i) CHECK(world.fail());
  CHECK(world.permit().deliveries > 1'000'000);
  CHECK(world.breaker.view().failures == 50);
}

TEST_CASE("options that mean nothing are refused by name") {
  const auto refused = [](const CircuitBreakerOptions& options) {
    try {
      CircuitBreaker breaker(options, 1);
      return std::string();
    } catch (const Error& error) {
      return error.object();
    }
  };
  CHECK(refused({.failure_rate = 0}) == "CircuitBreakerOptions::failure_rate");
  CHECK(refused({.failure_rate = 1.1}) == "CircuitBreakerOptions::failure_rate");
  CHECK(refused({.window = 1ms}) == "CircuitBreakerOptions::window");
  CHECK(refused({.open_for = 0s}) == "CircuitBreakerOptions::open_for");
  CHECK(refused({.longest_open = 1ms}) == "CircuitBreakerOptions::longest_open");
  CHECK(refused({.probes = 0}) == "CircuitBreakerOptions::probes");
  CHECK(refused({}).empty());
}
