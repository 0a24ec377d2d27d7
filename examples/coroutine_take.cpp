// co_await take(): coroutines that wait for deliveries, all on one thread. PollLoop runs them here; any other loop does
// that can say when a descriptor is readable (asio_coroutine.cpp shows one).
//
//   build/release/examples/coroutine_take
//
// Prints:
//   ping 1
//   pong 1
//   ping 2
//   pong 2
//   nobody answers: nothing within 50 ms
#include <iostream>
#include <string>

#include <ackring/ackring.hpp>
#include <ackring/poll_loop.hpp>

using namespace std::chrono_literals;

namespace {

// Parameters are copied into the coroutine; what they refer to has to live as long as it runs.
ackring::DetachedCoroutine answer(ackring::Bus bus, ackring::PollLoop& loop) {
  auto pings = bus.subscribe({.patterns = {"ping"}});
  auto publisher = bus.publisher();
  for (int i = 0; i < 2; ++i) {
    auto ping = co_await take(pings, loop);
    if (!ping) co_return;  // the loop was stopped
    std::cout << "ping " << ping->text() << "\n";
    (void)publisher.publish("pong", ping->payload());
    (void)ping->ack();
  }
}

ackring::DetachedCoroutine ask(ackring::Bus bus, ackring::PollLoop& loop) {
  auto pongs = bus.subscribe({.patterns = {"pong"}});
  auto publisher = bus.publisher();
  for (int i = 1;; ++i) {
    (void)publisher.publish("ping", std::to_string(i));
    auto pong = co_await take(pongs, loop, i < 3 ? 5s : 50ms);
    if (!pong) break;
    std::cout << "pong " << pong->text() << "\n";
    (void)pong->ack();
  }
  std::cout << "nobody answers: nothing within 50 ms\n";
}

}  // namespace

int main() {
  auto bus = ackring::Bus::open("coroutine_take");
  ackring::PollLoop loop;
  answer(bus, loop);
  ask(bus, loop);
  loop.run();  // until no coroutine waits any more
}
