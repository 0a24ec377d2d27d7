// Shards that share a bus, stepped by hand: who gets what, who waits for whom, and what the lead says for all.
// shards_ids_test.cpp: event ids; shards_divide_test.cpp: other numbers of shards.
#include "ackring/error.hpp"
#include "tests/exchange/retry_world.hpp"
#include "tests/exchange/shards_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

bool has_ring(const World& world, const CorePublisher& publisher) {
  return world.directory->exists(exchange::Exchange::ingress_name(publisher.slot(), publisher.incarnation()));
}

void reject_all(CoreMember& member) {
  for (Seen seen; member.take(seen);) member.reject(seen.entry, "no good");
}

}  // namespace

TEST_CASE("subscriptions are spread over the shards, and each gets the events of each publisher in order") {
  Sharded world(4);
  std::vector<Reader> readers;
  for (int i = 0; i < 8; ++i) readers.push_back(world.reader("s" + std::to_string(i), {i % 3 == 0 ? "a.*" : "#"}));
  std::size_t of[4] = {};
  for (int i = 0; i < 8; ++i) ++of[world.shard_of("s" + std::to_string(i))];
  for (const std::size_t count : of) CHECK(count == 2);
  std::vector<CorePublisher> publishers;
  for (int i = 0; i < 3; ++i) publishers.push_back(world.publisher("p" + std::to_string(i)));
  std::uint64_t random = 1;
  std::vector<std::size_t> got(8);
  for (int i = 0; i < 600; ++i) {
    random = random * 6364136223846793005 + 1442695040888963407;
    CHECK(publishers[random >> 60 & 1].publish((random >> 50 & 1) != 0 ? "a.x" : "b", std::to_string(i)));
    CHECK(publishers[2].publish("a.y", std::to_string(i)));
    world.x->shards()[random >> 40 & 3]->step(world.now_ns);
    if (i % 7 == 0) world.x->shards()[random >> 30 & 3]->tick(world.now_ns += ms);
    for (std::size_t k = 0; k < readers.size(); ++k) got[k] += readers[k].read().size();
  }
  world.run();
  world.tick();
  const auto stat = world.stat();
  for (std::size_t k = 0; k < readers.size(); ++k) {
    got[k] += readers[k].read().size();
    const auto row = row_of(stat, "s" + std::to_string(k));
    CHECK(row["matched"] == got[k]);
    CHECK(row["shard"] == world.shard_of("s" + std::to_string(k)));
    if (k % 3 != 0) CHECK(got[k] == 1200);
  }
  CHECK(got[0] == got[3]);
  CHECK(got[0] == got[6]);
  CHECK(got[0] < 1200);
  CHECK(stat["exchange"]["shards"] == 4);
}

TEST_CASE("a publisher has the room that every shard has read") {
  for (const std::size_t first : {0u, 1u}) {
    CAPTURE(first);
    Sharded world;
    auto a = world.reader("a", {"#"});
    auto b = world.reader("b", {"#"});
    auto publisher = world.publisher("p", 4096);
    std::uint64_t published = 0;
    while (publisher.publish("t", std::to_string(published))) ++published;
    CHECK(published > 10);
    world.run(first);
    CHECK_FALSE(publisher.publish("t", "no room"));
    auto row = world.publisher_row("p");
    CHECK(row["behind"] == nlohmann::ordered_json{first == 0 ? 0 : published, first == 0 ? published : 0});
    CHECK(row["in_ring"] == (first == 0 ? 0 : published));
    CHECK(row["routed"] == (first == 0 ? published : 0));
    world.run(1 - first);
    CHECK(publisher.publish("t", "room"));
    world.run();
    CHECK(a.read().size() == published + 1);
    CHECK(b.read().size() == published + 1);
    row = world.publisher_row("p");
    CHECK(row["committed"] == published + 1);
    CHECK(row["behind"] == nlohmann::ordered_json{0, 0});
  }
}

TEST_CASE("a subscription that blocks holds up its own shard, and the others no further than the ring reaches") {
  for (const std::size_t blocked : {0u, 1u}) {
    CAPTURE(blocked);
    Sharded world;
    if (blocked == 1) world.blocker("other", "nothing");
    world.blocker("full", "#");
    auto free = world.reader("free", {"#"});
    if (blocked == 0) CHECK(world.shard_of("free") == 1);
    // With two in shard 1's way it is the third that is shard 0's.
    CHECK(world.shard_of("full") == blocked);
    CHECK(world.shard_of("free") == 1 - blocked);
    auto publisher = world.publisher("p", 4096);
    std::size_t published = 0;
    std::size_t got = 0;
    while (publisher.publish("t", "x")) {
      ++published;
      world.run();
      got += free.read().size();
    }
    CHECK(got == published);
    CHECK(row_of(world.stat(), "full")["queued"] == 1);
    CHECK(world.publisher_row("p")["behind"][blocked] == published - 1);
    CHECK(world.publisher_row("p")["behind"][1 - blocked] == 0);
    for (std::size_t i = 0; i < published; ++i) {  // one by one, as it is emptied
      world.x->purge(world.queue("full"), world.now_ns);
      world.run();
    }
    CHECK(publisher.publish("t", "x"));
    CHECK(world.publisher_row("p")["in_ring"] == 1);
    CHECK(row_of(world.stat(), "full")["purged"] == published);
  }
}

