// Overflow: who waits for a full ring, and what a backlog that drops its oldest events keeps on its file system.
#include <algorithm>

#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

SubscriptionOptions small(Overflow overflow) {
  SubscriptionOptions options;
  options.ring_bytes = 4096;
  options.max_in_flight = 8;
  options.overflow = overflow;
  return options;
}

}  // namespace

TEST_CASE("a full ring whose subscription drops by choice holds up nobody, not even for a moment") {
  for (const Overflow overflow : {Overflow::automatic, Overflow::block, Overflow::drop_newest, Overflow::drop_oldest}) {
    CAPTURE(static_cast<int>(overflow));
    World world;
    world.x->set_full_ring_grace(exchange::full_ring_grace_ns);
    auto full = world.member("full", {"#"}, small(overflow));
    auto other = world.member("other", {"#"});
    auto publisher = world.publisher();
    for (int i = 1; i <= 20; ++i) REQUIRE(publisher.publish("a", std::to_string(i)));
    world.run();  // time stands still
    Seen seen;
    int received = 0;
    while (other.take(seen)) ++received;
    const bool drops = overflow == Overflow::drop_newest || overflow == Overflow::drop_oldest;
    CHECK(received == (drops ? 20 : 8));  // 8: the credit of the full one
    CHECK(row_of(world.stat(), "full")["queued"] == (drops ? 20 : 8));
  }
}

TEST_CASE("a backlog that drops its oldest events gives back their files, without a member") {
  constexpr std::uint64_t most = 4u << 20;
  for (const bool once : {false, true}) {
    CAPTURE(once);
    World world;
    SubscriptionOptions options = small(once ? Overflow::automatic : Overflow::drop_oldest);
    options.guarantee = once ? Guarantee::at_most_once : Guarantee::at_least_once;
    options.max_bytes = most;
    options.name = "s";
    options.patterns = {"#"};
    world.x->create_subscription(options, false);
    auto publisher = world.publisher("", 1u << 20);
    const std::string payload(900, 'x');
    std::size_t most_files = 0;
    std::uint64_t most_file_bytes = 0;
    constexpr int events = 40'000;  // ten times what it may keep
    for (int i = 0; i < events; ++i) {
      REQUIRE(publisher.publish("a", payload));
      if (i % 100 != 99) continue;
      world.run();
      const std::vector<std::string> files = world.directory->list("sub.");
      most_files = std::max<std::size_t>(
          most_files, static_cast<std::size_t>(std::count_if(files.begin(), files.end(), [](const std::string& name) {
            return name.find(".backlog.") != std::string::npos;
          })));
      most_file_bytes = std::max(most_file_bytes, world.x->find_queue("s")->backlog.file_bytes());
    }
    const auto row = row_of(world.stat(), "s");
    CHECK(row["matched"] == events);
    CHECK(row["queued"].get<std::uint64_t>() > most / 1000);
    CHECK(row["dropped"]["drop-oldest"].get<std::uint64_t>() > 30'000);
    CHECK(most_files <= 8);
    CHECK(most_file_bytes <= most + 4 * log::default_segment_bytes);

    world.restart();  // what is left is whole, and the latest
    auto member = world.member("s", {});
    Seen seen;
    std::uint64_t last = 0;
    for (bool any = true; any;) {
      world.tick();
      any = false;
      while (member.take(seen)) {
        CHECK(seen.sequence == (last == 0 ? seen.sequence : last + 1));
        last = seen.sequence;
        member.ack_through(seen.entry);
        any = true;
      }
      member.release();
    }
    CHECK(last == events);
  }
}

TEST_CASE("a delayed event for which there is no room is dropped, and not delivered early; others are as they were") {
  for (const Overflow overflow : {Overflow::drop_newest, Overflow::drop_oldest}) {
    CAPTURE(static_cast<int>(overflow));
    World world;
    auto publisher = world.publisher();
    SubscriptionOptions options = small(overflow);
    options.max_events = 2;
    auto member = world.member("s", {"#"}, options);
    const shm::TimingInfo later{0, world.now_ns + 1'000'000'000};
    for (int i = 0; i < 2; ++i) REQUIRE(publisher.publish("a", "later", later));
    world.run();
    publisher.add("a", "1", {});
    publisher.add("a", "too much", {}, later);
    publisher.add("a", "2", {});
    publisher.commit();
    world.run();
    Seen seen;
    std::vector<std::string> payloads;
    while (member.take(seen)) {
      payloads.push_back(seen.payload);
      member.ack_through(seen.entry);
    }
    CHECK(payloads == std::vector<std::string>{"1", "2"});
    world.tick();
    const auto row = row_of(world.stat(), "s");
    CHECK(row["acked"] == 2);
    CHECK(row["queued"] == 2);
    CHECK(row["dropped"].value("drop-newest", 0) == 1);
  }
}
