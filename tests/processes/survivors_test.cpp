// Clients that are still there when their exchange has gone, though they do not look so: one that is stopped over two
// restarts, and a child that the process with the embedded exchange has left behind.
#include "tests/processes/support.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <memory>
#include <optional>

using namespace ackring;
using namespace ackring::test;

namespace {

std::uint64_t number(const Json& stat, const std::string& subscription, const char* field) {
  return row_of(stat, "subscriptions", subscription).at(field).get<std::uint64_t>();
}

// Takes two events of each of two subscriptions, publishes some more, and goes on with all of them when it is told to.
void hold_and_publish(Channel& channel, const std::string& directory) {
  Bus bus = open_bus(directory);
  Subscriber patient = bus.subscribe({.name = "patient", .patterns = {"a"}, .ack_timeout = 1h});
  Subscriber hasty = bus.subscribe(
      {.name = "hasty", .patterns = {"a"}, .ack_timeout = 300ms, .backoff_initial = 1h, .backoff_max = 1h});
  Publisher publisher = bus.publisher({.name = "p"});
  for (int i = 0; i < 4; ++i) require(publisher.publish("a", "x") == Outcome::ok, "publish");
  require(publisher.flush(patience) == Outcome::ok, "flush");
  std::vector<Delivery> held;
  for (Subscriber* subscriber : {&patient, &hasty}) {
    for (int i = 0; i < 2; ++i) {
      auto delivery = subscriber->take(patience);
      require(delivery.has_value(), "nothing to take");
      held.push_back(std::move(*delivery));
    }
  }
  channel.send({{"sequence", publisher.sequence()}});
  channel.expect(4 * patience, "the end of the standstill");
  require(publisher.publish("a", "after") == Outcome::ok, "publish");
  require(publisher.sequence() == 5, "its sequence did not go on");
  require(publisher.flush(patience) == Outcome::ok, "flush after the standstill");
  for (Delivery& delivery : held) require(delivery.ack() == Outcome::ok, "ack");
  require(patient.flush(patience) == Outcome::ok && hasty.flush(patience) == Outcome::ok, "flush of the acks");
  for (std::uint64_t sequence = 3; sequence <= 5; ++sequence) {
    auto delivery = patient.take(patience);
    require(delivery && delivery->sequence() == sequence && delivery->attempt() == 1, "another event was expected");
    require(delivery->ack() == Outcome::ok, "ack");
  }
  require(patient.flush(patience) == Outcome::ok, "flush");
  channel.send({{"done", true}});
  channel.receive(patience);
}

bool has_open(pid_t pid, const std::string& what) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    std::error_code error;
    if (std::filesystem::read_symlink(entry.path(), error).string().find(what) != std::string::npos) return true;
  }
  return false;
}

std::size_t sockets_of(pid_t pid) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    std::error_code error;
    count += std::filesystem::read_symlink(entry.path(), error).string().starts_with("socket:") ? 1 : 0;
  }
  return count;
}

// Serves the bus itself, publishes an event, and forks a child that stays, as a program that starts others may do.
void host_and_fork(Channel& channel, const std::string& directory, bool executes) {
  Bus bus = Bus::open(bus_name, bus_options(directory, ExchangeMode::automatic));
  bus.create_subscription({.name = "all", .patterns = {"#"}});
  Publisher publisher = bus.publisher({.name = "host"});
  require(publisher.publish("t", "1") == Outcome::ok && publisher.flush(patience) == Outcome::ok, "publish");
  channel.send({{"serves", true}});
  channel.expect(patience, "the other client");
  const pid_t child = ::fork();
  if (child == 0) {
    if (executes) {
      ::execl("/bin/sleep", "sleep", "1000", nullptr);
      ::_exit(1);
    }
    bool refused = publisher.publish("t", "child") == Outcome::closed;
    try {
      (void)bus.publisher();
      refused = false;
    } catch (const Error& error) {
      refused = refused && error.code() == ErrorCode::closed;
    }
    channel.send({{"refused", refused}});
    while (true) ::pause();
  }
  if (executes) channel.send({{"refused", true}});
  channel.send({{"child", child}});
  while (true) ::pause();
}

}  // namespace

