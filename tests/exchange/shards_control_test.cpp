// Shards, stepped by hand: what the lead is asked about subscriptions of others, and what it does to them.
#include "ackring/error.hpp"
#include "lib/exchange/shard_threads.hpp"
#include "tests/exchange/retry_world.hpp"
#include "tests/exchange/shards_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

// With a subscription of the lead's that gets everything, too.
struct Followed : Sharded {
  Reader first = reader("first", {"#"});
  CoreMember second;
  CorePublisher publisher_ = publisher("p");
  explicit Followed(const SubscriptionOptions& options = {}) : second(member("second", {"a.#"}, options)) {
    CHECK(shard_of("second") == 1);
  }
  exchange::Queue& second_queue() { return queue("second"); }
  void send(int events) {
    for (int i = 0; i < events; ++i) publisher_.publish("a.b", std::to_string(i));
  }
};

Texts take_all(CoreMember& member) {
  Texts texts;
  for (Seen seen; member.take(seen);) texts.push_back(seen.payload);
  return texts;
}

}  // namespace

TEST_CASE("a subscription that begins with last values is the lead's, and misses nothing in between") {
  for (const std::size_t ahead : {0u, 1u}) {
    CAPTURE(ahead);
    Sharded world;
    SubscriptionOptions options;
    options.name = last_values_name;
    options.patterns = {"#"};
    world.x->create_subscription(options, false);
    auto plain = world.reader("plain", {"#"});
    CHECK(world.shard_of("plain") == 1);
    auto publisher = world.publisher("p");
    publisher.publish("a", "1");
    publisher.publish("b", "2");
    publisher.publish("a", "3");
    world.run(ahead);
    options = {};
    options.from = StartFrom::last_values;
    auto begun = world.reader("begun", {"#"}, options);
    CHECK(world.shard_of("begun") == 0);
    publisher.publish("a", "4");
    world.run();
    CHECK(begun.read() == (ahead == 0 ? Texts{"2", "3", "4"} : Texts{"1", "2", "3", "4"}));
    CHECK(plain.read().size() == 4);
    world.tick();
    CHECK(row_of(world.stat(), "@last")["matched"] == 4);
    CHECK(world.publisher_row("p")["routed"] == 4);
  }
}

TEST_CASE("a ring in which one shard finds damage is read by none any more") {
  for (const std::size_t finder : {0u, 1u}) {
    CAPTURE(finder);
    Sharded world;
    auto a = world.reader("a", {"#"});
    auto b = world.reader("b", {"#"});
    auto publisher = world.publisher("p");
    auto other = world.publisher("other");
    publisher.publish("t", "1");
    world.run();
    auto ring = shm::Segment::attach(*world.directory,
                                     exchange::Exchange::ingress_name(publisher.slot(), publisher.incarnation()),
                                     shm::SegmentKind::ingress_ring, shm::Access::read_write);
    ring.as<shm::IngressRing>()->tail.store(8, std::memory_order_release);
    world.run(finder);
    const auto is_quarantined = [&](std::size_t shard) {
      return world.x->shards()[shard]->publishers()[publisher.slot()]->quarantined;
    };
    CHECK(is_quarantined(finder));
    CHECK_FALSE(is_quarantined(1 - finder));
    world.x->look_after_shards(world.now_ns);
    CHECK(is_quarantined(1 - finder));
    CHECK(world.lines_with("quarantined") == 1);
    other.publish("t", "2");
    world.run();
    CHECK(a.read() == Texts{"1", "2"});
    CHECK(b.read() == Texts{"1", "2"});
    CHECK(exchange::stat_document(*world.x, "test")["publishers"][0]["quarantined"] == true);
    CHECK(world.lines_with("quarantined") == 1);
    world.x->detach_publisher(*world.x->find_publisher(publisher.slot(), publisher.incarnation()));
    world.tick();
    CHECK(world.publisher("p").sequence() == 1);
    world.run();
    world.stat();
  }
}

