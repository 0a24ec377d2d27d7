// What an exchange finds in a directory of many subscriptions: all that is sound, nothing that is not, and what it may not
// judge it leaves alone.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "ackring/error.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/directory.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using exchange::Exchange;

namespace {

constexpr std::size_t count = 300;  // enough for a second thread to help

struct TemporaryBus {
  std::string path = "/tmp/ackring-recover-test-XXXXXX";
  std::vector<std::uint64_t> ids;
  TemporaryBus() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    shm::FileDirectory directory(path + "/bus", true);
    Exchange x(directory);
    for (std::size_t i = 0; i < count; ++i) {
      SubscriptionOptions options;
      options.name = "s" + std::to_string(i);
      options.patterns = {"t." + std::to_string(i)};
      options.ring_bytes = 4096;
      options.max_in_flight = 16;
      if (i % 3 == 0) {
        x.attach_member(x.new_client(), options, false, {});
      } else {
        x.create_subscription(options, false);
      }
      ids.push_back(x.find_queue(options.name)->id);
    }
  }
  ~TemporaryBus() { std::filesystem::remove_all(path); }
  [[nodiscard]] shm::FileDirectory directory() const { return {path + "/bus", false}; }
  /// Beginning of the names of a subscription's files.
  [[nodiscard]] std::string prefix(std::size_t i) const { return "sub." + std::to_string(ids[i]); }
};

void write_at(const shm::Directory& directory, const std::string& name, std::size_t offset, std::uint64_t value) {
  const shm::UniqueFd file = directory.open(name, true);
  REQUIRE(::pwrite(file.get(), &value, sizeof value, static_cast<off_t>(offset)) == sizeof value);
}
void cut(const shm::Directory& directory, const std::string& name, std::size_t bytes) {
  REQUIRE(::ftruncate(directory.open(name, true).get(), static_cast<off_t>(bytes)) == 0);
}
bool tells_of(const Exchange& x, const std::string& what) {
  for (const exchange::Notice& notice : x.report()) {
    if (notice.text.find(what) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("all subscriptions are found, by name and by number, each at a place of its own") {
  const TemporaryBus bus;
  shm::FileDirectory directory = bus.directory();
  Exchange x(directory);
  CHECK(x.report().empty());
  std::set<std::uint32_t> indexes;
  for (std::size_t i = 0; i < count; ++i) {
    exchange::Queue* queue = x.find_queue("s" + std::to_string(i));
    REQUIRE(queue != nullptr);
    CHECK(x.find_queue(queue->id) == queue);
    CHECK(queue->lane.has_member() == (i % 3 == 0));
    CHECK(x.queues().at(queue->index).get() == queue);
    indexes.insert(queue->index);
  }
  CHECK(indexes.size() == count);
  // A place that was left is taken again; the number is a new one.
  exchange::Queue* gone = x.find_queue("s1");
  const std::uint32_t index = gone->index;
  const std::uint64_t id = gone->id;
  x.remove_subscription(*gone);
  CHECK(x.find_queue(id) == nullptr);
  SubscriptionOptions options;
  options.name = "fresh";
  options.patterns = {"#"};
  CHECK(x.create_subscription(options, false).index == index);
  CHECK(x.find_queue("fresh")->id > id);
}

TEST_CASE("files that nothing names are removed; a damaged subscription is set aside, the others serve") {
  const TemporaryBus bus;
  shm::FileDirectory directory = bus.directory();
  const std::string nonsense = bus.prefix(7);
  const std::string torn = bus.prefix(9);
  const std::string sound = bus.prefix(10);
  directory.write_file(nonsense + ".json", "nonsense");
  directory.remove(torn + ".state");
  const std::vector<std::string> strays{sound + ".ack.999999", sound + ".backlog.00000007", sound + ".json.tmp",
                                        "sub.999999.state"};
  for (const std::string& name : strays) directory.create(name);
  Exchange x(directory);
  CHECK(x.report().size() == 2);
  CHECK(x.find_queue(bus.ids[7]) == nullptr);
  CHECK(x.find_queue("s9") == nullptr);
  for (const std::string& name : {nonsense + ".json", nonsense + ".state", torn + ".json"}) {
    CAPTURE(name);
    CHECK(directory.exists("damaged." + name));
    CHECK_FALSE(directory.exists(name));
  }
  for (const std::string& name : strays) {
    CAPTURE(name);
    CHECK_FALSE(directory.exists(name));
  }
  CHECK(x.find_queue("s10") == x.find_queue(bus.ids[10]));
  CHECK(x.find_queue("s10") != nullptr);
}

TEST_CASE("a subscription that can't be read just now is no damaged one: the exchange does not start") {
  const TemporaryBus bus;
  shm::FileDirectory directory = bus.directory();
  const std::string file = directory.path(bus.prefix(7) + ".state");
  REQUIRE(::chmod(file.c_str(), 0660) == 0);
  try {
    Exchange x(directory);
    FAIL("it started");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::permission);
    CHECK(std::string(error.what()).find(bus.prefix(7) + ".state") != std::string::npos);
  }
  REQUIRE(::chmod(file.c_str(), 0600) == 0);
  Exchange x(directory);
  CHECK(x.report().empty());
  CHECK(x.find_queue("s7") != nullptr);
}

TEST_CASE("files that an earlier boot has left are refused with the reason, and nothing is touched (F18)") {
  const TemporaryBus bus;
  shm::FileDirectory directory = bus.directory();
  const auto change_boot = [&directory] {
    const auto segment =
        shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_write);
    segment.as<shm::ExchangeSegment>()->header.boot_id[5] ^= 0x40;
  };
  change_boot();
  const std::vector<std::string> files = directory.list("");
  try {
    Exchange x(directory);
    FAIL("it was opened");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find(directory.path() + ": the bus was left by an earlier boot") == 0);
    CHECK(std::string(error.what()).find("move the directory away") != std::string::npos);
  }
  CHECK(directory.list("") == files);
  change_boot();
  Exchange x(directory);
  CHECK(x.report().empty());
  CHECK(x.find_queue("s0") != nullptr);
}

