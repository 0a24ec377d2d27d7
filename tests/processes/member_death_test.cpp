// A subscriber is killed while it holds deliveries: they come again, with attempt 2, to the next member; nobody else
// notices.
#include "tests/processes/support.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t held = 10;       // taken and not acked when the member dies
constexpr std::uint64_t per_round = 25;  // published in each round

// Joins, takes `held` deliveries, acks every other one of the first four, and waits for its death.
void be_victim(Channel& channel, const std::string& directory) {
  Bus bus = open_bus(directory);
  Subscriber subscriber = bus.subscribe({.name = "s"});
  std::vector<Delivery> open;
  for (std::uint64_t i = 0; i < held; ++i) {
    auto delivery = subscriber.take(patience);
    require(delivery && delivery->attempt() == 1, "the victim got nothing, or what somebody had before");
    if (i == 0 || i == 2) {
      require(delivery->ack() == Outcome::ok, "ack");
    } else {
      open.push_back(std::move(*delivery));
    }
  }
  channel.send({{"first", open.front().delivery() - 1}});
  channel.receive(patience);
}

// Joins as soon as it may; the first it gets must be what the victim held, then what the victim never took.
void be_heir(Channel& channel, const std::string& directory) {
  Bus bus = open_bus(directory);
  channel.send({{"ready", true}});
  const auto first = channel.expect(patience, "go").at("first").get<std::uint64_t>();
  std::optional<Subscriber> subscriber(when_free([&] { return bus.subscribe({.name = "s"}); }));
  const std::int64_t joined = now_ns();
  // Untaken ones stay where they are and keep their attempt; those of the victim come again behind them, in order.
  std::vector<std::uint64_t> fresh;
  std::vector<std::uint64_t> again;
  std::int64_t redelivered = 0;
  while (fresh.size() + again.size() < per_round - 2) {
    auto delivery = subscriber->take(patience);
    require(delivery.has_value(), "something is lost");
    if (delivery->attempt() == 1) {
      fresh.push_back(delivery->delivery());
    } else {
      require(delivery->attempt() == 2, "attempt " + std::to_string(delivery->attempt()));
      if (again.empty()) redelivered = now_ns();
      again.push_back(delivery->delivery());
    }
    require(delivery->ack() == Outcome::ok, "ack");
  }
  std::vector<std::uint64_t> held_ones{first + 1};
  for (std::uint64_t i = 3; i < held; ++i) held_ones.push_back(first + i);
  std::vector<std::uint64_t> others;
  for (std::uint64_t i = held; i < per_round; ++i) others.push_back(first + i);
  require(again == held_ones, "what the victim held did not come again, once and in order");
  require(fresh == others, "what the victim had not taken is not there, once and in order");
  require(!subscriber->take(5ms).has_value(), "more came than was there");
  require(subscriber->flush(patience) == Outcome::ok, "flush");
  subscriber.reset();
  channel.send({{"joined", joined}, {"redelivered", redelivered}});
  channel.receive(patience);
}

}  // namespace

TEST_CASE("what a killed subscriber held comes again to the next one; others are not disturbed") {
  const std::uint64_t rounds = amount("ACKRING_ROUNDS", 20);
  const TemporaryDirectory temporary("death");
  const ExchangeProcess exchange(temporary.path());
  Child witness = Child::start("witness", [&](Channel& channel) {
    Bus bus = open_bus(temporary.path());
    Subscriber subscriber = bus.subscribe({.name = "witness", .patterns = {"#"}});
    channel.send({{"ready", true}});
    for (std::uint64_t i = 1; i <= rounds * per_round; ++i) {
      auto delivery = subscriber.take(4 * patience);
      require(delivery && delivery->sequence() == i && delivery->attempt() == 1, "the witness was disturbed");
      require(delivery->ack() == Outcome::ok, "ack");
    }
    require(subscriber.flush(patience) == Outcome::ok, "flush");
    channel.send({{"done", true}});
    channel.receive(patience);
  });
  witness.channel().expect(patience, "the witness");
  Child publisher = Child::start("publisher", [&](Channel& channel) {
    Bus bus = open_bus(temporary.path());
    bus.create_subscription({.name = "s", .patterns = {"t"}});
    Publisher handle = bus.publisher({.name = "p"});
    channel.send({{"ready", true}});
    for (std::uint64_t round = 0; round < rounds; ++round) {
      channel.expect(2 * patience, "the next round");
      for (std::uint64_t i = 0; i < per_round; ++i) require(handle.publish("t", "x") == Outcome::ok, "publish");
      require(handle.flush(patience) == Outcome::ok, "flush");
    }
    channel.receive(patience);
  });
  publisher.channel().expect(patience, "the publisher");

  std::vector<double> until_joined;
  std::vector<double> until_redelivered;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    publisher.channel().send({{"go", true}});
    Child victim = Child::start("victim", [&](Channel& channel) { be_victim(channel, temporary.path()); });
    Child heir = Child::start("heir", [&](Channel& channel) { be_heir(channel, temporary.path()); });
    const Json first = victim.channel().expect(patience, "the victim holds its deliveries");
    heir.channel().expect(patience, "the heir is ready");
    check_books(shm_stat(temporary.path()));
    heir.channel().send(first);
    const std::int64_t killed = now_ns();
    ::kill(victim.pid(), SIGKILL);
    const Json times = heir.channel().expect(patience, "the heir has everything");
    until_joined.push_back(static_cast<double>(times.at("joined").get<std::int64_t>() - killed) / 1e6);
    until_redelivered.push_back(static_cast<double>(times.at("redelivered").get<std::int64_t>() - killed) / 1e6);
  }
  witness.channel().expect(patience, "the witness has everything");
  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  const Json row = row_of(stat, "subscriptions", "s");
  CHECK(row.at("matched") == rounds * per_round);
  CHECK(row.at("acked") == rounds * per_round);
  CHECK(row.at("redelivered") == rounds * (held - 2));
  CHECK(row_of(stat, "subscriptions", "witness").at("redelivered") == 0);
  MESSAGE("from SIGKILL to the next member: median "
          << median(until_joined) << " ms, longest " << largest(until_joined) << "; to its first redelivery: median "
          << median(until_redelivered) << " ms, longest " << largest(until_redelivered));
  // The aim is 10 ms; machines that do other things as well are late now and then, so the bound that fails is 1 s.
  CHECK(largest(until_joined) < 1'000);
}