TEST_CASE("whichever shard comes to a topic first defines it") {
  for (const std::size_t first : {0u, 1u}) {
    CAPTURE(first);
    Sharded world;
    auto a = world.reader("a", {"x.#"});
    auto b = world.reader("b", {"#"});
    auto one = world.publisher("one");
    auto two = world.publisher("two");
    one.publish("x.1", "1");
    one.publish("y", "2");
    two.publish("y", "3");
    world.run(first);
    CHECK(world.x->topics().count() == 2);
    one.publish("z", "4");
    two.publish("x.1", "5");
    two.publish("z", "6");
    world.run(1 - first);
    world.run(first);
    CHECK(world.x->topics().count() == 3);
    CHECK(a.read() == Texts{"1", "5"});
    CHECK(b.read().size() == 6);
    world.restart();
    one.publish("z", "7");
    two.publish("w", "8");
    world.run(first);
    world.run();
    CHECK(b.read().size() == 2);
    CHECK(world.publisher_row("one")["unroutable"] == 0);
    CHECK(world.x->topics().count() == 4);
  }
}

TEST_CASE("a topic that is not for its publisher is denied by all shards, and counted once") {
  control::AccessRules rules;
  rules.deny_unnamed = true;
  control::AccessRule rule;
  rule.uids = {50'001};
  rule.grants.publish = {"open.#"};
  rules.rules.push_back(rule);
  for (const std::size_t first : {0u, 1u}) {
    CAPTURE(first);
    Sharded world;
    world.x->set_access(rules);
    auto a = world.reader("a", {"#"});
    auto b = world.reader("b", {"#"});
    CorePublisher publisher(*world.directory,
                            world.x->attach_publisher(world.client, "p", 64 << 10, {50'001, 100, {}}));
    for (const char* topic : {"open.1", "secret", "open.2", "secret"}) publisher.publish(topic, topic);
    world.run(first);
    world.run();
    CHECK(a.read() == Texts{"open.1", "open.2"});
    CHECK(b.read() == Texts{"open.1", "open.2"});
    CHECK(world.publisher_row("p")["denied"] == 2);
    CHECK(world.publisher_row("p")["routed"] == 2);
    rules.rules[0].grants.publish = {"open.1"};
    publisher.publish("open.2", "before the rules are others");
    publisher.publish("open.1", "x");
    world.x->set_access(rules);
    world.run(1 - first);
    world.run();
    CHECK(a.read() == Texts{"x"});
    CHECK(b.read() == Texts{"x"});
    CHECK(world.publisher_row("p")["denied"] == 3);
    rules.rules[0].grants.publish = {"open.#"};
  }
}

TEST_CASE("what any subscription of any shard matches is routed, once; what none does is unroutable, once") {
  Sharded world(4);
  std::vector<Reader> readers;
  for (const char* pattern : {"a", "b", "c", "d", "d"}) {
    readers.push_back(world.reader(pattern + std::to_string(readers.size()), {pattern}));
  }
  auto publisher = world.publisher("p");
  for (const char* topic : {"a", "b", "c", "d", "e", "e", "b"}) publisher.publish(topic, topic);
  for (const std::size_t shard : {3u, 1u, 0u, 2u}) {
    world.run(shard);
    world.stat();
  }
  auto row = world.publisher_row("p");
  CHECK(row["routed"] == 5);
  CHECK(row["unroutable"] == 2);
  CHECK(readers[1].read() == Texts{"b", "b"});
  CHECK(readers[3].read() == Texts{"d"});
  // A follower's subscription goes, and one comes: the lead knows of both.
  world.x->remove_subscription(world.queue("b1"));
  auto late = world.reader("late", {"e"});
  CHECK(world.shard_of("late") != 0);
  for (const char* topic : {"b", "e"}) publisher.publish(topic, topic);
  world.run();
  row = world.publisher_row("p");
  CHECK(row["routed"] == 6);
  CHECK(row["unroutable"] == 3);
  CHECK(late.read() == Texts{"e"});
}

TEST_CASE("the ring of a publisher that has gone stays until every shard has read it") {
  for (const std::size_t first : {0u, 1u}) {
    CAPTURE(first);
    Sharded world;
    auto a = world.reader("a", {"#"});
    auto b = world.reader("b", {"#"});
    auto publisher = world.publisher("p");
    publisher.publish("t", "1");
    publisher.publish("t", "2");
    world.x->detach_publisher(*world.x->find_publisher(publisher.slot(), publisher.incarnation()));
    world.run(first);
    tick_all(*world.x, world.now_ns += ms);
    CHECK(has_ring(world, publisher));
    world.stat();
    world.run();
    tick_all(*world.x, world.now_ns += ms);
    CHECK_FALSE(has_ring(world, publisher));
    CHECK(a.read().size() == 2);
    CHECK(b.read().size() == 2);
    CHECK(world.publisher_row("p")["routed"] == 2);

    // Whoever comes next goes on with its numbers; what an earlier one has left is routed by all before.
    auto next = world.publisher("p");
    CHECK(next.sequence() == 2);
    next.publish("t", "3");
    CHECK_THROWS_AS(world.publisher("p"), Error);
    world.x->detach_publisher(*world.x->find_publisher(next.slot(), next.incarnation()));
    world.run(first);
    auto third = world.publisher("p");
    CHECK(third.sequence() == 3);
    third.publish("t", "4");
    world.run();
    CHECK(a.read() == Texts{"3", "4"});
    CHECK(b.read() == Texts{"3", "4"});
    CHECK(world.publisher_row("p")["committed"] == 4);
  }
}

TEST_CASE("a name is not to be had while one shard can't read what its earlier holder has left") {
  Sharded world;
  auto a = world.reader("a", {"#"});
  world.blocker("full", "#");
  CHECK(world.shard_of("full") == 1);
  auto publisher = world.publisher("p");
  publisher.publish("t", "1");
  publisher.publish("t", "2");
  world.x->detach_publisher(*world.x->find_publisher(publisher.slot(), publisher.incarnation()));
  CHECK_THROWS_AS(world.publisher("p"), Error);
  CHECK(a.read().size() == 2);
  world.restart();
  CHECK_THROWS_AS(world.publisher("p"), Error);
  world.x->purge(world.queue("full"), world.now_ns);
  CHECK(world.publisher("p").sequence() == 2);
  CHECK(row_of(world.stat(), "full")["matched"] == 2);
}

TEST_CASE("with shards on threads, structure changes only while all are held, by the lead") {
  Sharded world;
  CountingHolder holder;
  auto a = world.reader("a", {"#"});
  auto gone = world.reader("", {"#"});
  const std::string name = gone.member.name;
  CHECK(world.shard_of(name) == 1);
  auto publisher = world.publisher("p");
  publisher.publish("t", "1");
  world.run();
  world.x->set_holder(&holder);
  exchange::Exchange& follower = *world.x->shards()[1];
  {
    const exchange::ShardHold hold(world.x->peers());
    world.x->detach_publisher(*world.x->find_publisher(publisher.slot(), publisher.incarnation()));
  }
  world.x->tick(world.now_ns += ms);
  CHECK(has_ring(world, publisher));
  CHECK(holder.calls == 1);
  world.queue(name).lane.leaving = true;  // as one whose page is damaged
  follower.tick(world.now_ns += ms);
  CHECK(world.x->find_queue(name) != nullptr);
  CHECK(holder.calls == 2);
  follower.tick(world.now_ns += ms);
  CHECK(holder.calls == 2);  // it is on its way
  {
    const exchange::ShardHold hold(world.x->peers());
    world.x->look_after_shards(world.now_ns);
  }
  CHECK(holder.holds == 2);
  CHECK(world.x->find_queue(name) == nullptr);
  CHECK_FALSE(has_ring(world, publisher));
  CHECK(a.read() == Texts{"1"});
  world.stat();
}

TEST_CASE("dead letters of any shard's subscriptions go to their topic, and from there to any shard's") {
  Sharded world;
  SubscriptionOptions options = exact();
  options.dead_letter_topic = "dead";
  CoreMember members[] = {world.member("m0", {"a"}, options), world.member("m1", {"a"}, options)};
  auto w0 = world.reader("w0", {"dead"});
  auto w1 = world.reader("w1", {"dead"});
  CHECK(world.shard_of("m0") != world.shard_of("m1"));
  CHECK(world.shard_of("w0") != world.shard_of("w1"));
  auto publisher = world.publisher("p");
  CountingHolder holder;
  world.x->set_holder(&holder);
  std::size_t got[2] = {};
  for (int i = 0; i < 40; ++i) {
    publisher.publish("a", std::to_string(i));
    world.run();
    for (CoreMember& member : members) reject_all(member);
    world.tick();
    {
      const exchange::ShardHold hold(world.x->peers());
      world.x->look_after_shards(world.now_ns);
    }
    if (i % 3 == 0) world.run(i & 1);
    if (i % 8 == 7) world.stat();
    got[0] += w0.read().size();
    got[1] += w1.read().size();
    if (i == 20) {
      world.restart();
      world.x->set_holder(&holder);
    }
  }
  world.run();
  CHECK(got[0] + w0.read().size() == 80);
  CHECK(got[1] + w1.read().size() == 80);
  const auto row = world.publisher_row("@dead-letters");
  CHECK(row["routed"] == 80);
  CHECK(row["behind"] == nlohmann::ordered_json{0, 0});
  CHECK(row_of(world.stat(), "m1")["dlq_size"] == 40);
}
