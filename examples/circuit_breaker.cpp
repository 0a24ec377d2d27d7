// A circuit breaker: while what a handler needs is down, its events wait in their queue and burn no attempts; a few
// probes find out when it is back.
//
//   build/release/examples/circuit_breaker     (`shmtool stat --bus circuit_breaker` shows the breaker meanwhile)
//
// Prints:
//   the database is down: breaker open, nothing handled
//   the database is back: breaker closed, 20 handled
//   dead letters: 0
#include <atomic>
#include <iostream>
#include <string>
#include <thread>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

int main() {
  auto bus = ackring::Bus::open("circuit_breaker");
  std::atomic<bool> down = true;
  ackring::EventBus events(bus);
  ackring::HandlerOptions options;
  options.subscription = {.name = "writer", .max_deliveries = 5, .backoff_initial = 10ms};
  options.breaker = {.failures = 3, .open_for = 50ms, .longest_open = 100ms};
  events.on(
      "rows.#",
      [&](ackring::Delivery&) {
        // relaxed: only the flag itself counts
        if (down.load(std::memory_order_relaxed)) throw std::runtime_error("no connection to the database");
      },
      options);
  events.start();

  auto publisher = bus.publisher();
  for (int i = 0; i < 20; ++i) {
    if (publisher.publish("rows.inserted", std::to_string(i)) != ackring::Outcome::ok) return 1;
  }
  const auto wait_for = [&](ackring::CircuitState state, std::uint64_t handled) {
    const auto end = std::chrono::steady_clock::now() + 10s;
    while (std::chrono::steady_clock::now() < end) {
      const auto status = events.status().front();
      if (status.breaker == state && status.handled == handled) {
        std::cout << "breaker " << to_string(status.breaker) << ", ";
        return true;
      }
      std::this_thread::sleep_for(1ms);
    }
    return false;
  };
  std::cout << "the database is down: ";
  if (!wait_for(ackring::CircuitState::open, 0)) return 1;
  std::cout << "nothing handled\n";

  // relaxed: only the flag itself counts
  down.store(false, std::memory_order_relaxed);
  std::cout << "the database is back: ";
  if (!wait_for(ackring::CircuitState::closed, 20)) return 1;
  std::cout << "20 handled\n";
  events.stop();
  events.join();
  ackring::DeadLetterCursor cursor;
  std::cout << "dead letters: " << (bus.dead_letters_ndjson("writer", cursor).empty() ? "0" : "some") << "\n";
}
