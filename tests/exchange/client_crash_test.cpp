// A publisher and a member, with the endpoints of the library, die at every point of a life with a real exchange, which goes
// on. The dead one's lock is free, so the exchange takes leave of it; a successor comes under the same name. What publish()
// has answered is there, once and in order; what was decided stays decided; what was taken and not decided comes again with
// the next attempt; and the books are exact.
#include <map>
#include <set>

#include "lib/client/member.hpp"
#include "lib/client/publisher_endpoint.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

std::shared_ptr<client::BusView> view_of(shm::Directory& directory) {
  auto view = std::make_shared<client::BusView>();
  view->exchange = shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  view->topics = control::TopicReader(shm::Segment::attach(directory, "topics", shm::SegmentKind::topics,
                                                           shm::Access::read_only, control::topics_reserve_bytes));
  return view;
}

// Without a connection an endpoint that is destroyed tells nobody: just as if its process were gone.
std::unique_ptr<client::PublisherEndpoint> publisher_of(World& world, std::uint64_t client, std::uint64_t& next) {
  const auto grant = world.x->attach_publisher(client, "p", 4096);
  next = grant.next_sequence;
  auto endpoint = std::make_unique<client::PublisherEndpoint>(nullptr, Wait::adaptive);
  endpoint->adopt(
      shm::Segment::attach(*world.directory, grant.ring_file, shm::SegmentKind::ingress_ring, shm::Access::read_write),
      shm::Segment::attach(*world.directory, grant.cursor_file, shm::SegmentKind::ingress_cursor,
                           shm::Access::read_only, exchange::cursor_reserve_bytes),
      shm::Bell::make_pair().first, view_of(*world.directory), next);
  return endpoint;
}

std::shared_ptr<client::Member> member_of(World& world, std::uint64_t client) {
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  options.ring_bytes = 4096;
  options.max_in_flight = 16;
  options.backoff_initial = options.backoff_max = std::chrono::milliseconds(0);
  const auto grant = world.x->attach_member(client, options, false, {});
  auto member = std::make_shared<client::Member>(nullptr, Wait::adaptive);
  member->adopt(
      shm::Segment::attach(*world.directory, grant.ring_file, shm::SegmentKind::member_ring, shm::Access::read_only),
      shm::Segment::attach(*world.directory, grant.ack_file, shm::SegmentKind::ack_page, shm::Access::read_write),
      shm::Bell::make_pair().first, view_of(*world.directory), {grant.entry, grant.position, false});
  return member;
}

void take_clock(KillHook& hook, const World& world) {
  hook.clock = &world.now_ns;
  hook.virtual_time = true;
}

// The part of a client, which may die in it. True: it did.
template <class Step>
bool dies(KillHook& hook, Step step) {
  try {
    shm::Environment::hook = &hook;
    step();
    shm::Environment::hook = nullptr;
    return false;
  } catch (const Death&) {
    shm::Environment::hook = nullptr;
    return true;
  }
}

bool publisher_dies_at(std::uint64_t point) {
  World world;
  KillHook hook;
  hook.die_before = point;
  take_clock(hook, world);
  world.tick();  // from here on the exchange goes by the clock of this world
  auto reader = world.member("s", {"#"});
  std::uint64_t next = 0;
  const std::uint64_t dying = world.x->new_client();
  auto endpoint = publisher_of(world, dying, next);
  std::uint64_t answered = 0;  // events of which publish() or commit() has said ok
  std::uint64_t tried = 0;
  std::vector<std::string> payloads;
  std::uint64_t seen_events = 0;
  const auto read = [&] {
    world.run();
    Seen seen;
    while (reader.take(seen)) {
      CHECK(seen.sequence == ++seen_events);
      CHECK(seen.payload == payloads.at(seen.sequence - 1));
      reader.ack_through(seen.entry);
    }
    world.tick();
  };
  const Headers headers = {{"name", "value"}};
  const auto life = [&] {
    for (int round = 0; round < 12; ++round) {
      for (int i = 0; i < 3; ++i)
        payloads.push_back(std::to_string(tried) + "." + std::to_string(i) +
                           std::string(static_cast<std::size_t>(round) * 11, 'x'));
      const std::string* payload = &payloads[payloads.size() - 3];
      const std::string topic = "t." + std::to_string(round / 3);
      tried += 1;
      CHECK(endpoint->publish(topic, as_bytes(payload[0]), {.key = "k", .headers = &headers}) == Outcome::ok);
      answered = tried;
      tried += 2;
      CHECK(endpoint->add(topic, as_bytes(payload[1]), {.ttl = std::chrono::hours(1)}) == Outcome::ok);
      CHECK(endpoint->add("other", as_bytes(payload[2]), {}) == Outcome::ok);
      CHECK(endpoint->commit() == Outcome::ok);
      answered = tried;
      auto* killer = shm::Environment::hook;
      shm::Environment::hook = nullptr;
      read();
      shm::Environment::hook = killer;
    }
  };
  const bool died = dies(hook, life);
  endpoint.reset();
  world.x->client_gone(dying);
  read();
  const std::uint64_t heir = world.x->new_client();
  endpoint = publisher_of(world, heir, next);
  CHECK(next - 1 >= answered);
  CHECK(next - 1 <= tried);
  payloads.resize(next - 1);
  payloads.push_back("heir");
  CHECK(endpoint->publish("t.heir", as_bytes(payloads.back()), {}) == Outcome::ok);
  read();
  INFO(world.stat().dump());
  CHECK(seen_events == next);
  const auto stat = world.stat();
  CHECK(row_of(stat, "s")["acked"] == next);
  CHECK(stat["publishers"][0]["duplicates"] == 0);
  return died;
}

