// What an exchange finds in a directory of many subscriptions: all that is sound, nothing that is not, and what it may not
// judge it leaves alone.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/directory.hpp"

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
