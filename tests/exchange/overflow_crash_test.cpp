// The exchange dies at every point of batches that drop the oldest events of a backlog, segments and all. See
// crash_test.cpp for the method.
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/kill_hook.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t kept = 10;
constexpr std::uint64_t published = 30;

// Events of which one fits into the first segments, and a few into later ones. True if the exchange died before store `at`.
bool run(std::uint64_t at) {
  World world;
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  options.overflow = Overflow::drop_oldest;
  options.max_events = kept;
  world.x->create_subscription(options, false);
  auto publisher = world.publisher("", 512u << 10);
  const std::string payload(12'000, 'x');
  for (std::uint64_t i = 0; i < kept; ++i) REQUIRE(publisher.publish("a", payload));
  world.run();
  KillHook hook;
  hook.clock = &world.now_ns;
  hook.virtual_time = true;
  hook.die_before = at;
  bool died = false;
  for (std::uint64_t i = kept; i < published; ++i) {
    REQUIRE(publisher.publish("a", payload));
    try {
      // Not in the last batch: what a redo finds over the limit goes with the batch after it.
      shm::Environment::hook = died || i + 1 == published ? nullptr : &hook;
      world.run();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      died = true;
      check_books(exchange::stat_document(*world.directory, "crash"));
      check_sound_at(*world.directory, hook.die_before);
      world.restart();
    }
  }
  CAPTURE(at);
  const auto row = row_of(world.stat(), "s");
  CHECK(row["queued"] == kept);
  CHECK(row["dropped"]["drop-oldest"] == published - kept);
  CHECK(world.x->find_queue("s")->backlog.file_bytes() <= 2 * kept * 12'100);
  auto member = world.member("s", {});
  Seen seen;
  std::uint64_t next = published - kept;
  for (int i = 0; i < 20; ++i) {
    world.tick();
    while (member.take(seen)) {
      CHECK(seen.sequence == ++next);
      CHECK(seen.payload == payload);
      member.ack_through(seen.entry);
    }
  }
  CHECK(next == published);
  return died;
}

}  // namespace

TEST_CASE("death at every point of batches that drop the oldest events of a backlog") {
  std::uint64_t deaths = 0;
  while (run(deaths)) ++deaths;
  MESSAGE(deaths << " deaths");
  CHECK(deaths > 100);
}