bool member_dies_at(std::uint64_t point) {
  constexpr std::uint64_t events = 20;
  World world;
  KillHook hook;
  hook.die_before = point;
  take_clock(hook, world);
  world.tick();  // from here on the exchange goes by the clock of this world
  auto member = member_of(world, world.client);
  auto publisher = world.publisher("p");
  enum class State { untaken, taken, undecided, acked, failed, dead };
  std::map<std::uint64_t, State> states;            // by delivery
  std::map<std::uint64_t, std::uint32_t> attempts;  // the last one seen
  for (std::uint64_t i = 1; i <= events; ++i) {
    states[i] = State::untaken;
    REQUIRE(publisher.publish("a", std::to_string(i)));
  }
  world.run();
  const auto decide = [&](const DeliveryView& view, State wanted, auto verdict) {
    states[view.delivery()] = State::undecided;
    verdict();
    states[view.delivery()] = wanted;
  };
  const auto life = [&] {
    std::array<DeliveryView, 3> views;
    while (true) {
      // What a call was about to hand out may count as taken.
      const std::size_t count = member->take_batch(views, Nanoseconds(0));
      if (count == 0) break;
      for (std::size_t i = 0; i < count; ++i) {
        attempts[views[i].delivery()] = std::max(attempts[views[i].delivery()], views[i].attempt());
        states[views[i].delivery()] = State::taken;
      }
      for (std::size_t i = 0; i < count; ++i) {
        const DeliveryView& view = views[i];
        switch (view.delivery() % 6) {
          case 0:
            decide(view, State::acked, [&] { CHECK(member->verdict(view.entry, ring::Verdict::ack) == Outcome::ok); });
            break;
          case 1:
            decide(view, State::failed, [&] { CHECK(member->nack(view.entry, Nanoseconds(0)) == Outcome::ok); });
            break;
          case 2:
            decide(view, State::dead, [&] { CHECK(member->reject(view.entry, "a reason") == Outcome::ok); });
            break;
          case 3:
            CHECK(member->extend(view.entry, std::chrono::seconds(5)) == Outcome::ok);
            break;
          case 4:
            member->detached(view.entry);
            break;
          default:
            break;
        }
      }
      if (views[count - 1].delivery() == 12) {  // all before it that have no verdict
        std::vector<std::uint64_t> covered;
        for (const auto& entry : states) {
          const auto delivery = entry.first;
          const State state = entry.second;
          if (delivery <= 12 && state == State::taken) covered.push_back(delivery);
        }
        for (const std::uint64_t delivery : covered) states[delivery] = State::undecided;
        CHECK(member->ack_through(views[count - 1].entry) == Outcome::ok);
        for (const std::uint64_t delivery : covered) states[delivery] = State::acked;
      }
    }
  };
  const bool died = dies(hook, life);
  member.reset();
  world.x->client_gone(world.client);
  for (int i = 0; i < 3; ++i) world.tick();
  member = member_of(world, world.x->new_client());
  std::set<std::uint64_t> again;
  for (int i = 0; i < 10; ++i) {
    world.tick();
    std::array<DeliveryView, 8> views;
    while (const std::size_t count = member->take_batch(views, Nanoseconds(0))) {
      for (std::size_t k = 0; k < count; ++k) {
        const std::uint64_t delivery = views[k].delivery();
        CAPTURE(delivery);
        CHECK(again.insert(delivery).second);
        const State state = states[delivery];
        CHECK(state != State::acked);
        CHECK(state != State::dead);
        if (state == State::untaken) {
          CHECK(views[k].attempt() <= 2);  // it died in the call that took it, or before
        } else {
          CHECK(views[k].attempt() == attempts[delivery] + 1);
        }
      }
      CHECK(member->ack_through(views[count - 1].entry) == Outcome::ok);
    }
  }
  world.tick();
  std::uint64_t dead = 0;
  for (const auto& entry : states) {
    const auto delivery = entry.first;
    const State state = entry.second;
    CAPTURE(delivery);
    const bool may_be_decided = state == State::undecided || state == State::acked || state == State::dead;
    CHECK((again.contains(delivery) || may_be_decided));
    if (state == State::dead || (state == State::undecided && delivery % 6 == 2 && !again.contains(delivery))) ++dead;
  }
  const auto row = row_of(world.stat(), "s");
  INFO(row.dump());
  CHECK(row["matched"] == events);
  CHECK(row["dlq_size"] == dead);
  CHECK(row["acked"] == events - dead);
  return died;
}

template <class Role>
std::uint64_t deaths_of(const char* what, Role dies_at) {
  const Depth depth;
  std::uint64_t deaths = depth.first();
  for (bool died = true; died; ++deaths) {
    CAPTURE(deaths);
    died = dies_at(deaths);
    if (depth.point != nullptr) break;
  }
  std::printf("%s: points %llu\n", what, static_cast<unsigned long long>(deaths - 1));
  return deaths;
}

}  // namespace

TEST_CASE("a publisher may die at any point: what it was told lies in its ring is routed once, and its heir goes on") {
  CHECK(deaths_of("a publisher", publisher_dies_at) > 100);
  check_named_points({shm::CrashPoint::publish_topic, shm::CrashPoint::publish_record, shm::CrashPoint::publish_tail});
}

TEST_CASE("a member may die at any point: what it decided stays decided, the rest comes to its heir") {
  CHECK(deaths_of("a member", member_dies_at) > 50);
  check_named_points({shm::CrashPoint::take_taken, shm::CrashPoint::verdict_word, shm::CrashPoint::verdict_reason,
                      shm::CrashPoint::verdict_extend, shm::CrashPoint::verdict_through,
                      shm::CrashPoint::verdict_released});
}
