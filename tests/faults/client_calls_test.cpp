// Every system call that a client makes fails once with each error that it may fail with: on the calling thread from
// Bus::open() on, and on the keeper's when the exchange comes again. The caller gets an Error with object and errno, and what
// what he wanted when he asks again; events come once each, and fd() tells of them; no descriptor and no mapping stays.
// The same where the client itself hosts the exchange.
//
// ACKRING_CALL=ENOMEM:12 plays one failure.
#include <doctest/doctest.h>
#include <poll.h>

#include <cstdlib>
#include <map>
#include <thread>

#include "ackring/ackring.hpp"
#include "lib/exchange/host.hpp"
#include "tests/faults/served_bus.hpp"

using namespace ackring;
using namespace ackring::test;
using namespace std::chrono_literals;

namespace {

struct RunningHost {
  explicit RunningHost(const std::string& folder)
      : host(std::make_unique<exchange::Host>(std::make_shared<shm::FileDirectory>(folder + "/b", true), "b")),
        thread([this] {
          exempt_this_thread();
          host->run();
        }) {}
  ~RunningHost() {
    host->stop();
    thread.join();
  }
  std::unique_ptr<exchange::Host> host;
  std::thread thread;
};

// Asks until it is answered; only the injected failure is an excuse.
template <class Ask>
auto insist(CallPlan& plan, Ask ask) {
  for (int tries = 0;; ++tries) {
    try {
      const Armed armed(plan);
      return ask();
    } catch (const Error& error) {
      INFO(error.what());
      REQUIRE(tries < 3);
      CHECK(plan.failed.exchange(false, std::memory_order_relaxed));
      CHECK(error.system_errno() == plan.error);
      CHECK(!error.object().empty());
      CHECK(!error.why().empty());
    }
  }
}

void live(CallPlan& calling, CallPlan& keeping) {
  const BusFolder folder;
  auto host = std::make_unique<RunningHost>(folder.path);
  BusOptions options;
  options.directory = folder.path;
  options.exchange = ExchangeMode::require;
  options.timeout = 20s;
  Bus bus = insist(calling, [&] { return Bus::open("b", options); });
  SubscriptionOptions subscription;
  subscription.name = "s";
  subscription.patterns = {"#"};
  Subscriber subscriber = insist(calling, [&] { return bus.subscribe(subscription); });
  const int fd = insist(calling, [&] { return subscriber.fd(); });
  PublisherOptions named;
  named.name = "one";
  Publisher publisher = insist(calling, [&] { return bus.publisher(named); });
  (void)insist(calling, [&] { return bus.stat_json(); });
  std::uint64_t sequence = 0;
  const auto exchange_event = [&] {
    REQUIRE(publisher.publish("a", as_bytes("payload")) == Outcome::ok);
    std::optional<Delivery> delivery = subscriber.take(20s);
    REQUIRE(delivery);
    CHECK(delivery->sequence() == ++sequence);
    CHECK(delivery->attempt() == 1);
    CHECK(delivery->ack() == Outcome::ok);
  };
  // As one who waits for other things too: nothing but fd() says that something is there.
  const auto exchange_polled_event = [&] {
    REQUIRE(!subscriber.take(0s));
    REQUIRE(publisher.publish("a", as_bytes("payload")) == Outcome::ok);
    std::optional<Delivery> delivery;
    while (!delivery) {
      pollfd entry{fd, POLLIN, 0};
      REQUIRE(::poll(&entry, 1, 20'000) == 1);
      delivery = subscriber.take(0s);
    }
    CHECK(delivery->sequence() == ++sequence);
    CHECK(delivery->ack() == Outcome::ok);
  };
  exchange_event();
  exchange_polled_event();
  {
    const ArmedEverywhere armed(keeping);
    host.reset();
    {
      CallPlan none;  // not this thread's
      const Armed own(none);
      host = std::make_unique<RunningHost>(folder.path);
    }
    CallPlan none;
    const Armed own(none);
    for (int i = 0; i < 3; ++i) exchange_event();
    exchange_polled_event();
    CHECK(publisher.flush(20s) == Outcome::ok);
    CHECK(subscriber.flush(20s) == Outcome::ok);
  }
  exchange_event();
  exchange_polled_event();
  const auto stat = nlohmann::ordered_json::parse(bus.stat_json());
  check_books(stat);
  CHECK(stat["publishers"].size() == 1);
}

// One that finds no exchange, and hosts it.
void live_hosting(CallPlan& calling, CallPlan& /*keeping*/) {
  const BusFolder folder;
  BusOptions options;
  options.directory = folder.path + "/buses";
  options.timeout = 20s;
  for (std::uint64_t round = 1; round <= 2; ++round) {
    Bus bus = insist(calling, [&] { return Bus::open("b", options); });
    SubscriptionOptions subscription;
    subscription.name = "s";
    subscription.patterns = {"#"};
    Subscriber subscriber = insist(calling, [&] { return bus.subscribe(subscription); });
    PublisherOptions named;
    named.name = "one";
    Publisher publisher = insist(calling, [&] { return bus.publisher(named); });
    REQUIRE(publisher.publish("a", as_bytes("payload")) == Outcome::ok);
    std::optional<Delivery> delivery = subscriber.take(20s);
    REQUIRE(delivery);
    CHECK(delivery->sequence() == round);
    CHECK(delivery->ack() == Outcome::ok);
    CHECK(subscriber.flush(20s) == Outcome::ok);
    check_books(nlohmann::ordered_json::parse(insist(calling, [&] { return bus.stat_json(); })));
  }
  const auto files = folder.kinds();
  for (const std::string& file : files) {
    CAPTURE(file);
    CHECK(file.find("damaged.") == std::string::npos);
  }
}

// Plays each position of one side's calls; answers how many.
std::uint64_t play(const char* side, bool keeper, void (*live)(CallPlan&, CallPlan&)) {
  CallPlan idle[2];
  live(idle[0], idle[1]);
  const std::size_t descriptors = open_descriptors();
  const char* only = std::getenv("ACKRING_CALL");
  std::uint64_t played = 0;
  std::map<std::string, std::uint64_t> calls;
  for (const int error : injected_errors()) {
    CallPlan plans[2];
    plans[keeper ? 1 : 0].error = error;
    live(plans[0], plans[1]);
    const std::uint64_t positions = plans[keeper ? 1 : 0].positions.load(std::memory_order_relaxed);
    for (std::uint64_t n = 0; n < positions; ++n) {
      const std::string name = error_name(error);
      if (only != nullptr && name + ":" + std::to_string(n) != only) continue;
      CAPTURE(side);
      CAPTURE(name);
      CAPTURE(n);
      CallPlan failing[2];
      CallPlan& plan = failing[keeper ? 1 : 0];
      plan.error = error;
      plan.fail_at = n;
      live(failing[0], failing[1]);
      INFO("in ", plan.call.load(std::memory_order_relaxed));
      CHECK(open_descriptors() == descriptors);
      CHECK(mapped_files() == 0);
      ++calls[name + " " + plan.call.load(std::memory_order_relaxed)];
      ++played;
    }
  }
  for (const auto& [call, count] : calls) {
    std::printf("  %-28s %5llu\n", call.c_str(), static_cast<unsigned long long>(count));
  }
  std::printf("failures of calls of %s: %llu\n", side, static_cast<unsigned long long>(played));
  return played;
}

}  // namespace

TEST_CASE("every system call of a thread that opens, publishes and subscribes fails once with each error") {
  CHECK(play("a client's thread", false, live) > 5);
}

TEST_CASE("every system call of the keeper fails once with each error while the exchange comes again") {
  CHECK(play("the keeper", true, live) > 2);
}

TEST_CASE("every system call of a thread that opens a bus and hosts its exchange fails once with each error") {
  CHECK(play("a client's thread that hosts the exchange", false, live_hosting) > 5);
}
