// One event that nobody can handle, among 10,000 good ones: it is tried max_deliveries times, with the delays of the
// back-off, then it is a dead letter. The good ones do not notice.
#include "tests/processes/support.hpp"

#include <cmath>
#include <sstream>

using namespace ackring;
using namespace ackring::test;

TEST_CASE("a poison event among 10,000: dead after max_deliveries attempts by the back-off, the others acked once") {
  constexpr std::uint64_t good = 10'000;
  constexpr std::uint64_t poison_at = 5'000;
  const TemporaryDirectory temporary("poison");
  const ExchangeProcess exchange(temporary.path());
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  options.max_deliveries = 6;
  options.backoff_initial = 50ms;
  options.backoff_max = 300ms;
  options.backoff_multiplier = 2;
  options.jitter = 0.1;
  {
    Bus bus = open_bus(temporary.path());
    Subscriber subscriber = bus.subscribe(options);
    Publisher publisher = bus.publisher({.name = "p"});
    for (std::uint64_t i = 1; i <= good + 1; ++i) {
      REQUIRE(publisher.publish_wait("t", as_bytes(i == poison_at ? "poison" : "good"), patience) == Outcome::ok);
    }
    std::vector<std::uint32_t> acks(good + 2);
    std::vector<std::uint32_t> attempts;
    std::uint64_t acked = 0;
    while (acked < good || attempts.size() < options.max_deliveries) {
      auto delivery = subscriber.take(patience);
      REQUIRE(delivery);
      REQUIRE(delivery->sequence() <= good + 1);
      if (delivery->text() == "poison") {
        CHECK(delivery->sequence() == poison_at);
        attempts.push_back(delivery->attempt());
        CHECK(delivery->nack() == Outcome::ok);
        if (attempts.size() == 1) CHECK(acked < good);  // the others do not wait for it
        if (attempts.size() == 2) CHECK(acked > poison_at);
      } else {
        CHECK(delivery->attempt() == 1);
        ++acks[delivery->sequence()];
        ++acked;
        CHECK(delivery->ack() == Outcome::ok);
      }
    }
    CHECK_FALSE(subscriber.take(2 * options.backoff_max));  // it does not come once more
    CHECK(subscriber.flush(patience) == Outcome::ok);
    CHECK(attempts == std::vector<std::uint32_t>{1, 2, 3, 4, 5, 6});
    for (std::uint64_t i = 1; i <= good + 1; ++i) {
      if (i != poison_at) REQUIRE(acks[i] == 1);
    }
  }
  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  const Json row = row_of(stat, "subscriptions", "s");
  INFO(row.dump());
  CHECK(row.at("acked") == good);
  CHECK(row.at("dlq_size") == 1);
  CHECK(row.at("dead_lettered") == 1);
  CHECK(row.at("nacked") == options.max_deliveries);
  CHECK(row.at("redelivered") == options.max_deliveries - 1);
  CHECK(row.at("delivered") == good + options.max_deliveries);

  const Ran ran =
      run({program("ACKRING_SHMTOOL"), "--dir", temporary.path(), "--bus", bus_name, "dlq", "show", "s", "--json"});
  REQUIRE(ran.status == 0);
  const Json letters = Json::parse(ran.output);
  REQUIRE(letters.size() == 1);
  const Json& letter = letters[0];
  INFO(letter.dump());
  CHECK(letter.at("reason") == "max_deliveries");
  CHECK(letter.at("data") == "poison");
  CHECK(letter.at("sequence") == poison_at);
  const Json& history = letter.at("attempts");
  REQUIRE(history.size() == options.max_deliveries);
  std::ostringstream figures;
  for (std::size_t i = 0; i < history.size(); ++i) {
    CHECK(history[i].at("cause") == "nacked");
    if (i == 0) continue;
    // From the end of one attempt to that of the next: the delay, then take and nack, which are quick here.
    const auto ns = [&](std::size_t at) { return history[at].at("time_ns").get<std::int64_t>(); };
    const double delay = static_cast<double>(ns(i) - ns(i - 1)) / 1e6;
    const double nominal = std::min(300.0, 50.0 * std::pow(2.0, static_cast<double>(i - 1)));
    CAPTURE(i);
    CHECK(delay >= nominal * 0.9 - 1);      // jitter of a tenth
    CHECK(delay <= nominal * 1.1 + 2'000);  // a busy machine is late now and then
    figures << (i == 1 ? "" : ", ") << delay << " ms for " << nominal;
  }
  CHECK(letter.at("dead_ns") == history.back().at("time_ns"));
  MESSAGE("delays between its attempts: " << figures.str());
}
