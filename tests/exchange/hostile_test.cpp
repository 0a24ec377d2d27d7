// Clients that cut, punch and forge the files which they may write, against an exchange that runs: the one who does it
// loses its place, and nobody else anything (F24, F25, F28).
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <functional>

#include "lib/shm/bus_error_guard.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

SubscriptionOptions small() {
  SubscriptionOptions options;
  options.ring_bytes = 16 << 10;
  options.max_in_flight = 64;
  options.max_deliveries = 3;
  return options;
}

shm::UniqueFd ring_of(World& world, const CorePublisher& publisher) {
  return world.directory->open(exchange::Exchange::ingress_name(publisher.slot(), publisher.incarnation()), true);
}

std::string ack_file_of(World& world, const std::string& subscription) {
  const exchange::Queue& queue = *world.x->find_queue(subscription);
  std::string name;
  queue.each_lane([&](const exchange::Lane& lane) {
    if (lane.has_member()) name = exchange::Exchange::ack_name(queue.id, lane.ack_incarnation);
  });
  return name;
}

void resize(const shm::UniqueFd& fd, off_t bytes) { REQUIRE(::ftruncate(fd.get(), bytes) == 0); }

// Everything that a member finds, acked. Payload → attempt; nothing may come twice.
std::map<std::string, std::uint32_t> take_all(World& world, CoreMember& member) {
  std::map<std::string, std::uint32_t> got;
  Seen seen;
  for (int i = 0; i < 20; ++i) {
    world.tick();
    while (member.take(seen)) {
      CHECK(got.emplace(seen.payload, seen.attempt).second);
      member.verdict(seen.entry, ring::Verdict::ack);
    }
  }
  return got;
}

// What a member does to its own ack page.
using Ruin = std::function<void(World&, CoreMember&)>;

struct Named {
  std::string name;
  std::string why;
  Ruin ruin;
};

