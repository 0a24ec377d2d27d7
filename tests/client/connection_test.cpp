// Buses in a directory: who serves them, and what happens when that ends.
#include <doctest/doctest.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ackring/ackring.hpp"
#include "lib/control/socket.hpp"
#include "lib/exchange/host.hpp"
#include "lib/shm/format.hpp"

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

// A client that speaks the protocol by itself.
struct RawClient {
  explicit RawClient(const std::string& directory) : socket(control::Socket::connect(directory + "/b/exchange.sock")) {}
  control::Json ask(const control::Json& request) {
    REQUIRE(socket.send(request) == control::SendStatus::sent);
    return answer();
  }
  control::Json answer() {
    control::Message message;
    std::string reason;
    REQUIRE(socket.wait_readable(10'000'000'000));
    REQUIRE(socket.receive(message, reason) == control::ReceiveStatus::message);
    for (shm::UniqueFd& descriptor : message.descriptors) descriptors.push_back(std::move(descriptor));
    return message.body;
  }
  control::Json hello(std::uint64_t client = 0) {
    return ask({{"op", "hello"},
                {"id", 0},
                {"layout", shm::layout_version},
                {"membarrier", true},
                {"name", "raw"},
                {"client", client}});
  }
  control::Socket socket;
  std::vector<shm::UniqueFd> descriptors;
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

TEST_CASE("require waits for an exchange that has the bus and does not listen yet") {
  const TemporaryDirectory directory;
  BusOptions options{.directory = directory.path, .exchange = ExchangeMode::require};
  options.timeout = 50ms;
  std::optional<exchange::Host> recovers;
  recovers.emplace(std::make_shared<shm::FileDirectory>(directory.path + "/b", true), "b",
                   exchange::HostOptions{.listen = false});
  try {
    (void)Bus::open("b", options);
    FAIL("nobody listens");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::timeout);
  }
  options.timeout = 60s;
  std::optional<RunningHost> host;
  std::thread starts([&] {
    recovers.reset();
    host.emplace(directory.path);
  });
  std::optional<Bus> bus;
  while (!bus) {
    try {
      bus.emplace(Bus::open("b", options));
    } catch (const Error& error) {  // in between nobody has the bus
      CHECK(error.code() == ErrorCode::no_exchange);
    }
  }
  starts.join();
  CHECK(bus->stat_json().find("running") != std::string::npos);
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

TEST_CASE("closing waits for nobody: the exchange hears of it when it is back") {
  TemporaryDirectory directory;
  std::optional<RunningHost> host(std::in_place, directory.path);
  Bus bus = Bus::open("b", {.directory = directory.path, .exchange = ExchangeMode::require});
  constexpr int count = 50;
  std::vector<Publisher> publishers;
  for (int i = 0; i < count; ++i) publishers.push_back(bus.publisher({.name = "p" + std::to_string(i)}));
  std::optional<Subscriber> subscriber(bus.subscribe({.name = "s", .patterns = {"#"}}));
  host.reset();
  while (bus.connected()) std::this_thread::yield();
  const auto begin = std::chrono::steady_clock::now();
  publishers.clear();
  subscriber.reset();
  CHECK(std::chrono::steady_clock::now() - begin < 2s);
  host.emplace(directory.path);
  // Each request comes behind what was closed before it: names and subscription are free.
  for (int i = 0; i < count; ++i) publishers.push_back(bus.publisher({.name = "p" + std::to_string(i)}));
  CHECK_NOTHROW(subscriber.emplace(bus.subscribe({.name = "s"})));
  REQUIRE(publishers.back().publish("t", "x") == Outcome::ok);
  CHECK(subscriber->take(10s));
}

TEST_CASE("a client that does not read is neither waited for nor hung up on; no answer of it is lost") {
  TemporaryDirectory directory;
  const RunningHost host(directory.path);
  RawClient slow(directory.path);
  CHECK(slow.hello().at("ok") == true);
  std::uint64_t asked = 0;
  pollfd room{slow.socket.fd(), POLLOUT, 0};
  do {  // until neither side has room
    while (slow.socket.send({{"op", "ping"}, {"id", asked + 1}}) == control::SendStatus::sent) ++asked;
  } while (::poll(&room, 1, 200) > 0);
  Bus bus = Bus::open("b", {.directory = directory.path, .exchange = ExchangeMode::require});
  CHECK_NOTHROW((void)bus.stat_json());
  CHECK_FALSE(slow.socket.hung_up());
  for (std::uint64_t id = 1; id <= asked; ++id) CHECK(slow.answer().at("id") == id);
  CHECK(slow.ask({{"op", "ping"}, {"id", 0}}).at("id") == 0);

  // One that goes while an answer waits for it leaves nothing behind.
  while (slow.socket.send({{"op", "ping"}, {"id", 1}}) == control::SendStatus::sent) {
  }
  slow.socket.close();
  slow.descriptors.clear();
  CHECK_NOTHROW((void)bus.stat_json());
}

TEST_CASE("a request without an id is not answered; a client that comes back says its last words first") {
  TemporaryDirectory directory;
  const RunningHost host(directory.path);
  RawClient first(directory.path);
  const std::uint64_t client = first.hello().at("client");
  const auto publisher = first.ask({{"op", "publisher"}, {"id", 1}, {"name", "p"}, {"ring_bytes", 4096}});
  REQUIRE(publisher.at("ok") == true);
  RawClient early(directory.path);
  CHECK(early.hello(client).at("code") == "busy");  // while the first connection is open
  REQUIRE(first.socket.send({{"op", "ping"}}) == control::SendStatus::sent);
  CHECK(first.ask({{"op", "ping"}, {"id", 2}}).at("id") == 2);

  REQUIRE(first.socket.send({{"op", "publisher_close"},
                             {"slot", publisher.at("slot")},
                             {"incarnation", publisher.at("incarnation")}}) == control::SendStatus::sent);
  first.socket.close();
  RawClient second(directory.path);
  CHECK(second.hello(client).at("client") == client);
  CHECK(second.ask({{"op", "publisher"}, {"id", 3}, {"name", "p"}, {"ring_bytes", 4096}}).at("ok") == true);
  RawClient stranger(directory.path);
  CHECK(stranger.hello(client + 100).at("code") == "not_found");
}

TEST_CASE("a bus that was made anew: its clients are new ones, and their endpoints say so") {
  TemporaryDirectory directory;
  std::optional<RunningHost> host(std::in_place, directory.path);
  Bus bus = Bus::open("b", {.directory = directory.path, .exchange = ExchangeMode::require});
  Publisher publisher = bus.publisher({.name = "p"});
  Subscriber subscriber = bus.subscribe({.name = "s", .patterns = {"#"}});
  host.reset();
  std::filesystem::remove_all(directory.path + "/b");
  host.emplace(directory.path);
  Publisher other = bus.publisher({.name = "q"});
  CHECK(other.publish("t", "x") == Outcome::ok);
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!subscriber.closed() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  CHECK(subscriber.closed());
}
