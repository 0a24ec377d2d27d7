// Thousands of clients come, crash and come again: nothing of them stays (F7).
#include "tests/processes/support.hpp"

#include <sys/stat.h>

#include <fstream>
#include <regex>
#include <set>

using namespace ackring;
using namespace ackring::test;

namespace {

struct Holdings {
  std::size_t descriptors = 0;  // of the exchange
  std::size_t mappings = 0;
  std::uint64_t bytes = 0;  // of the bus directory, as allocated
  std::set<std::string> files;
};

Holdings look(const std::string& directory, pid_t exchange) {
  Holdings holdings;
  const std::string process = "/proc/" + std::to_string(exchange);
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(process + "/fd"))
    ++holdings.descriptors;
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/" + std::string(bus_name) + "/") != std::string::npos) ++holdings.mappings;
  }
  for (const auto& entry : std::filesystem::directory_iterator(directory + "/" + bus_name)) {
    struct stat status {};
    if (::stat(entry.path().c_str(), &status) != 0) continue;
    holdings.bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
    holdings.files.insert(entry.path().filename());
  }
  return holdings;
}

// One life of a client. How it ends: 0 cleanly, 1 killed holding a delivery, 2 killed with a loan open, 3 killed right
// after it came, 4 leaves a delivery without a verdict, 5 killed with events in its ring that were not flushed.
void live(const std::string& directory, std::uint64_t life) {
  const std::uint64_t end = life % 6;
  Bus bus = open_bus(directory);
  if (end == 3) ::raise(SIGKILL);
  Publisher publisher =
      when_free([&] { return bus.publisher({.name = life % 2 == 0 ? "" : "leak", .ring_bytes = 64u << 10}); });
  Subscriber subscriber = life % 3 == 0 ? bus.subscribe({.patterns = {"#"}, .ring_bytes = 64u << 10})
                                        : when_free([&] { return bus.subscribe({.name = "leak"}); });
  for (int i = 0; i < 3; ++i) require(publisher.publish("leak.t", "payload") == Outcome::ok, "publish");
  if (end == 5) ::raise(SIGKILL);
  auto delivery = subscriber.take(patience);
  require(delivery.has_value(), "take");
  if (end == 1) ::raise(SIGKILL);
  if (end == 4) return;
  require(delivery->ack() == Outcome::ok, "ack");
  Loan loan = publisher.loan("leak.t", 100);
  if (end == 2) ::raise(SIGKILL);
}

}  // namespace

