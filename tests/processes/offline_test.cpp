// Events for a subscriber that is away wait in order, in as much memory as its limits say and no more.
#include "tests/processes/support.hpp"

#include <sys/stat.h>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr double mebibyte = 1u << 20;

// What a directory takes, as du says.
std::uint64_t bytes_of(const std::string& directory) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    struct stat status {};
    if (::stat(entry.path().c_str(), &status) == 0) bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  return bytes;
}

std::string payload_of(std::uint64_t sequence) {
  std::string payload(100 + sequence % 800, static_cast<char>('a' + sequence % 26));
  return std::to_string(sequence) + payload;
}

}  // namespace

TEST_CASE("100,000 events for a subscriber that is away: in order, and in no more memory than its limits say") {
  constexpr std::uint64_t events = 100'000;
  constexpr std::uint64_t max_bytes = 64u << 20;
  const TemporaryDirectory temporary("offline");
  const ExchangeProcess exchange(temporary.path());
  Bus bus = open_bus(temporary.path());
  Publisher publisher = bus.publisher({.name = "p", .ring_bytes = 1u << 20});
  // Everything that is there without an event, and the member's ring and ack page of later.
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  options.ring_bytes = 1u << 20;
  options.max_bytes = max_bytes;
  { Subscriber subscriber = bus.subscribe(options); }
  const std::uint64_t empty = bytes_of(temporary.path());
  // A log grows by segments, of 1 MiB at first and 16 MiB at most, the last of which is there before it is full.
  constexpr std::uint64_t overhead = (16u + 4) << 20;

  for (std::uint64_t i = 1; i <= events; ++i) {
    REQUIRE(publisher.publish_wait("t", as_bytes(payload_of(i)), patience) == Outcome::ok);
  }
  REQUIRE(publisher.flush(patience) == Outcome::ok);
  Json row = row_of(shm_stat(temporary.path()), "subscriptions", "s");
  CHECK(row.at("queued") == events);
  CHECK(row.at("members") == 0);
  const std::uint64_t waiting = bytes_of(temporary.path());

  // As many more as there is room for: then the publisher is told, and memory stays what it is.
  std::uint64_t last = events;
  Outcome outcome = Outcome::ok;
  while (outcome == Outcome::ok) {
    outcome = publisher.publish_wait("t", as_bytes(payload_of(last + 1)), 300ms);
    if (outcome == Outcome::ok) ++last;
  }
  CHECK(outcome == Outcome::back_pressured);
  const std::uint64_t full = bytes_of(temporary.path());
  CHECK(full >= max_bytes / 10 * 9);
  CHECK(full <= empty + max_bytes + overhead);
  check_books(shm_stat(temporary.path()));

  Subscriber subscriber = bus.subscribe({.name = "s"});
  std::uint64_t most = full;
  for (std::uint64_t i = 1; i <= last; ++i) {
    auto delivery = subscriber.take(patience);
    REQUIRE(delivery);
    REQUIRE(delivery->sequence() == i);
    REQUIRE(delivery->delivery() == i);
    REQUIRE(delivery->attempt() == 1);
    REQUIRE(delivery->text() == payload_of(i));
    REQUIRE(delivery->ack() == Outcome::ok);
    if (i % 20'000 == 0) most = std::max(most, bytes_of(temporary.path()));
  }
  CHECK_FALSE(subscriber.take(1ms));
  REQUIRE(subscriber.flush(patience) == Outcome::ok);
  CHECK(most <= empty + max_bytes + overhead);
  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  row = row_of(stat, "subscriptions", "s");
  CHECK(row.at("acked") == last);
  CHECK(row.at("lag") == 0);
  // What has been read is given back.
  CHECK(eventually([&] { return bytes_of(temporary.path()) <= empty + overhead; }));
  const auto text = [](std::uint64_t bytes) { return static_cast<double>(bytes) / mebibyte; };
  MESSAGE("MiB of the bus directory: empty " << text(empty) << ", with " << events << " events " << text(waiting)
                                             << ", full (" << last << " events, max_bytes " << text(max_bytes) << ") "
                                             << text(full) << ", at most " << text(most) << ", in the end "
                                             << text(bytes_of(temporary.path())));
}