TEST_CASE("the lead changes the subscriptions of other shards") {
  Followed world;
  SubscriptionOptions options = world.second_queue().options;
  options.patterns = {"b"};
  options.max_events = 3;
  world.send(2);
  world.run(0);
  // What the follower has not come by yet goes by the patterns that are there when it does.
  world.x->update_subscription(options, {"max_events"});
  world.publisher_.publish("b", "b");
  world.run();
  CHECK(take_all(world.second) == Texts{"b"});
  CHECK(world.second_queue().options.max_events == 3);
  CHECK(world.publisher_row("p")["routed"] == 3);
  world.restart();
  CHECK(world.second_queue().options.patterns == Texts{"b"});
  CHECK(world.shard_of("second") == 1);
  world.x->remove_subscription(world.second_queue());
  CHECK(world.x->find_queue("second") == nullptr);
  world.publisher_.publish("b", "b");
  world.run();
  world.tick();
  CHECK(world.first.read().size() == 4);
  world.stat();
  // Its place is free for the next one, of whichever shard.
  auto third = world.reader("third", {"b"});
  CHECK(world.shard_of("third") == 1);
  world.publisher_.publish("b", "c");
  world.run();
  CHECK(third.read() == Texts{"c"});
}

TEST_CASE("the lead pauses, purges and ends the subscriptions of other shards") {
  Followed world;
  world.send(3);
  world.run();
  world.x->pause(world.second_queue());
  world.send(2);
  world.run();
  world.tick();
  CHECK(take_all(world.second).empty());
  auto row = row_of(world.stat(), "second");
  CHECK(row["paused"] == true);
  CHECK(row["queued"] == 5);
  world.restart();
  CHECK(world.second_queue().paused);
  world.x->resume(world.second_queue());
  world.tick();
  CHECK(take_all(world.second).size() == 5);
  world.second.ack_through(6);
  world.tick();
  CHECK(row_of(world.stat(), "second")["acked"] >= 3);
  world.x->pause(world.second_queue());
  world.send(4);
  world.run();
  CHECK(world.x->purge(world.second_queue(), world.now_ns) == 4);
  world.x->resume(world.second_queue());
  world.send(1);
  world.run();
  CHECK(take_all(world.second).size() == 1);
  world.stat();
  world.x->end_subscription(world.second_queue());
  world.send(1);
  world.run();
  CHECK(take_all(world.second).empty());
  world.x->detach_member(world.second_queue().lane);
  world.x->purge(world.second_queue(), world.now_ns);
  world.tick();
  CHECK(world.x->find_queue("second") == nullptr);
  CHECK(world.first.read().size() == 11);
  world.stat();
}

TEST_CASE("the lead deals with the dead letters of other shards") {
  Followed world(exact());
  world.send(4);
  world.run();
  for (Seen seen; world.second.take(seen);) world.second.reject(seen.entry, "no");
  world.tick();
  CHECK(dead_letters(world, "second").size() == 4);
  CHECK(world.x->requeue_dead(world.second_queue(), {.delivery = 2}, world.now_ns).done == 1);
  CHECK(world.x->purge_dead(world.second_queue(), {.delivery = 3}).done == 1);
  world.stat();
  world.tick();
  CHECK(take_all(world.second) == Texts{"1"});
  world.restart();
  CHECK(dead_letters(world, "second").size() == 2);
  const auto row = row_of(world.stat(), "second");
  CHECK(row["dlq_size"] == 2);
  CHECK(row["dlq_removed"] == 1);
  CHECK(row["in_flight"] == 1);
}

TEST_CASE("a delivery has all its time, also where the lead's clock is behind that of its shard") {
  Followed world(exact());
  world.send(1);
  world.run();
  Seen seen;
  REQUIRE(world.second.take(seen));
  for (int i = 0; i < 8; ++i) world.tick(5 * ms);
  world.x->shards()[1]->tick(world.now_ns + ms);
  // Asked for by one who looked at the clock before.
  world.x->purge(world.second_queue(), world.now_ns);
  world.x->sweep(world.second_queue(), world.now_ns);
  CHECK(row_of(world.stat(), "second")["timed_out"] == 0);
  for (int i = 0; i < 8; ++i) world.tick(5 * ms);
  CHECK(row_of(world.stat(), "second")["timed_out"] == 1);
}

