// The exchange dies, or stands still, in the middle of a run: nothing is lost, nothing is delivered twice, and the
// programs around it go on by themselves.
#include "tests/processes/support.hpp"

#include <map>
#include <memory>
#include <random>

using namespace ackring;
using namespace ackring::test;

namespace {

std::string name_of(std::uint64_t publisher) { return "p" + std::to_string(publisher); }

// Publishes to `topic` until told to stop; says what its last sequence is. Tells how far it is every `report` events.
void publish_until_told(Channel& channel, const std::string& directory, const std::string& name, ExchangeMode mode,
                        std::uint64_t report) {
  Bus bus = Bus::open(bus_name, bus_options(directory, mode));
  Publisher publisher = bus.publisher({.name = name, .ring_bytes = 64u << 10});
  channel.send({{"pid", ::getpid()}});
  std::string payload;
  while (true) {
    payload.assign(publisher.sequence() % 300, 'x');
    payload += std::to_string(publisher.sequence() + 1);
    const Outcome outcome = publisher.publish_wait("run." + name, as_bytes(payload), patience);
    require(outcome == Outcome::ok, name + ": publish: " + to_string(outcome));
    if (publisher.sequence() % report == 0) channel.send({{"at", publisher.sequence()}});
    if (publisher.sequence() % 64 == 0 && channel.receive(0ns)) break;
  }
  require(publisher.flush(patience) == Outcome::ok, name + ": flush");
  channel.send({{"last", publisher.sequence()}});
  channel.receive(patience);  // stays until the test has looked
}

// Takes and acks; every publisher's events must come once and in order. Ends when it has all that `last` names.
void take_until_told(Channel& channel, const std::string& directory, SubscriptionOptions options, ExchangeMode mode,
                     std::uint64_t report) {
  Bus bus = Bus::open(bus_name, bus_options(directory, mode));
  const std::string name = options.name;
  // The topic that it wants, where that is only one.
  const std::string single = options.patterns.size() == 1 ? options.patterns[0] : "#";
  Subscriber subscriber = bus.subscribe(std::move(options));
  channel.send({{"pid", ::getpid()}});
  std::map<std::string, std::uint64_t, std::less<>> seen;
  std::uint64_t count = 0;
  Json last;
  const auto complete = [&] {
    if (last.is_null()) return false;
    for (const auto& [publisher, sequence] : last.at("last").items()) {
      if (single.find_first_of("*#") == std::string::npos && single != "run." + publisher) continue;
      if (seen[publisher] < sequence.get<std::uint64_t>()) return false;
    }
    return true;
  };
  while (!complete()) {
    auto delivery = subscriber.take(10ms);
    if (!delivery || count % 256 == 0) {
      if (auto message = channel.receive(0ns)) last = *message;
    }
    if (!delivery) continue;
    std::uint64_t& before = seen[std::string(delivery->publisher())];
    const std::string id =
        name + ": " + std::string(delivery->publisher()) + "/" + std::to_string(delivery->sequence());
    require(delivery->sequence() == before + 1, id + " came after " + std::to_string(before));
    require(delivery->attempt() == 1, id + ": attempt " + std::to_string(delivery->attempt()));
    require(delivery->delivery() == ++count, id + ": delivery " + std::to_string(delivery->delivery()));
    require(delivery->text().ends_with(std::to_string(delivery->sequence())), id + ": payload");
    before = delivery->sequence();
    require(delivery->ack() == Outcome::ok, id + ": ack");
    if (count % report == 0) channel.send({{"at", count}});
  }
  require(!subscriber.take(20ms).has_value(), name + ": more came than was published");
  require(subscriber.flush(patience) == Outcome::ok, name + ": flush");
  channel.send({{"count", count}, {"pid", ::getpid()}});
  channel.receive(patience);
}

using Children = std::vector<std::unique_ptr<Child>>;

// The next message that has `key`; those that only tell of progress are passed over.
Json next(Child& child, const char* key) {
  while (true) {
    Json message = child.channel().expect(patience, key);
    if (message.contains(key)) return message;
  }
}

// Until the subscribers together have reported `reports` times.
void progress(Children& takers, std::uint64_t reports) {
  const std::int64_t deadline = now_ns() + patience.count();
  while (reports > 0) {
    if (now_ns() > deadline) throw std::runtime_error("nothing goes on");
    for (auto& taker : takers) {
      if (reports > 0 && taker->channel().receive(1ms)) --reports;
    }
  }
}

void start_taker(Children& takers, const std::string& directory, SubscriptionOptions options, ExchangeMode mode) {
  takers.push_back(std::make_unique<Child>(Child::start(
      "taker", [&, options, mode](Channel& channel) { take_until_told(channel, directory, options, mode, 200); })));
  next(*takers.back(), "pid");
}

void start_giver(Children& givers, const std::string& directory, const std::string& name, ExchangeMode mode) {
  givers.push_back(std::make_unique<Child>(Child::start("giver", [&, name, mode](Channel& channel) {
    publish_until_told(channel, directory, name, mode, ~std::uint64_t{0});
  })));
  next(*givers.back(), "pid");
}

// Stops the publishers and waits until every subscriber has everything. Returns what each publisher's last event was.
Json finish(Children& givers, Children& takers, Json last = Json::object()) {
  for (std::size_t i = 0; i < givers.size(); ++i) {
    givers[i]->channel().send({{"stop", true}});
    last[name_of(i)] = next(*givers[i], "last").at("last");
  }
  for (auto& taker : takers) {
    taker->channel().send({{"last", last}});
    next(*taker, "count");
  }
  return last;
}

}  // namespace

