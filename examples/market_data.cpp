// Market data: at most once, to many. Who is slow loses the oldest ticks, which nobody wants any more, and slows
// neither the publisher nor anybody else.
//
//   build/release/examples/market_data
//
// Prints:
//   fast: 20000 of 20000 ticks
//   slow: lost some: yes; the last one that it has: 20000
#include <iostream>
#include <string>
#include <thread>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

namespace {

struct Tick {
  int number;
  double price;
};

}  // namespace

int main() {
  constexpr int ticks = 20'000;
  auto bus = ackring::Bus::open("market_data");
  auto fast = bus.subscribe({.patterns = {"ticks.#"}, .guarantee = ackring::at_most_once});
  // Besides its ring, a hundred ticks wait for this one; of more, the oldest are dropped.
  auto slow = bus.subscribe({.patterns = {"ticks.#"},
                             .guarantee = ackring::at_most_once,
                             .ring_bytes = 4096,
                             .max_events = 100,
                             .overflow = ackring::Overflow::drop_oldest});

  std::thread reader([&] {
    int count = 0;
    while (count < ticks && fast.take(5s)) ++count;
    std::cout << "fast: " << count << " of " << ticks << " ticks\n";
  });
  auto publisher = bus.publisher();
  for (int i = 1; i <= ticks; ++i) {
    const Tick tick{i, 100.0 + i % 7};
    const auto bytes = ackring::TrivialSerializer<Tick>::encode(tick);
    if (publisher.publish_wait("ticks.XETR.SAP", bytes, 5s) != ackring::Outcome::ok) return 1;
  }
  if (publisher.flush(5s) != ackring::Outcome::ok) return 1;
  reader.join();  // it was never held up by the other one, which has taken nothing yet

  int count = 0;
  Tick last{};
  while (auto delivery = slow.take(100ms)) {
    last = ackring::TrivialSerializer<Tick>::decode(delivery->payload());
    ++count;
  }
  std::cout << "slow: lost some: " << (count < ticks ? "yes" : "no") << "; the last one that it has: " << last.number
            << "\n";
}
