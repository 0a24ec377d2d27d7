// The doctor finds nothing in a bus that is sound, whatever is in it; and it survives whatever bytes there are.
#include <random>

#include "tests/exchange/doctor_damage.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("a bus that holds everything is sound: as it is, when its exchange is dead, and while it lives") {
  RichWorld world;
  const auto row = row_of(world.stat(), "plain");
  for (const char* place : {"acked", "queued", "in_flight", "retry_waiting", "dlq_size"}) CHECK(row[place] != 0);
  const Copy copy = world.copy();
  const exchange::DoctorReport report = exchange::examine(*copy.directory);
  CHECK(findings_of(report) == "");
  CHECK(report.state == "dead");
  CHECK(found(report, "exchange", "died", Gravity::note));
  CHECK(report.subscriptions == 3);
  CHECK(report.publishers == 1);
  CHECK(report.events > 60);
  const Held locks(*copy.directory, {"exchange.lock", "client.1.lock"});
  CHECK(findings_of(exchange::examine(*copy.directory, at_once), Gravity::note) == "");
  world.x->close();
  CHECK(findings_of(exchange::examine(*world.directory), Gravity::note) == "");
  CHECK(exchange::examine(*world.directory).state == "stopped");
}

TEST_CASE("what a crash may leave is a note on a dead bus, and wrong on a live one") {
  const RichWorld world;
  const std::vector<Damage> remains{
      {"temporary",
       [](const Copy& copy) {
         copy.make(copy.plain + ".json.tmp");
         return copy.plain + ".json.tmp";
       }},
      {"ended",
       [](const Copy& copy) {
         copy.copy(copy.ack, copy.plain + ".ack.1");
         return copy.plain + ".ack.1";
       }},
      {"ended",
       [](const Copy& copy) {
         copy.copy(copy.pub_cursor, "pub.0.cursor.1");
         return std::string("pub.0.cursor.1");
       }},
      {"dead_client",
       [](const Copy& copy) {
         copy.make("client.0.lock");
         return std::string("client.0.lock");
       }},
      {"no_definition",
       [](const Copy& copy) {
         copy.directory->remove("sub.1.json");
         return std::string("sub.1.json");
       }},
      {"released",
       [](const Copy& copy) {
         const u64 end = u64{2} << 32 | 192;
         for (const u64 field : {offsetof(SubscriptionBlock, retry_head), offsetof(SubscriptionBlock, dead_head)})
           copy.put(copy.plain + ".state", copy.in_block(field), end);
         copy.put(copy.plain + ".state", offsetof(shm::SubscriptionSegment, retry_tail), end);
         return copy.plain + ".retry.00000001";
       }},
      {"retired",
       [](const Copy& copy) {
         copy.put(copy.plain + ".state", copy.in_block(offsetof(SubscriptionBlock, retired_ring)),
                  exchange::parse_file_name(copy.ring).number);
         return copy.ring;
       }},
  };
  check_all(world, remains, {"exchange.lock", "client.1.lock"});
  for (const Damage& one : remains) {
    const Copy copy = world.copy();
    const std::string file = one.make(copy);
    INFO(std::string(one.check));
    CHECK(found(exchange::examine(*copy.directory), file, one.check, Gravity::note));
    CHECK_FALSE(found(exchange::examine(*copy.directory), file, one.check));
  }
  check_all(world,
            {
                {"state_outside",
                 [](const Copy& copy) {
                   copy.put(copy.once_ring, shm::page_bytes + 15, std::uint8_t{0x81});
                   return copy.once_ring;
                 }},
                {"state",
                 [](const Copy& copy) {
                   copy.put("exchange", offsetof(shm::ExchangeSegment, state), u32{3});
                   return std::string("exchange");
                 }},
            },
            {"exchange.lock", "client.1.lock"});
  check_all(world, {{"client", [](const Copy&) { return std::string("client.1.lock"); }}}, {"exchange.lock"});
}

TEST_CASE("whatever bytes the files hold, the doctor comes to an end and answers") {
  const RichWorld world;
  std::mt19937_64 random(20261125);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const Copy copy = world.copy();
    for (const std::string& file : copy.directory->list("")) {
      struct stat status {};
      REQUIRE(::fstat(copy.directory->open(file, false).get(), &status) == 0);
      const auto bytes = static_cast<u64>(status.st_size);
      for (u64 i = 0; bytes > 8 && i < random() % 40; ++i) {
        // Mostly in the part that is full of words; small values lead further than large ones.
        const u64 offset = random() % std::min<u64>(bytes - 8, i % 4 == 0 ? bytes : 1024);
        copy.put(file, offset < 128 && i % 8 != 0 ? offset + 128 : offset, i % 3 == 0 ? random() % 64 : random());
      }
      if (random() % 16 == 0) copy.truncate(file, random() % (bytes + 1));
    }
    CHECK_FALSE(exchange::examine(*copy.directory).sound());
  }
}
