// Looking into a subscription: what is next, and where one event is. Nothing changes by it, and each look is bounded.
#include "lib/exchange/inspect.hpp"

#include <map>
#include <random>
#include <set>

#include "tests/exchange/group_world.hpp"

using namespace ackring;
using namespace ackring::test;
using exchange::Found;
using exchange::InspectBounds;
using exchange::InspectCursor;
using exchange::Queue;

namespace {

// Everything that peek shows, asked with these bounds until there is no more.
std::vector<std::uint64_t> peek_all(const Queue& queue, const InspectBounds& bounds = {}) {
  std::vector<std::uint64_t> deliveries;
  InspectCursor cursor;
  for (int looks = 0; cursor.stage != InspectCursor::end; ++looks) {
    REQUIRE(looks < 100'000);
    std::uint64_t shown = 0;
    cursor = peek(queue, cursor, bounds, [&](const ring::EventParts& event) {
      ++shown;
      deliveries.push_back(event.header->delivery);
    });
    CHECK(shown <= bounds.events);
  }
  return deliveries;
}

Found find_all(const Queue& queue, std::uint64_t delivery, const InspectBounds& bounds = {}) {
  Found found;
  for (int looks = 0; found.where == Found::Where::nowhere && found.next.stage != InspectCursor::end; ++looks) {
    REQUIRE(looks < 100'000);
    found = find(queue, {.delivery = delivery}, found.next, bounds);
  }
  return found;
}

control::Json explained(World& world, const std::string& name, std::uint64_t delivery) {
  const Queue& queue = *world.x->find_queue(name);
  const Found found = find_all(queue, delivery);
  return found.where == Found::Where::nowhere ? explain_gone(queue)
                                              : explain(queue, found, world.now_ns, world.x->served_at(world.now_ns));
}

std::uint64_t unix_offset(const World& world) { return exchange::unix_now_ns() - world.now_ns; }

// The two clocks are read anew by each call.
bool about(std::uint64_t unix_ns, std::uint64_t expected) {
  const auto distance = static_cast<std::int64_t>(unix_ns - expected);
  return distance > -10'000'000'000 && distance < 10'000'000'000;
}

std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (; first <= last; ++first) numbers.push_back(first);
  return numbers;
}

SubscriptionOptions small() {
  SubscriptionOptions options = exact();
  options.ring_bytes = 4096;
  options.max_in_flight = 8;
  return options;
}

}  // namespace

TEST_CASE("peek shows what was not taken, ring before backlog, and changes nothing") {
  World world;
  auto member = world.member("s", {"#"}, small());
  publish(world, 50);
  world.tick(20 * ms);
  Seen seen;
  for (int i = 0; i < 3; ++i) REQUIRE(member.take(seen));
  member.verdict(0, ring::Verdict::ack);
  world.tick();
  const Queue& queue = *world.x->find_queue("s");
  const auto before = world.stat();
  CHECK(queue.block.backlog_events > 0);
  CHECK(peek_all(queue) == range(4, 50));
  for (const std::uint64_t events : {1, 2, 7}) CHECK(peek_all(queue, {.events = events}) == range(4, 50));
  CHECK(peek_all(queue, {.bytes = 1}) == range(4, 50));
  CHECK(peek_all(queue, {.looked_at = 1}) == range(4, 50));
  CHECK(world.stat()["subscriptions"] == before["subscriptions"]);

  std::vector<std::uint64_t> first;
  const InspectCursor cursor =
      peek(queue, {}, {.events = 2}, [&](const ring::EventParts& event) { first.push_back(event.header->delivery); });
  CHECK(first == range(4, 5));
  for (int i = 0; i < 3; ++i) REQUIRE(member.take(seen));  // it takes one more than was shown
  world.tick();
  first.clear();
  (void)peek(queue, cursor, {.events = 2},
             [&](const ring::EventParts& event) { first.push_back(event.header->delivery); });
  CHECK(first == range(7, 8));
}

TEST_CASE("peek: what was taken back goes before the backlog, keys in the order of deliveries") {
  for (const bool keyed : {false, true}) {
    CAPTURE(keyed);
    World world;
    SubscriptionOptions options = keyed ? group(8) : small();
    options.ordered_by_key = keyed;
    auto member = world.member("s", {"#"}, options);
    auto publisher = world.publisher();
    for (int i = 0; i < 40; ++i) publisher.add("a", std::to_string(i), "k" + std::to_string(i % 5));
    publisher.commit();
    world.tick();
    world.tick(20 * ms);
    world.x->pause(*world.x->find_queue("s"));
    const Queue& queue = *world.x->find_queue("s");
    CHECK(queue.parked_events > 0);
    CHECK(peek_all(queue) == range(1, 40));
    CHECK(peek_all(queue, {.events = 3}) == range(1, 40));
    CHECK(peek_all(queue, {.looked_at = 2}) == range(1, 40));
    const auto where = explained(world, "s", 2);
    CHECK(where["state"] == "parked");
    CHECK(where["reason"] == "the subscription is paused");
  }
}

TEST_CASE("peek: several members in turns") {
  World world;
  auto first = world.member("s", {"#"}, group(8));
  auto second = world.member("s", {"#"}, group(8));
  publish(world, 8);
  const auto shown = peek_all(*world.x->find_queue("s"));
  REQUIRE(shown.size() == 8);
  const std::vector<Seen> a = take_all(first);
  const std::vector<Seen> b = take_all(second);
  REQUIRE(!a.empty());
  REQUIRE(!b.empty());
  const std::set<std::uint64_t> next = {shown[0], shown[1]};
  CHECK(next == std::set<std::uint64_t>{a[0].delivery, b[0].delivery});
}

TEST_CASE("explain: the life of a delivery") {
  World world;
  SubscriptionOptions options = small();
  options.max_deliveries = 2;
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  publish(world, 30);
  auto where = explained(world, "s", 7);
  CHECK(where["state"] == "queued");
  CHECK(where["where"] == "backlog");
  CHECK(where["position"] == 6);
  CHECK(where["reason"] == "no member is there");

  auto member = world.member("s", {});
  world.tick();
  where = explained(world, "s", 7);
  CHECK(where["where"] == "ring");
  CHECK(where["position"] == 6);
  CHECK(where["member"]["client"] == world.client);
  CHECK(explained(world, "s", 1)["reason"] == "its member has not taken it yet");
  where = explained(world, "s", 20);
  CHECK(where["where"] == "backlog");
  CHECK(where["position"] == 11);
  CHECK(where["reason"] == "the ring of the member has no room");

  Seen seen;
  for (int i = 0; i < 4; ++i) REQUIRE(member.take(seen));
  world.tick();
  const std::uint64_t noted = world.now_ns;
  CHECK(explained(world, "s", 7)["position"] == 2);
  world.tick(10 * ms);
  where = explained(world, "s", 1);
  CHECK(where["state"] == "in_flight");
  CHECK(about(where["since_ns"], noted + unix_offset(world)));
  CHECK(where["until_ns"].get<std::uint64_t>() - where["since_ns"].get<std::uint64_t>() == 50 * ms);
  member.extend(1, 5000);
  world.tick();
  where = explained(world, "s", 2);
  CHECK(where["until_ns"].get<std::uint64_t>() - where["since_ns"].get<std::uint64_t>() == 5015 * ms);
  CHECK(where["reason"] == "taken, and its member asked for more time");

  member.verdict(0, ring::Verdict::ack);
  member.nack(2, 300);
  member.reject(3, "no good");
  world.tick();
  where = explained(world, "s", 1);
  CHECK(where["state"] == "settled");
  CHECK(where["reason"] == "acked");
  where = explained(world, "s", 3);
  CHECK(where["state"] == "retry_waiting");
  CHECK(where["attempt"] == 2);
  CHECK(about(where["due_ns"], world.now_ns + 300 * ms + unix_offset(world)));
  where = explained(world, "s", 4);
  CHECK(where["state"] == "dead");
  CHECK(where["reason"] == "rejected: no good");
  CHECK(where["attempt"] == 1);

  (void)world.x->purge_dead(*world.x->find_queue("s"), {});
  CHECK(explained(world, "s", 4)["state"] == "gone");
  CHECK(explained(world, "s", 4)["reason"] ==
        "not there any more: it was acked, or else purged from the dead letters (1 were)");
  (void)world.x->purge(*world.x->find_queue("s"), world.now_ns);
  CHECK(explained(world, "s", 20)["state"] == "gone");
  CHECK(find_all(*world.x->find_queue("s"), 31).where == Found::Where::nowhere);
}

TEST_CASE("explain: a key that waits, and what was taken at most once") {
  World world;
  SubscriptionOptions options = group(8);
  options.ordered = options.ordered_by_key = true;
  auto member = world.member("k", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 3; ++i) publisher.add("a", "x", "same");
  publisher.add("a", "x", "other");
  publisher.commit();
  world.tick();
  CHECK(take_all(member).size() == 2);
  world.tick();
  CHECK(explained(world, "k", 1)["state"] == "in_flight");
  CHECK(explained(world, "k", 1)["member"]["number"] == 1);
  const auto where = explained(world, "k", 3);
  CHECK(where["state"] == "parked");
  CHECK(where["reason"] == "a delivery of its key before it is not settled");
  CHECK(peek_all(*world.x->find_queue("k")) == range(2, 3));

  options = small();
  options.guarantee = Guarantee::at_most_once;
  auto once = world.member("once", {"#"}, options);
  publish(world, 2);
  Seen seen;
  REQUIRE(once.take(seen));
  world.tick();
  CHECK(explained(world, "once", 1)["reason"] == "acked: taken, at most once");
  CHECK(explained(world, "once", 2)["state"] == "queued");
  CHECK(peek_all(*world.x->find_queue("once")) == range(2, 2));
}

TEST_CASE("explain says of every delivery what the books say of all, and peek shows all that is queued") {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    std::mt19937 engine(seed);
    const auto random = [&engine] { return static_cast<std::uint32_t>(engine()); };
    World world;
    SubscriptionOptions options = seed % 2 == 0 ? group(4) : small();
    options.ordered_by_key = seed % 4 == 0;
    options.max_deliveries = 3;
    if (seed % 5 == 0) options.max_events = 20;
    if (seed % 5 == 0) options.overflow = Overflow::drop_oldest;
    std::vector<CoreMember> members;
    for (std::uint32_t i = 0; i <= (options.group ? seed % 3 : 0); ++i)
      members.push_back(world.member("s", {"#"}, options));
    auto publisher = world.publisher();
    for (int round = 0; round < 12; ++round) {
      for (std::uint32_t i = random() % 12; i > 0; --i) publisher.add("a", "x", "k" + std::to_string(random() % 7));
      publisher.commit();
      world.tick(30 * ms);
      for (CoreMember& member : members) {
        Seen seen;
        for (std::uint32_t i = random() % 6; i > 0 && member.take(seen); --i) {
          switch (random() % 5) {
            case 0:
              member.nack(seen.entry, random() % 200);
              break;
            case 1:
              member.reject(seen.entry, "");
              break;
            case 2:
              break;
            default:
              member.verdict(seen.entry, ring::Verdict::ack);
          }
        }
      }
      Queue& queue = *world.x->find_queue("s");
      if (random() % 8 == 0) queue.paused ? world.x->resume(queue) : world.x->pause(queue);
      if (random() % 20 == 0) (void)world.x->purge(queue, world.now_ns);
      if (random() % 10 == 0) (void)world.x->purge_dead(queue, {.at_most = 1});
      if (random() % 10 == 0) (void)world.x->requeue_dead(queue, {.at_most = 2}, world.now_ns);
      world.x->sweep(queue, world.now_ns);

      const auto row = row_of(world.stat(), "s");
      std::map<std::string, std::uint64_t> states;
      std::uint64_t queued = 0;
      const std::uint64_t matched = row["matched"];
      for (std::uint64_t delivery = 1; delivery <= matched; ++delivery) {
        const auto where = explained(world, "s", delivery);
        ++states[where["state"].get<std::string>()];
        const Found step_by_step = find_all(queue, delivery, {.looked_at = 1 + random() % 5});
        CHECK(step_by_step.where == find_all(queue, delivery).where);
        CHECK(step_by_step.before == find_all(queue, delivery).before);
      }
      INFO(row.dump());
      queued = states["queued"] + states["parked"] + states["delayed"];
      CHECK(row["queued"] == queued);
      CHECK(row["in_flight"] == states["in_flight"]);
      CHECK(row["retry_waiting"] == states["retry_waiting"]);
      CHECK(row["dlq_size"] == states["dead"]);
      const auto shown = peek_all(queue, {.events = 1 + random() % 9, .looked_at = 1 + random() % 50});
      CHECK(shown.size() == queued);
      CHECK(std::set<std::uint64_t>(shown.begin(), shown.end()).size() == queued);
    }
  }
}

TEST_CASE("a cursor that a client made up harms nothing") {
  World world;
  auto member = world.member("s", {"#"}, small());
  auto first = world.member("g", {"#"}, group(8));
  publish(world, 60);
  world.tick(20 * ms);
  std::mt19937_64 random(7);
  for (const char* name : {"s", "g"}) {
    const Queue& queue = *world.x->find_queue(name);
    for (int i = 0; i < 5000; ++i) {
      InspectCursor cursor{static_cast<std::uint32_t>(random() % 8), random() % 3, random() >> random() % 64,
                           random() >> random() % 64};
      if (i % 3 == 0) cursor.position = queue.block.backlog_head + random() % 4096;
      std::uint64_t shown = 0;
      bool possible = true;
      (void)peek(queue, cursor, {.events = 5}, [&](const ring::EventParts& event) {
        ++shown;
        possible = possible && event.header->delivery >= 1 && event.header->delivery <= 60;
      });
      CHECK(shown <= 5);
      CHECK(possible);
      const Found found = find(queue, {.delivery = 1 + random() % 70}, cursor, {.looked_at = 10});
      if (found.where != Found::Where::nowhere) CHECK(found.event.header->delivery <= 60);
    }
  }
}