TEST_CASE("members come to the subscriptions of any shard, leave them, and take their ephemeral ones with them") {
  Sharded world(4);
  for (int round = 0; round < 3; ++round) {
    CAPTURE(round);
    auto publisher = world.publisher("p");
    std::vector<Reader> readers;
    for (int i = 0; i < 6; ++i) readers.push_back(world.reader(i < 3 ? "s" + std::to_string(i) : "", {"#"}));
    publisher.publish("t", "x");
    world.run(round);
    world.run();
    for (Reader& reader : readers) CHECK(reader.read().size() == 1);
    world.tick();
    world.stat();
    world.x->client_gone(world.client);
    world.client = world.x->new_client();
    CHECK(world.stat()["subscriptions"].size() == 3);
    if (round == 1) world.restart();
  }
}

TEST_CASE("letters wait for room in their ring until every shard has read those before them") {
  for (const std::size_t late : {0u, 1u}) {
    CAPTURE(late);
    Sharded world;
    SubscriptionOptions options = exact();
    options.ring_bytes = 1 << 20;
    if (late == 0) world.blocker("other", "nothing");
    options.dead_letter_topic = "dead";
    auto orders = world.member("orders", {"orders"}, options);
    options.dead_letter_topic.clear();
    auto watch = world.reader("watch", {"dead"}, options);
    CHECK(world.shard_of("orders") == 1 - late);
    CHECK(world.shard_of("watch") == late);
    auto publisher = world.publisher("p", 16 << 20);
    const std::string filler(100'000, 'x');
    constexpr int letters = 60;  // the ring of the exchange's own publisher holds some forty
    exchange::Exchange& early = *world.x->shards()[1 - late];
    for (int i = 0; i < letters; ++i) {
      REQUIRE(publisher.publish("orders", std::to_string(i) + filler));
      world.run(1 - late);
      for (Seen seen; orders.take(seen);) orders.reject(seen.entry, "no");
      early.tick(world.now_ns += 5 * ms);
      world.run(1 - late);
    }
    CHECK(world.queue("orders").block.dead_events == letters);
    int got = 0;
    for (int i = 0; i < 2 * letters && got < letters; ++i) {
      world.tick();
      for (const std::string& text : watch.read()) CHECK(text == std::to_string(got++) + filler);
    }
    CHECK(got == letters);
    world.stat();
  }
}

TEST_CASE("the served time of a shard never goes back, whatever the lead's is, and comes up with it") {
  Sharded world;
  world.run();
  exchange::Exchange& lead = *world.x;
  exchange::Exchange& follower = *world.x->shards()[1];
  lead.tick(world.now_ns);
  follower.tick(world.now_ns);
  const std::uint64_t later_ns = world.now_ns + 4'000'000;
  const std::uint64_t told = follower.served_at(later_ns);
  follower.tick(later_ns);  // the lead has not ticked since
  CHECK(follower.served_at(later_ns) == told);
  for (int i = 0; i < 10; ++i) {  // the follower stands still meanwhile
    world.now_ns += 10'000'000;
    lead.tick(world.now_ns);
  }
  follower.tick(world.now_ns);
  CHECK(follower.served_at(world.now_ns) >= lead.served_at(world.now_ns));
}

TEST_CASE("what a shard had to say before its threads began is heard, and where all are on one thread, too") {
  for (const std::size_t threads : {1u, 2u}) {
    CAPTURE(threads);
    Sharded world;
    auto publisher = world.publisher("p");
    auto ring = shm::Segment::attach(*world.directory,
                                     exchange::Exchange::ingress_name(publisher.slot(), publisher.incarnation()),
                                     shm::SegmentKind::ingress_ring, shm::Access::read_write);
    ring.as<shm::IngressRing>()->tail.store(8, std::memory_order_release);
    world.run(1);
    CHECK(world.lines_with("quarantined") == 0);
    exchange::ShardThreadOptions options;
    options.threads = threads;
    options.wake_host = [] {};
    exchange::ShardThreads running(*world.x, options);
    CHECK(running.needs_tick());
    running.tick(world.now_ns);
    running.stop();
    CHECK(world.x->publishers()[publisher.slot()]->quarantined);
    CHECK(world.lines_with("quarantined") == 1);
  }
}
