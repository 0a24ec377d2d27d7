// A subscriber in an Asio program: its descriptor as a stream_descriptor, beside a timer that publishes.
//
//   build/release/examples/asio_loop
//
// Prints:
//   tick 1
//   tick 2
//   tick 3
//   nothing left to do
#include <functional>
#include <iostream>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <ackring/ackring.hpp>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using boost::system::error_code;

int main() {
  auto bus = ackring::Bus::open("asio_loop");
  auto subscriber = bus.subscribe({.patterns = {"ticks"}});
  auto publisher = bus.publisher();
  asio::io_context io;

  asio::posix::stream_descriptor readable(io, subscriber.fd());
  int taken = 0;
  std::function<void()> take_all = [&] {
    // Until nothing is left: it is this last take() that makes the descriptor ring for the next event.
    while (auto delivery = subscriber.take()) {
      std::cout << delivery->text() << "\n";
      (void)delivery->ack();
      ++taken;
    }
    if (taken == 3) return;
    readable.async_wait(asio::posix::stream_descriptor::wait_read, [&](error_code error) {
      if (!error) take_all();
    });
  };
  take_all();

  asio::steady_timer timer(io);
  int published = 0;
  std::function<void()> tick = [&] {
    timer.expires_after(20ms);
    timer.async_wait([&](error_code error) {
      if (error) return;
      (void)publisher.publish("ticks", "tick " + std::to_string(++published));
      if (published < 3) tick();
    });
  };
  tick();

  io.run();
  readable.release();  // the descriptor is the subscriber's, which closes it
  std::cout << "nothing left to do\n";
}
