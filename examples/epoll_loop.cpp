// A subscriber in an epoll loop, beside other descriptors: here a timer, which publishes.
//
//   build/release/examples/epoll_loop
//
// Prints:
//   tick 1
//   tick 2
//   tick 3
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <iostream>
#include <string>

#include <ackring/ackring.hpp>

int main() {
  auto bus = ackring::Bus::open("epoll_loop");
  auto subscriber = bus.subscribe({.patterns = {"ticks"}});
  auto publisher = bus.publisher();

  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  const itimerspec every_20_ms{{0, 20'000'000}, {0, 20'000'000}};
  ::timerfd_settime(timer, 0, &every_20_ms, nullptr);

  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  for (const int fd : {timer, subscriber.fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return 1;
  }
  int published = 0;
  int taken = 0;
  while (taken < 3) {
    std::array<epoll_event, 4> ready;
    const int count = ::epoll_wait(epoll, ready.data(), ready.size(), 5'000);
    if (count <= 0) return 1;
    for (int i = 0; i < count; ++i) {
      if (ready[i].data.fd == timer) {
        std::uint64_t expirations = 0;
        if (::read(timer, &expirations, sizeof expirations) < 0 || published == 3) continue;
        const std::string text = "tick " + std::to_string(++published);
        if (publisher.publish("ticks", text) != ackring::Outcome::ok) return 1;
      } else {
        // Until nothing is left: it is this last take() that makes the descriptor ring for the next event.
        while (auto delivery = subscriber.take()) {
          std::cout << delivery->text() << "\n";
          (void)delivery->ack();
          ++taken;
        }
      }
    }
  }
  ::close(epoll);
  ::close(timer);
}
