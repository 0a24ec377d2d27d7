// F8: the child of a fork has handles that refuse, and touches nothing of its parent.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "ackring/ackring.hpp"

using namespace ackring;
using namespace std::chrono_literals;

namespace {

// Number of the first check that failed, 0 if none did.
int check_child(Bus& bus, std::optional<Publisher>& publisher, std::optional<Subscriber>& subscriber,
                std::optional<Delivery>& delivery, Loan& loan) {
  if (publisher->publish("t", "child") != Outcome::closed) return 1;
  if (publisher->add("t", as_bytes("child")) != Outcome::closed) return 2;
  if (publisher->commit_batch() != Outcome::closed) return 2;
  if (loan.commit() != Outcome::closed) return 3;
  if (publisher->flush(1s) != Outcome::closed || publisher->in_ring() != 0) return 4;
  if (subscriber->take(1s) || !subscriber->closed()) return 5;
  if (!delivery->topic().empty() || !delivery->payload().empty()) return 6;
  if (delivery->ack() != Outcome::closed) return 7;
  if (subscriber->flush(1s) != Outcome::closed) return 8;
  if (bus.connected()) return 9;
  try {
    (void)bus.publisher();
    return 10;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::closed) return 11;
  }
  delivery.reset();
  subscriber.reset();
  publisher.reset();
  return 0;
}

}  // namespace

TEST_CASE("after a fork the child's handles are closed and the parent's go on") {
  Bus bus = Bus::in_memory();
  std::optional<Publisher> publisher(bus.publisher());
  std::optional<Subscriber> subscriber(bus.subscribe({.name = "s", .patterns = {"#"}}));
  REQUIRE(publisher->publish("t", "1") == Outcome::ok);
  std::optional<Delivery> delivery = subscriber->take(5s);
  REQUIRE(delivery);
  const int fd = subscriber->fd();
  Loan loan = publisher->loan("t", 1);
  REQUIRE(loan);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(check_child(bus, publisher, subscriber, delivery, loan));
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  loan.data()[0] = std::byte{'2'};
  CHECK(loan.commit() == Outcome::ok);
  CHECK(delivery->text() == "1");
  CHECK(delivery->ack() == Outcome::ok);
  auto next = subscriber->take(5s);
  REQUIRE(next);
  CHECK(next->text() == "2");
  CHECK(next->ack() == Outcome::ok);
  CHECK(subscriber->fd() == fd);
  CHECK(bus.connected());
}
