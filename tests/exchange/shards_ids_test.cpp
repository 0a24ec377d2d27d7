// Event ids with several shards: the lead says which events are known, and the others go by what it said, however far they
// are behind it.
#include "tests/exchange/shards_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t ms = 1'000'000;

struct Ids : Sharded {
  explicit Ids(std::size_t count = 2, std::uint64_t ttl_ms = 1'000) : Sharded(count) {
    SubscriptionOptions options;
    options.name = event_ids_name;
    options.patterns = {"o.#"};
    options.ttl = std::chrono::milliseconds(ttl_ms);
    options.max_events = limits::least_event_ids;
    x->create_subscription(options, false);
    CHECK(shard_of("@ids") == 0);
  }
  void send(CorePublisher& publisher, std::string_view id, const std::string& topic = "o.a") {
    publisher.headers = with_id(id);
    REQUIRE(publisher.publish(topic, std::string(id)));
    publisher.headers.clear();
  }
  std::uint64_t duplicates() {
    std::uint64_t sum = 0;
    const auto document = stat();
    for (const auto& row : document["publishers"]) sum += row["duplicates"].get<std::uint64_t>();
    return sum;
  }
};

}  // namespace

TEST_CASE("shards that come behind the lead pass over the events whose ids it knew") {
  Ids world;
  auto follower = world.reader("f", {"#"});
  auto lead = world.reader("l", {"#"});
  CHECK(world.shard_of("f") == 1);
  CHECK(world.shard_of("l") == 0);
  auto one = world.publisher("one");
  auto two = world.publisher("two");
  for (const char* id : {"1", "2", "1"}) world.send(one, id);
  for (const char* id : {"2", "3", "3", "4"}) world.send(two, id);
  world.run(0);
  CHECK(lead.read().size() == 4);
  CHECK(follower.read().empty());
  CHECK(world.duplicates() == 3);
  world.send(one, "4");
  world.run(1);
  CHECK(follower.read().size() == 4);  // not the last one: nobody has said yet whether it is known
  world.run();
  CHECK(follower.read().empty());
  CHECK(lead.read().empty());
  CHECK(world.duplicates() == 4);
  const auto row = world.publisher_row("one");
  CHECK(row["behind"] == nlohmann::ordered_json{0, 0});
  CHECK(row["routed"].get<int>() + world.publisher_row("two")["routed"].get<int>() == 4);
}

TEST_CASE("a shard that is ahead of the lead waits for it where ids count, and only there") {
  Ids world;
  auto follower = world.reader("f", {"#"});
  auto publisher = world.publisher("p");
  publisher.publish("other", "a");
  world.send(publisher, "1");
  publisher.publish("other", "b");
  world.run(1);
  CHECK(follower.read() == Texts{"a"});
  CHECK(world.x->shards()[1]->needs_tick());  // nobody rings for what the lead does
  world.run(0);
  world.run(1);
  CHECK(follower.read() == Texts{"1", "b"});
  CHECK_FALSE(world.x->shards()[1]->publishers()[publisher.slot()]->reader.readable());
  // A shard that has nobody for a topic does not wait.
  world.x->remove_subscription(world.queue("f"));
  world.send(publisher, "2");
  world.run(1);
  CHECK(world.publisher_row("p")["behind"] == nlohmann::ordered_json{1, 0});
}

TEST_CASE("the lead says of no more duplicates than there is room to write down, until all have read that") {
  for (const bool restarts : {false, true}) {
    CAPTURE(restarts);
    Ids world(4);
    auto follower = world.reader("f", {"#"});
    auto publisher = world.publisher("p");
    world.send(publisher, "1");
    for (int i = 0; i < 200; ++i) world.send(publisher, "1");
    world.run(0);
    CHECK(world.duplicates() == shm::duplicate_notes);
    if (restarts) {
      world.x.reset();
      world.x = World::start(*world.directory, 4);
      world.run(0);
      CHECK(world.duplicates() == shm::duplicate_notes);
    }
    world.run(1);
    world.run(0);
    CHECK(world.duplicates() == shm::duplicate_notes);  // two more have to come by
    world.run(3);
    world.run(2);
    world.run(0);
    CHECK(world.duplicates() == 200);
    world.send(publisher, "2");
    world.run();
    CHECK(follower.read() == Texts{"1", "2"});
    CHECK(world.publisher_row("p")["behind"] == nlohmann::ordered_json{0, 0, 0, 0});
  }
}

TEST_CASE("a name is free again when its earlier holder has left more duplicates than can be written down at once") {
  Ids world;
  auto follower = world.reader("f", {"#"});
  auto publisher = world.publisher("p");
  for (int i = 0; i < 400; ++i) world.send(publisher, "1");
  world.x->detach_publisher(*world.x->find_publisher(publisher.slot(), publisher.incarnation()));
  CHECK(world.publisher("p").sequence() == 400);
  CHECK(follower.read() == Texts{"1"});
  CHECK(world.duplicates() == 399);
}

TEST_CASE("what the lead said of an id holds after a restart, also where the id has expired since") {
  Ids world(2, 100);
  auto follower = world.reader("f", {"#"});
  auto lead = world.reader("l", {"#"});
  auto publisher = world.publisher("p");
  world.tick();
  world.send(publisher, "1");
  world.send(publisher, "1");
  world.run(0);
  CHECK(lead.read() == Texts{"1"});
  world.now_ns += 200 * ms;
  tick_all(*world.x, world.now_ns);
  CHECK(row_of(world.stat(), "@ids")["expired"] == 1);
  world.restart();
  CHECK(follower.read() == Texts{"1"});
  world.send(publisher, "1");
  world.run();
  CHECK(follower.read() == Texts{"1"});
  CHECK(lead.read() == Texts{"1"});
  CHECK(world.duplicates() == 1);
}

TEST_CASE("ids are known to one shard and to several alike") {
  Ids world(1);
  auto a = world.reader("a", {"#"});
  auto b = world.reader("b", {"#"});
  auto publisher = world.publisher("p");
  std::uint64_t sent = 0;
  for (const std::size_t shards : {2u, 1u, 4u, 2u, 4u, 1u}) {
    CAPTURE(shards);
    for (int i = 0; i < 20; ++i) world.send(publisher, std::to_string(sent + i / 2));
    sent += 10;
    world.run();
    CHECK(a.read().size() == 10);
    CHECK(b.read().size() == 10);
    // What is in the ring when the bus is divided is decided by the new lead.
    world.send(publisher, std::to_string(sent - 1));
    world.restart(shards);
    CHECK(a.read().empty());
    CHECK(b.read().empty());
    CHECK(world.shard_of("@ids") == 0);
  }
  CHECK(world.duplicates() == 6 * 11);
}