const std::vector<Named> ruins = {
    {"zeroed", "taken is not",
     [](World&, CoreMember& member) { std::memset(reinterpret_cast<std::byte*>(member.page()) + 192, 0, 3904); }},
    {"rewound", "taken is not",
     [](World&, CoreMember& member) { member.page()->taken.store(1, std::memory_order_release); }},
    {"taken more than there is", "taken is not",
     [](World&, CoreMember& member) { member.page()->taken.store(1000, std::memory_order_release); }},
    {"acked beyond what is taken", "acked_through is not",
     [](World&, CoreMember& member) { member.page()->acked_through.store(15, std::memory_order_release); }},
    {"ack taken back", "acked_through is not",
     [](World&, CoreMember& member) {
       member.page()->acked_through.store(~std::uint64_t{0}, std::memory_order_release);
     }},
    {"refused far away", "refused is not",
     [](World&, CoreMember& member) {
       member.page()->refused.store(std::uint64_t{1} << 62, std::memory_order_release);
     }},
    {"released far away", "released is not",
     [](World&, CoreMember& member) {
       member.page()->released.store(std::uint64_t{1} << 63, std::memory_order_release);
     }},
    {"a verdict that there is not", "no verdict",
     [](World&, CoreMember& member) {
       auto* words = reinterpret_cast<shm::Word64*>(reinterpret_cast<std::byte*>(member.page()) + shm::page_bytes);
       words[4].store(ring::AckWord::make(0, static_cast<ring::Verdict>(9)), std::memory_order_release);
     }},
    {"cut to nothing", "",
     [](World& world, CoreMember&) { resize(world.directory->open(ack_file_of(world, "hostile"), true), 0); }},
    {"cut behind its first page", "cut short",
     [](World& world, CoreMember&) { resize(world.directory->open(ack_file_of(world, "hostile"), true), 4096); }},
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE(
    "a page that cannot be costs its owner its place; what it held comes again, nobody else loses anything (F28)") {
  shm::guard_bus_errors();
  for (const Named& kind : ruins) {
    for (const bool grouped : {false, true}) {
      for (const bool restart : {false, true}) {
        // A successor can't know how far the acks had come: it only takes nothing back.
        if (restart && kind.name == "ack taken back") continue;
        CAPTURE(kind.name);
        CAPTURE(grouped);
        CAPTURE(restart);
        World world;
        SubscriptionOptions options = small();
        options.group = grouped;
        world.client = 7;
        auto hostile = world.member("hostile", {"#"}, options);
        world.client = world.x->new_client();
        auto other = world.member("other", {"#"}, small());
        auto publisher = world.publisher();
        for (int i = 0; i < 20; ++i) REQUIRE(publisher.publish("a", std::to_string(i)));
        world.tick();
        Seen seen;
        for (int i = 0; i < 6; ++i) REQUIRE(hostile.take(seen));
        hostile.ack_through(1);  // 0 and 1
        hostile.verdict(3, ring::Verdict::ack);
        world.tick();
        CHECK(world.x->take_offences().empty());
        kind.ruin(world, hostile);
        if (restart) world.restart();
        world.tick();
        world.tick();
        const auto offences = world.x->take_offences();
        if (!restart) {
          REQUIRE(offences.size() == 1);
          CHECK(offences[0].client == 7);
          INFO(offences[0].why);
          CHECK(contains(offences[0].why, kind.why));
          CHECK(row_of(world.stat(), "hostile")["invalid_acks"] == 1);
        }
        CHECK(row_of(world.stat(), "hostile")["members"] == 0);
        CHECK(row_of(world.stat(), "other")["members"] == 1);
        CHECK(row_of(world.stat(), "other")["invalid_acks"] == 0);
        auto next = world.member("hostile", {});
        const auto got = take_all(world, next);
        // Three were acked before. The rest counts as taken once; a restart may have found only the first two.
        CHECK(got.size() == 17);
        for (const auto& [payload, attempt] : got) CHECK(attempt == 2);
        CHECK(take_all(world, other).size() == 20);
        CHECK(row_of(world.stat(), "hostile")["acked"] == 20);
        CHECK(row_of(world.stat(), "hostile")["lag"] == 0);
        CHECK(row_of(world.stat(), "other")["acked"] == 20);
        CHECK(world.x->take_offences().empty());
      }
    }
  }
}

TEST_CASE("an exchange that dies after it has found such a page finds it again, and the books stay exact") {
  for (const std::uint32_t ticks : {0u, 1u}) {
    World world;
    auto hostile = world.member("hostile", {"#"}, small());
    auto publisher = world.publisher();
    for (int i = 0; i < 20; ++i) REQUIRE(publisher.publish("a", std::to_string(i)));
    world.tick();
    Seen seen;
    for (int i = 0; i < 6; ++i) REQUIRE(hostile.take(seen));
    world.tick();
    hostile.page()->taken.store(3, std::memory_order_release);
    if (ticks == 0) {
      world.x->sweep(*world.x->find_queue("hostile"), world.now_ns);  // found, but not detached
      CHECK(row_of(world.stat(), "hostile")["members"] == 1);
    } else {
      world.tick();
    }
    hostile.page()->taken.store(6, std::memory_order_release);  // as if nothing had been
    world.restart();
    world.tick();
    CHECK(row_of(world.stat(), "hostile")["members"] == 0);
    CHECK(row_of(world.stat(), "hostile")["invalid_acks"] == 1);
    auto next = world.member("hostile", {});
    const auto got = take_all(world, next);
    CHECK(got.size() == 20);
    for (const auto& [payload, attempt] : got) CHECK(attempt == 2);
  }
}

TEST_CASE("what an at-most-once member with an impossible page has in its ring counts as taken") {
  World world;
  SubscriptionOptions options = small();
  options.guarantee = Guarantee::at_most_once;
  auto hostile = world.member("hostile", {"#"}, options);
  auto publisher = world.publisher();
  for (int i = 0; i < 20; ++i) REQUIRE(publisher.publish("a", std::to_string(i)));
  world.tick();
  Seen seen;
  for (int i = 0; i < 6; ++i) REQUIRE(hostile.take(seen));
  hostile.release();
  hostile.page()->released.store(9, std::memory_order_release);
  world.tick();
  world.tick();
  CHECK(row_of(world.stat(), "hostile")["members"] == 0);
  CHECK(row_of(world.stat(), "hostile")["acked"] == 20);
  CHECK(row_of(world.stat(), "hostile")["invalid_acks"] == 1);
}

TEST_CASE("a publisher that cuts or punches its ring loses that ring; others go on (F24)") {
  shm::guard_bus_errors();
  enum class How { cut_to_nothing, cut_to_header, cut_in_the_middle, punched, longer };
  for (const How how : {How::cut_to_nothing, How::cut_to_header, How::cut_in_the_middle, How::punched, How::longer}) {
    for (const bool restart : {false, true}) {
      CAPTURE(static_cast<int>(how));
      CAPTURE(restart);
      World world;
      auto member = world.member("s", {"#"}, small());
      auto good = world.publisher("good");
      auto bad = world.publisher("bad");
      REQUIRE(bad.publish("a", "before"));
      world.run();
      const shm::UniqueFd fd = ring_of(world, bad);
      for (int i = 0; i < 40; ++i) REQUIRE(bad.add("a", std::string(1000, 'x')));
      bad.commit();
      switch (how) {
        case How::cut_to_nothing:
          resize(fd, 0);
          break;
        case How::cut_to_header:
          resize(fd, 4096);
          break;
        case How::cut_in_the_middle:
          resize(fd, 5 * 4096);
          break;
        case How::punched:
          REQUIRE(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * 4096, 8 * 4096) == 0);
          break;
        case How::longer:
          resize(fd, off_t{1} << 46);
          break;
      }
      if (restart) world.restart();
      REQUIRE(good.publish("a", "y"));
      std::map<std::string, int> got;
      Seen seen;
      for (int i = 0; i < 20; ++i) {
        world.tick();
        while (member.take(seen)) {
          ++got[seen.payload];
          member.verdict(seen.entry, ring::Verdict::ack);
        }
      }
      CHECK(got["before"] == 1);
      CHECK(got["y"] == 1);
      const exchange::Ingress* ingress = world.x->find_publisher(bad.slot(), bad.incarnation());
      const bool lost = how != How::longer;
      if (lost) CHECK((ingress == nullptr || ingress->quarantined));
      CHECK(got[std::string(1000, 'x')] == (lost ? got[std::string(1000, 'x')] : 40));
      // Set aside for good: it is still so for the next exchange, and the name is free once its client is gone.
      world.restart();
      world.tick();
      world.x->client_gone(world.client);
      world.tick();
      auto again = world.publisher("bad");
      REQUIRE(again.publish("a", "again"));
      world.tick();
      CHECK(world.stat()["publishers"].size() == 2);
    }
  }
}