TEST_CASE(
    "a publisher whose files are damaged is set aside, and nobody else: its name is free, its files are kept (F13)") {
  using Damage = std::function<void(shm::Directory&, const std::string& ring, const std::string& cursor)>;
  const std::vector<std::pair<const char*, Damage>> kinds{
      {"the ring was never finished", [](auto& d, auto& ring, auto&) { write_at(d, ring, 0, 0); }},
      {"the ring has no size",
       [](auto& d, auto& ring, auto&) { write_at(d, ring, offsetof(shm::IngressRing, ring_bytes), 0); }},
      {"the ring is larger than its file",
       [](auto& d, auto& ring, auto&) {
         write_at(d, ring, offsetof(shm::IngressRing, ring_bytes), std::uint64_t{1} << 63);
       }},
      {"the ring is cut short", [](auto& d, auto& ring, auto&) { cut(d, ring, 5000); }},
      {"the cursor is cut short", [](auto& d, auto&, auto& cursor) { cut(d, cursor, 256); }},
      {"the cursor has no topics", [](auto& d, auto&, auto& cursor) { cut(d, cursor, shm::page_bytes); }},
      {"the cursor counts too many topics",
       [](auto& d, auto&, auto& cursor) {
         write_at(d, cursor, offsetof(shm::IngressCursor, shards) + offsetof(shm::ShardCursor, topics), 1u << 30);
       }},
      {"the cursor names an unknown topic",
       [](auto& d, auto&, auto& cursor) { write_at(d, cursor, shm::page_bytes, 77'777); }},
      {"the cursor stands within a record",
       [](auto& d, auto&, auto& cursor) {
         for (const std::size_t copy : {0, 1}) {
           write_at(d, cursor,
                    offsetof(shm::IngressCursor, shards) + offsetof(shm::ShardCursor, blocks) +
                        copy * sizeof(shm::IngressBlock) + offsetof(shm::IngressBlock, consumed),
                    8);
         }
       }},
      {"the cursor is another publisher's kind of file",
       [](auto& d, auto& ring, auto& cursor) { d.write_file(cursor, d.read_file(ring)); }},
  };
  for (const auto& kind : kinds) {
    CAPTURE(kind.first);
    test::World world;
    test::CoreMember member = world.member("s", {"#"});
    test::CorePublisher sound = world.publisher("sound");
    test::CorePublisher hurt = world.publisher("hurt");
    REQUIRE(hurt.publish("t", "routed"));
    world.run();
    REQUIRE(hurt.publish("t", "lost with the ring"));
    REQUIRE(sound.publish("t", "not routed yet"));
    const std::string ring = Exchange::ingress_name(hurt.slot(), hurt.incarnation());
    const std::string cursor = Exchange::cursor_name(hurt.slot(), hurt.incarnation());
    world.x.reset();
    kind.second(*world.directory, ring, cursor);
    world.restart();
    CHECK(world.x->report().size() == 1);
    CHECK(tells_of(*world.x, "publisher hurt: damaged, set aside"));
    CHECK(world.directory->exists("damaged." + ring));
    CHECK(world.directory->exists("damaged." + cursor));
    CHECK_FALSE(world.directory->exists(ring));
    test::Seen seen;
    REQUIRE(member.take(seen));
    CHECK(seen.payload == "routed");
    REQUIRE(member.take(seen));
    CHECK(seen.payload == "not routed yet");
    test::CorePublisher again = world.publisher("hurt");
    REQUIRE(again.publish("t", "of the next one"));
    world.run();
    REQUIRE(member.take(seen));
    CHECK(seen.payload == "of the next one");
    world.restart();
    CHECK(world.x->report().empty());
    CHECK(world.directory->exists("damaged." + ring));
  }
}

TEST_CASE("a ring that nothing names is removed if it was read, and set aside if it holds events (F13)") {
  test::World world;
  test::CorePublisher read = world.publisher("read");
  test::CorePublisher unread = world.publisher("unread");
  REQUIRE(read.publish("t", "x"));
  world.run();
  REQUIRE(unread.publish("t", "x"));
  world.x.reset();
  for (const std::uint16_t slot : {read.slot(), unread.slot()}) {
    write_at(*world.directory, "exchange",
             offsetof(shm::ExchangeSegment, publishers) + slot * sizeof(shm::PublisherEntry), 0);  // its state
  }
  world.restart();
  CHECK_FALSE(world.directory->exists(Exchange::ingress_name(read.slot(), read.incarnation())));
  CHECK_FALSE(world.directory->exists("damaged." + Exchange::ingress_name(read.slot(), read.incarnation())));
  const std::string kept = Exchange::ingress_name(unread.slot(), unread.incarnation());
  CHECK(world.directory->exists("damaged." + kept));
  CHECK(tells_of(*world.x, kept));
}

TEST_CASE("a subscription with a damaged record, position or size is set aside, whole; the others serve (F13, F44)") {
  using Damage = std::function<void(shm::Directory&, const std::string& prefix, const std::string& ring)>;
  const auto in_blocks = [](const shm::Directory& d, const std::string& prefix, std::size_t field,
                            std::uint64_t value) {
    for (const std::size_t copy : {0, 1}) {
      write_at(d, prefix + ".state",
               offsetof(shm::SubscriptionSegment, blocks) + copy * sizeof(shm::SubscriptionBlock) + field, value);
    }
  };
  const std::vector<std::pair<const char*, Damage>> kinds{
      {"the first record of the backlog",
       [](auto& d, auto& prefix, auto&) { write_at(d, prefix + ".backlog.00000001", shm::log_data_offset, 0); }},
      {"the size of its payload",
       [](auto& d, auto& prefix, auto&) {
         write_at(d, prefix + ".backlog.00000001", shm::log_data_offset + offsetof(shm::RecordHeader, topic),
                  0xffff'0000'0001);
       }},
      {"the head of the backlog",
       [&](auto& d, auto& prefix, auto&) {
         in_blocks(d, prefix, offsetof(shm::SubscriptionBlock, backlog_head), log::first_position + 16);
       }},
      {"the last transaction",
       [&](auto& d, auto& prefix, auto&) { in_blocks(d, prefix, offsetof(shm::SubscriptionBlock, n), 1u << 20); }},
      {"the state is cut short", [](auto& d, auto& prefix, auto&) { cut(d, prefix + ".state", 2048); }},
      {"the entries of the ring",
       [](auto& d, auto&, auto& ring) { write_at(d, ring, offsetof(shm::MemberRing, slots), std::uint64_t{1} << 63); }},
      {"the size of the ring",
       [](auto& d, auto&, auto& ring) {
         write_at(d, ring, offsetof(shm::MemberRing, ring_bytes), std::uint64_t{1} << 63);
       }},
      {"the tail of the ring",
       [](auto& d, auto&, auto& ring) { write_at(d, ring, offsetof(shm::MemberRing, tail), 8192); }},
      {"a record of the ring", [](auto& d, auto&, auto& ring) { write_at(d, ring, 2 * shm::page_bytes, 0); }},
      {"another ring", [](auto& d, auto& prefix, auto& ring) { d.write_file(prefix + ".ring.99", d.read_file(ring)); }},
      {"its name is that of another one",
       [](auto& d, auto& prefix, auto&) {
         std::string text = d.read_file(prefix + ".json");
         text.replace(text.find("\"zhurt\""), 7, "\"other\"");
         d.write_file(prefix + ".json", text);
       }},
  };
  for (const auto& kind : kinds) {
    CAPTURE(kind.first);
    test::World world;
    SubscriptionOptions options;
    options.ring_bytes = 4096;
    options.max_in_flight = 2;  // the rest goes to the backlog
    test::CoreMember other = world.member("other", {"#"}, options);
    test::CoreMember hurt = world.member("zhurt", {"#"}, options);
    test::CorePublisher publisher = world.publisher("p");
    for (int i = 0; i < 5; ++i) REQUIRE(publisher.publish("t", "payload"));
    for (int i = 0; i < 5; ++i) world.tick(20'000'000);
    const std::uint64_t id = world.x->find_queue("zhurt")->id;
    REQUIRE(world.x->find_queue("zhurt")->block.backlog_events == 3);
    const std::string prefix = "sub." + std::to_string(id);
    const std::string ring = Exchange::ring_name(id, hurt.ring);
    world.x.reset();
    kind.second(*world.directory, prefix, ring);
    const auto stat = exchange::stat_document(*world.directory, "test");  // tools look before
    CHECK(test::row_of(stat, "other")["queued"] == 5);
    (void)exchange::exchange_state(*world.directory, "test");
    world.restart();
    CHECK(world.x->report().size() == 1);
    CHECK(tells_of(*world.x, "damaged, set aside"));
    CHECK(world.x->find_queue(id) == nullptr);
    CHECK(world.x->find_queue("other") != nullptr);
    for (const std::string& file : {prefix + ".json", prefix + ".state", prefix + ".backlog.00000001", ring}) {
      CAPTURE(file);
      CHECK(world.directory->exists("damaged." + file));
    }
    test::Seen seen;
    std::size_t taken = 0;
    for (int i = 0; i < 10; ++i) {
      while (other.take(seen)) {
        ++taken;
        other.verdict(seen.entry, ring::Verdict::ack);
      }
      world.tick();
    }
    CHECK(taken == 5);
    world.restart();
    CHECK(world.x->report().empty());
  }
}

TEST_CASE("counters that do not agree with the logs are put right, and told") {
  test::World world;
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  world.x->create_subscription(options, false);
  test::CorePublisher publisher = world.publisher("p");
  for (int i = 0; i < 5; ++i) REQUIRE(publisher.publish("t", "payload"));
  world.run();
  REQUIRE(publisher.publish("u", "so that another transaction is the last one"));
  const std::string state = "sub." + std::to_string(world.x->find_queue("s")->id) + ".state";
  world.x->pause(*world.x->find_queue("s"));
  options.name = "later";
  options.patterns = {"u"};
  world.x->create_subscription(options, false);
  world.run();
  world.x.reset();
  for (const std::size_t copy : {0, 1}) {
    write_at(*world.directory, state,
             offsetof(shm::SubscriptionSegment, blocks) + copy * sizeof(shm::SubscriptionBlock) +
                 offsetof(shm::SubscriptionBlock, backlog_events),
             0);
  }
  world.restart();
  CHECK(world.x->report().size() == 1);
  CHECK(tells_of(*world.x, "recounted"));
  CHECK(world.x->find_queue("s")->block.backlog_events == 6);
}

TEST_CASE("numbers of files that are in use are not given again, whatever the page of the exchange says") {
  test::World world;
  test::CoreMember member = world.member("s", {"#"});
  const std::uint64_t ring = member.ring;
  world.x.reset();
  write_at(*world.directory, "exchange", offsetof(shm::ExchangeSegment, next_file), 0);
  world.restart();
  SubscriptionOptions options;
  options.name = "fresh";
  options.patterns = {"#"};
  CHECK(world.x->create_subscription(options, false).id > ring);
}

TEST_CASE("a page of the exchange that can't be one is refused, with an error") {
  for (const auto& [offset, value] : std::vector<std::pair<std::size_t, std::uint64_t>>{
           {offsetof(shm::ExchangeSegment, intents), 77},
           {offsetof(shm::ExchangeSegment, next_file), ~std::uint64_t{0}},
           {offsetof(shm::ExchangeSegment, next_client), ~std::uint64_t{0}}}) {
    test::World world;
    world.x.reset();
    write_at(*world.directory, "exchange", offset, value);
    CHECK_THROWS_AS(Exchange(*world.directory), Error);
  }
  test::World world;
  world.x.reset();
  cut(*world.directory, "exchange", 8192);
  CHECK_THROWS_AS(Exchange(*world.directory), Error);
  CHECK_THROWS_AS(exchange::exchange_state(*world.directory, "test"), Error);
}