TEST_CASE("a client that is stopped over restarts of the exchange is not dead: it goes on where it was (F5)") {
  const TemporaryDirectory temporary("stopped");
  auto exchange = std::make_unique<ExchangeProcess>(temporary.path());
  Child client = Child::start("client", [&](Channel& channel) { hold_and_publish(channel, temporary.path()); });
  CHECK(client.channel().expect(patience, "what it holds").at("sequence") == 4);
  ::kill(client.pid(), SIGSTOP);
  for (int i = 0; i < 2; ++i) {
    exchange->kill();
    exchange = std::make_unique<ExchangeProcess>(temporary.path());
    if (i == 0) ::poll(nullptr, 0, 50);
  }
  // Its own time-out is the only thing that may happen to what it holds, and it counts the time without it as well.
  REQUIRE(eventually([&] { return number(shm_stat(temporary.path()), "hasty", "timed_out") == 2; }));
  Json stat = shm_stat(temporary.path());
  check_books(stat);
  CHECK(number(stat, "patient", "in_flight") == 2);
  CHECK(number(stat, "patient", "queued") == 2);
  CHECK(number(stat, "patient", "redelivered") == 0);
  CHECK(number(stat, "hasty", "retry_waiting") == 2);
  // Nobody else gets its place.
  const Ran second = run({program("ACKRING_SHMTOOL"), "--dir", temporary.path(), "--bus", bus_name, "sub", "--name",
                          "patient", "--count", "1"});
  CHECK(second.status != 0);
  ::kill(client.pid(), SIGCONT);
  client.channel().send({{"go", true}});
  client.channel().expect(patience, "the rest");
  stat = shm_stat(temporary.path());
  check_books(stat);
  CHECK(number(stat, "patient", "acked") == 5);
  CHECK(number(stat, "patient", "redelivered") == 0);
  CHECK(number(stat, "patient", "timed_out") == 0);
  CHECK(number(stat, "hasty", "acked") == 2);  // late, and they count: the retries wait
  CHECK(number(stat, "hasty", "redelivered") == 0);
  CHECK(row_of(stat, "publishers", "p").at("routed") == 5);
  client.channel().send({{"end", true}});
  CHECK(client.wait(patience) == 0);
  CHECK(exchange->stop() == 0);
}

TEST_CASE("a child of the process that hosts the exchange keeps neither its lock nor its connections (F8)") {
  for (const bool executes : {false, true}) {
    CAPTURE(executes);
    const TemporaryDirectory temporary("fork");
    Child host = Child::start("host", [&](Channel& channel) { host_and_fork(channel, temporary.path(), executes); });
    host.channel().expect(patience, "the host");
    Child other = Child::start("other", [&](Channel& channel) {
      Bus bus = Bus::open(bus_name, bus_options(temporary.path(), ExchangeMode::automatic));
      Subscriber subscriber = bus.subscribe({.name = "all"});
      Publisher publisher = bus.publisher({.name = "other"});
      for (const char* text : {"1", "2"}) {
        auto delivery = subscriber.take(patience);
        require(delivery && delivery->text() == text, "another event was expected");
        require(delivery->ack() == Outcome::ok && subscriber.flush(patience) == Outcome::ok, "ack");
        channel.send({{"took", text}});
        if (*text == '2') break;
        channel.expect(patience, "the death of the host");
        require(publisher.publish("t", "2") == Outcome::ok, "publish");
      }
      channel.receive(patience);
    });
    other.channel().expect(patience, "the first event");
    host.channel().send({{"fork", true}});
    Json told = host.channel().expect(patience, "the child");
    told.update(host.channel().expect(patience, "the child"));
    const pid_t child = told.at("child");
    CHECK(told.at("refused") == true);
    // The channel of this test is a socket as well, and so are the child's ends of doorbells.
    CHECK(eventually([&] { return !has_open(child, "exchange.lock"); }));
    CHECK(sockets_of(child) < sockets_of(host.pid()));
    // The parent goes on serving; and when it dies, the other one is told so and serves the bus itself.
    CHECK(shm_stat(temporary.path()).at("exchange").at("pid") == host.pid());
    const std::int64_t killed = now_ns();
    ::kill(host.pid(), SIGKILL);
    host.wait(patience);
    other.channel().send({{"dead", true}});
    CHECK(other.channel().expect(patience, "the second event").at("took") == "2");
    MESSAGE("an event is routed " << static_cast<double>(now_ns() - killed) / 1e6
                                  << " ms after the host was killed, whose child lives");
    CHECK(::kill(child, 0) == 0);
    const Json stat = shm_stat(temporary.path());
    check_books(stat);
    CHECK(stat.at("exchange").at("pid") == other.pid());
    ::kill(child, SIGKILL);
  }
}