TEST_CASE("a ring that is cut short while nothing is in it is found by the look of somebody else") {
  shm::guard_bus_errors();
  World world;
  auto bad = world.publisher("bad");
  resize(ring_of(world, bad), 0);
  world.run();  // its tail reads as 0, which is where it was
  world.tick();
  CHECK(world.x->find_publisher(bad.slot(), bad.incarnation())->quarantined);
  // Not world.stat(), which has the doctor look: it would find what is to be found here.
  CHECK(exchange::stat_document(*world.x, "test")["publishers"][0]["quarantined"] == true);
  CHECK(contains(world.x->report().at(0).text, "cut short"));
}

TEST_CASE("what is said about clients does not grow without end") {
  World world;
  auto member = world.member("s", {"#"}, small());
  for (int i = 0; i < 1100; ++i) {
    auto bad = world.publisher("bad");
    auto ring = shm::Segment::attach(*world.directory, exchange::Exchange::ingress_name(bad.slot(), bad.incarnation()),
                                     shm::SegmentKind::ingress_ring, shm::Access::read_write);
    ring.as<shm::IngressRing>()->tail.store(8, std::memory_order_release);
    world.run();
    world.x->client_gone(world.client);
    world.tick();
    member = world.member("s", {"#"}, small());
  }
  CHECK(world.x->report().size() == 1000);
}