TEST_CASE("an exchange that is killed and restarted in the middle of a run loses nothing and repeats nothing") {
  const std::uint64_t kills = amount("ACKRING_KILLS", 8);
  const std::uint64_t seed = amount("ACKRING_SEED", std::random_device()());
  MESSAGE("seed " << seed << " (replay with ACKRING_SEED=" << seed << ")");
  std::mt19937_64 random(seed);
  const TemporaryDirectory temporary("kill");
  auto exchange = std::make_unique<ExchangeProcess>(temporary.path());
  Children givers;
  Children takers;
  start_taker(takers, temporary.path(), {.name = "all", .patterns = {"#"}}, ExchangeMode::require);
  // Rings that are always full: the way through the backlog is taken all the time.
  start_taker(takers, temporary.path(),
              {.name = "tight", .patterns = {"run.*"}, .max_in_flight = 16, .ring_bytes = 4096}, ExchangeMode::require);
  start_taker(takers, temporary.path(), {.name = "one", .patterns = {"run.p1"}}, ExchangeMode::require);
  for (std::uint64_t i = 0; i < 3; ++i) start_giver(givers, temporary.path(), name_of(i), ExchangeMode::require);

  std::vector<double> recoveries;
  for (std::uint64_t kill = 0; kill < kills; ++kill) {
    // Somewhere in the stream, not at a time: at the n-th report of a subscriber.
    progress(takers, 2 + random() % 8);
    exchange->kill();
    check_books(shm_stat(temporary.path()));  // of a dead bus
    const std::int64_t start = now_ns();
    exchange = std::make_unique<ExchangeProcess>(temporary.path());
    recoveries.push_back(static_cast<double>(now_ns() - start) / 1e6);
    check_books(shm_stat(temporary.path()));
  }
  const Json last = finish(givers, takers);
  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  std::uint64_t published = 0;
  for (const auto& [name, sequence] : last.items()) {
    CHECK(row_of(stat, "publishers", name).at("routed") == sequence);
    published += sequence.get<std::uint64_t>();
  }
  for (const char* name : {"all", "tight", "one"}) {
    const Json row = row_of(stat, "subscriptions", name);
    CHECK(row.at("acked") == (std::string(name) == "one" ? last.at("p1").get<std::uint64_t>() : published));
    CHECK(row.at("acked") == row.at("matched"));
    CHECK(row.at("redelivered") == 0);
    CHECK(row.at("timed_out") == 0);
  }
  CHECK(stat.at("exchange").at("generation") == kills + 1);
  MESSAGE(published << " events over " << kills << " kills; restart to ready: median " << median(recoveries)
                    << " ms, longest " << largest(recoveries) << " ms");
}