TEST_CASE("clients that come and go, or are killed, leave no descriptor, no file and no byte") {
  const std::uint64_t lives = amount("ACKRING_LIVES", 2'000);
  const TemporaryDirectory temporary("leak");
  ExchangeProcess exchange(temporary.path());
  const auto run_lives = [&](std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t life = from; life < to; ++life) {
      Child child = Child::start("life", [&](Channel&) { live(temporary.path(), life); });
      const auto status = child.wait(patience);
      INFO("life " << life);
      REQUIRE(status.has_value());
      const std::uint64_t end = life % 6;
      REQUIRE(*status == (end == 0 || end == 4 ? 0 : -1));
    }
  };
  // Empties the named subscription, so that the two looks see the same.
  const auto drain = [&] {
    Child child = Child::start("drain", [&](Channel&) {
      Bus bus = open_bus(temporary.path());
      Subscriber subscriber = when_free([&] { return bus.subscribe({.name = "leak"}); });
      while (auto delivery = subscriber.take(50ms)) require(delivery->ack() == Outcome::ok, "ack");
      require(subscriber.flush(patience) == Outcome::ok, "flush");
    });
    REQUIRE(child.wait(patience) == 0);
  };
  {
    Child child = Child::start("create", [&](Channel&) {
      open_bus(temporary.path())
          .create_subscription({.name = "leak",
                                .patterns = {"leak.#"},
                                .max_deliveries = 1000,
                                .backoff_initial = Nanoseconds(0),
                                .backoff_max = Nanoseconds(0)});
    });
    REQUIRE(child.wait(patience) == 0);
  }
  const auto settled = [&](Holdings& now, const Holdings& before) {
    return eventually(
        [&] {
          now = look(temporary.path(), exchange.pid());
          return now.descriptors <= before.descriptors && now.files.size() <= before.files.size() &&
                 now.mappings <= before.mappings && now.bytes <= before.bytes;
        },
        10s);
  };
  {
    // A life may begin before the end of the last one is noticed, and then takes another slot: all that can be needed
    // at once are there before the first look.
    Child child = Child::start("slots", [&](Channel&) {
      Bus bus = open_bus(temporary.path());
      std::vector<Publisher> publishers;
      for (int i = 0; i < 16; ++i) publishers.push_back(bus.publisher());
    });
    REQUIRE(child.wait(patience) == 0);
  }
  run_lives(0, 24);  // every kind of life, so that all slots and tables that will be needed are there
  drain();
  Holdings before;
  Holdings quiet;
  for (int i = 0; i < 3; ++i) {  // until what the last ones left is cleaned up
    before = look(temporary.path(), exchange.pid());
    ::poll(nullptr, 0, 100);
  }
  const std::int64_t start = now_ns();
  run_lives(24, 24 + lives);
  const double seconds = static_cast<double>(now_ns() - start) / 1e9;
  drain();
  const bool same = settled(quiet, before);
  std::string extra;
  for (const std::string& file : quiet.files) {
    if (!before.files.contains(file)) extra += file + " ";
  }
  {
    INFO("files that were not there before: " << extra);
    CHECK(same);
    CHECK(quiet.descriptors == before.descriptors);
    CHECK(quiet.mappings == before.mappings);
    CHECK(quiet.bytes == before.bytes);
    CHECK(quiet.files.size() == before.files.size());
  }
  // What a bus without clients may hold: the totals of publishers, and named subscriptions without a member.
  const std::regex documented(
      R"(exchange(\.lock|\.sock)?|topics|pub\.\d+\.cursor\.\d+|sub\.\d+\.(json|state|(backlog|retry|dead)\.\d{8}))");
  for (const std::string& file : quiet.files) CHECK_MESSAGE(std::regex_match(file, documented), file);
  check_books(shm_stat(temporary.path()));
  MESSAGE(lives << " lives in " << seconds << " s; the exchange has " << quiet.descriptors << " descriptors, the bus "
                << quiet.files.size() << " files and " << quiet.bytes << " bytes, before and after");
  CHECK(exchange.stop() == 0);
}

TEST_CASE("a client that held nothing when the exchange was restarted leaves no file when it ends") {
  const TemporaryDirectory temporary("leak");
  auto exchange = std::make_unique<ExchangeProcess>(temporary.path());
  const auto start = [&] {
    Child child = Child::start("guest", [&](Channel& channel) {
      const Bus bus = open_bus(temporary.path());
      channel.send({{"there", true}});
      while (!channel.receive(1ms)) {
        if (bus.connected()) continue;
        channel.send({{"alone", true}});
        while (!bus.connected()) ::poll(nullptr, 0, 1);
        channel.send({{"back", true}});
      }
    });
    child.channel().expect(patience, "the guest");
    return child;
  };
  const auto locks = [&] {
    std::size_t count = 0;
    for (const std::string& file : look(temporary.path(), exchange->pid()).files) {
      count += file.starts_with("client.") ? 1 : 0;
    }
    return count;
  };
  Child lasting = start();
  Child stopped = start();  // does not come back to the next exchange before it is killed
  ::kill(stopped.pid(), SIGSTOP);
  exchange->kill();
  lasting.channel().expect(patience, "that the exchange is away");
  exchange = std::make_unique<ExchangeProcess>(temporary.path());
  lasting.channel().expect(patience, "that it is back");
  CHECK(locks() == 2);
  ::kill(stopped.pid(), SIGKILL);
  ::kill(lasting.pid(), SIGKILL);
  stopped.wait(patience);
  lasting.wait(patience);
  CHECK(eventually([&] { return locks() == 0; }, 10s));
}
