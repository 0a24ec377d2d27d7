// co_await take() on Asio: all that it needs of a loop is one function, which waits for a descriptor or a deadline. (In
// a coroutine of Asio's own, an asio::awaitable, take() and `co_await descriptor.async_wait(wait_read, use_awaitable)`
// in turns do.)
//
//   build/release/examples/asio_coroutine
//
// Prints:
//   job 1
//   job 2
//   nothing within 50 ms: done
#include <iostream>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <ackring/ackring.hpp>
#include <ackring/coroutine.hpp>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using boost::system::error_code;

namespace {

/// One subscriber's place in an io_context.
class AsioWait {
 public:
  AsioWait(asio::io_context& io, ackring::Subscriber& subscriber) : readable_(io, subscriber.fd()), timer_(io) {}
  ~AsioWait() { readable_.release(); }  // the descriptor is the subscriber's

  void when_readable(int, ackring::Deadline deadline, ackring::Resume resume) {
    timer_.expires_at(deadline);
    timer_.async_wait([this](error_code error) {
      // Of an earlier wait, perhaps, which ended while this was on its way.
      if (!error && timer_.expiry() <= std::chrono::steady_clock::now()) readable_.cancel();
    });
    readable_.async_wait(asio::posix::stream_descriptor::wait_read, [this, resume](error_code error) {
      timer_.cancel();
      resume(!error);
    });
  }

 private:
  asio::posix::stream_descriptor readable_;
  asio::steady_timer timer_;
};

ackring::DetachedCoroutine work(ackring::Subscriber& subscriber, AsioWait& wait) {
  while (auto job = co_await take(subscriber, wait, 50ms)) {
    std::cout << job->text() << "\n";
    (void)job->ack();
  }
  std::cout << "nothing within 50 ms: done\n";
}

}  // namespace

int main() {
  auto bus = ackring::Bus::open("asio_coroutine");
  auto subscriber = bus.subscribe({.patterns = {"jobs"}});
  auto publisher = bus.publisher();
  asio::io_context io;
  AsioWait wait(io, subscriber);
  work(subscriber, wait);  // waits already
  for (const char* job : {"job 1", "job 2"}) {
    if (publisher.publish("jobs", job) != ackring::Outcome::ok) return 1;
  }
  io.run();
}