TEST_CASE("when the process that hosts the exchange is killed, another client takes over and events go on") {
  const TemporaryDirectory temporary("takeover");
  Children hosts;
  // The first to open the bus hosts it: a publisher that also makes the subscription.
  hosts.push_back(std::make_unique<Child>(Child::start("host", [&](Channel& channel) {
    Bus bus = Bus::open(bus_name, bus_options(temporary.path(), ExchangeMode::automatic));
    bus.create_subscription({.name = "all", .patterns = {"#"}});
    publish_until_told(channel, temporary.path(), "first", ExchangeMode::require, 100);
  })));
  next(*hosts[0], "pid");
  Children takers;
  start_taker(takers, temporary.path(), {.name = "all"}, ExchangeMode::automatic);
  CHECK(shm_stat(temporary.path()).at("exchange").at("pid") == hosts[0]->pid());
  progress(takers, 5);

  const std::int64_t killed = now_ns();
  ::kill(hosts[0]->pid(), SIGKILL);
  std::uint64_t committed = 0;  // the last event that it said it had published
  try {
    while (true) committed = next(*hosts[0], "at").at("at").get<std::uint64_t>();
  } catch (const tools::Failure&) {
    // Its end of the channel is closed: that was everything.
  }
  hosts[0]->wait(patience);
  const auto ping =
      run({program("ACKRING_SHMTOOL"), "--dir", temporary.path(), "--bus", bus_name, "ping", "--timeout", "20s"});
  CHECK(ping.status == 0);
  MESSAGE("the bus serves " << static_cast<double>(now_ns() - killed) / 1e6 << " ms after its host was killed");
  CHECK(shm_stat(temporary.path()).at("exchange").at("pid") == takers[0]->pid());

  Children givers;
  start_giver(givers, temporary.path(), name_of(0), ExchangeMode::automatic);
  progress(takers, 5);
  finish(givers, takers, {{"first", committed}});
  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  const Json row = row_of(stat, "subscriptions", "all");
  CHECK(row.at("acked") == row.at("matched"));
  CHECK(row.at("redelivered") == 0);
  // Its ring held more than it had told of.
  CHECK(row_of(stat, "publishers", "first").at("routed").get<std::uint64_t>() >= committed);
  CHECK(row_of(stat, "publishers", "first").at("in_ring") == 0);
}

TEST_CASE("an exchange that stands still: stat says so, publishers feel it, and all goes on when it does") {
  const TemporaryDirectory temporary("stopped");
  const ExchangeProcess exchange(temporary.path());
  Children takers;
  start_taker(takers, temporary.path(), {.name = "all", .patterns = {"#"}}, ExchangeMode::require);
  Child giver = Child::start("giver", [&](Channel& channel) {
    Bus bus = open_bus(temporary.path());
    Publisher publisher = bus.publisher({.name = "p0", .ring_bytes = 64u << 10});
    channel.send({{"ready", true}});
    channel.expect(patience, "go");
    Outcome outcome = Outcome::ok;
    const auto publish = [&] { return publisher.publish("t", std::to_string(publisher.sequence() + 1)); };
    while ((outcome = publish()) == Outcome::ok) require(publisher.sequence() < 100'000, "a full ring took it all");
    require(outcome == Outcome::back_pressured, to_string(outcome));
    require(publisher.publish_wait("t", as_bytes("late"), 50ms) == Outcome::back_pressured, "waiting does not help");
    require(publisher.flush(50ms) == Outcome::timed_out, "nothing is routed now");
    channel.send({{"full", publisher.sequence()}});
    channel.expect(patience, "go on");
    const std::string text = std::to_string(publisher.sequence() + 1);
    require(publisher.publish_wait("t", as_bytes(text), patience) == Outcome::ok, "it does not go on");
    require(publisher.flush(patience) == Outcome::ok, "flush");
    channel.send({{"last", publisher.sequence()}});
    channel.receive(patience);
  });
  giver.channel().expect(patience, "ready");
  exchange.signal(SIGSTOP);
  giver.channel().send({{"go", true}});
  const Json full = giver.channel().expect(patience, "back-pressure");
  CHECK(eventually([&] { return shm_stat(temporary.path()).at("exchange").at("state") == "stalled"; }));
  const Json stalled = shm_stat(temporary.path());
  check_books(stalled);
  CHECK(row_of(stalled, "publishers", "p0").at("back_pressured").get<std::uint64_t>() >= 1);
  CHECK(row_of(stalled, "publishers", "p0").at("in_ring") == full.at("full"));
  // It holds the lock, so it is not dead: nobody takes its place.
  CHECK(run({program("ACKRING_EXCHANGE"), "--dir", temporary.path(), "--bus", bus_name}).status == 3);

  exchange.signal(SIGCONT);
  giver.channel().send({{"go", true}});
  const Json last = giver.channel().expect(patience, "the end");
  takers[0]->channel().send({{"last", {{"p0", last.at("last")}}}});
  const Json count = next(*takers[0], "count");
  CHECK(count.at("count") == full.at("full").get<std::uint64_t>() + 1);
  CHECK(shm_stat(temporary.path()).at("exchange").at("state") == "running");
}
