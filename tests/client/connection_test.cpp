// Buses in a directory: who serves them, and what happens when that ends.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "ackring/ackring.hpp"
#include "lib/exchange/host.hpp"

using namespace ackring;
using namespace std::chrono_literals;

namespace {

struct TemporaryDirectory {
  std::string path = "/tmp/ackring-client-test-XXXXXX";
  TemporaryDirectory() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
};

struct RunningHost {
  explicit RunningHost(const std::string& directory)
      : host(std::make_unique<exchange::Host>(std::make_shared<shm::FileDirectory>(directory + "/b", true), "b")),
        thread([this] { host->run(); }) {}
  ~RunningHost() {
    host->stop();
    thread.join();
  }
  std::unique_ptr<exchange::Host> host;
  std::thread thread;
};

}  // namespace

TEST_CASE("require throws no_exchange at once, automatic serves the bus itself") {
  TemporaryDirectory directory;
  BusOptions options{.directory = directory.path, .exchange = ExchangeMode::require};
  try {
    (void)Bus::open("b", options);
    FAIL("nobody serves it");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::no_exchange);
  }
  CHECK_THROWS_AS((void)Bus::open("a/b", options), Error);
  options.timeout = 0ns;
  CHECK_THROWS_AS((void)Bus::open("b", options), Error);
  Bus serving = Bus::open("b", {.directory = directory.path});
  options.timeout = 5s;
  Bus attached = Bus::open("b", options);
  Subscriber subscriber = attached.subscribe({.patterns = {"#"}});
  Publisher publisher = serving.publisher();
  REQUIRE(publisher.publish("t", "x") == Outcome::ok);
  auto delivery = subscriber.take(5s);
  REQUIRE(delivery);
  CHECK(delivery->ack() == Outcome::ok);
}

TEST_CASE("endpoints go on through a restart of the exchange") {
  TemporaryDirectory directory;
  std::optional<RunningHost> host(std::in_place, directory.path);
  Bus bus = Bus::open("b", {.directory = directory.path, .exchange = ExchangeMode::require});
  Publisher publisher = bus.publisher({.name = "p"});
  Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"#"}});
  const int fd = subscriber.fd();
  std::uint64_t sequence = 0;
  for (int round = 0; round < 3; ++round) {
    REQUIRE(publisher.publish("t", "before") == Outcome::ok);
    host.reset();
    REQUIRE(publisher.publish("t", "meanwhile") == Outcome::ok);
    host.emplace(directory.path);
    REQUIRE(publisher.publish("t", "after") == Outcome::ok);
    for (int i = 0; i < 3; ++i) {
      auto delivery = subscriber.take(10s);
      REQUIRE(delivery);
      CHECK(delivery->sequence() == ++sequence);
      CHECK(delivery->attempt() == 1);
      CHECK(delivery->ack() == Outcome::ok);
    }
    CHECK(subscriber.flush(10s) == Outcome::ok);
    CHECK(publisher.flush(10s) == Outcome::ok);
  }
  CHECK(subscriber.fd() == fd);
  CHECK_FALSE(subscriber.closed());
}

TEST_CASE("another client takes over when the one that serves the bus goes") {
  TemporaryDirectory directory;
  std::optional<Bus> serving(Bus::open("b", {.directory = directory.path}));
  Bus other = Bus::open("b", {.directory = directory.path});
  Publisher publisher = other.publisher();
  Subscriber subscriber = other.subscribe({.name = "s", .patterns = {"#"}});
  REQUIRE(publisher.publish("t", "1") == Outcome::ok);
  serving.reset();
  REQUIRE(publisher.publish("t", "2") == Outcome::ok);
  for (const char* text : {"1", "2"}) {
    auto delivery = subscriber.take(10s);
    REQUIRE(delivery);
    CHECK(delivery->text() == text);
    CHECK(delivery->ack() == Outcome::ok);
  }
  CHECK(publisher.flush(10s) == Outcome::ok);
}
