// The books while everything goes on at once: publishers of events that are late, short-lived or numbered twice, all kinds of
// subscriptions, members with every verdict that are killed and stopped, an operator who pauses, purges and requeues, an
// exchange that is killed. At random moments `stat` must be one consistent snapshot: each matched event in exactly one place,
// each committed one too.
#include <array>
#include <map>
#include <memory>
#include <random>

#include "tests/processes/books_actors.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

struct Scene {
  TemporaryDirectory temporary{"books"};
  std::unique_ptr<ExchangeProcess> exchange = std::make_unique<ExchangeProcess>(temporary.path());
  SharedNotes shared;
  std::mt19937_64 random;
  struct Working {
    const Role* role;
    std::unique_ptr<Child> child;
  };
  std::vector<Working> members;
  std::vector<std::unique_ptr<Child>> giving;
  Json last;
  std::uint64_t snapshots = 0;
  std::uint64_t dead_snapshots = 0;
  std::uint64_t compared = 0;
  std::uint64_t blows = 0;

  explicit Scene(std::uint64_t seed) : random(seed) {}

  Child start_member(const Role& role) {
    return Child::start("member", [this, &role, seed = random()](Channel& channel) {
      be_member(channel, temporary.path(), role.options, *shared.notes, seed);
    });
  }
  [[nodiscard]] std::uint64_t repeated() const { return shared.notes->repeated.load(std::memory_order_seq_cst); }
  // Events of the exchange's own publisher, which is there from the first dead letter on.
  static std::uint64_t letters_routed(const Json& stat) {
    for (const Json& row : stat.at("publishers")) {
      if (row.at("name") != "@dead-letters") continue;
      INFO(row.dump());
      for (const char* other : {"unroutable", "duplicates", "discarded", "back_pressured"}) CHECK(row.at(other) == 0);
      return row.at("routed");
    }
    return 0;
  }
  // Has this shard come as far as the one that counts for publishers? Always, where there is one.
  static bool is_level(const Json& stat, std::size_t shard) {
    bool level = true;
    for (const Json& row : stat.at("publishers")) {
      if (row.contains("behind")) level = level && row.at("behind").at(shard) == row.at("behind").at(0);
    }
    return level;
  }
  // One look at the books.
  void look() {
    std::array<std::uint64_t, publishers> before{};
    for (std::size_t i = 0; i < publishers; ++i) before[i] = shared.notes->committed[i].load(std::memory_order_seq_cst);
    Json stat = shm_stat(temporary.path());
    check_books(stat);
    ++snapshots;
    const bool alive = stat.at("exchange").at("state") == "running";
    std::uint64_t routed = 0;
    for (std::size_t i = 0; i < publishers; ++i) {
      const Json row = row_of(stat, "publishers", "p" + std::to_string(i));
      INFO(row.dump());
      const auto committed = row.at("committed").get<std::uint64_t>();
      CHECK(committed >= before[i]);
      CHECK(committed <= shared.notes->begun[i].load(std::memory_order_seq_cst));
      CHECK(row.at("duplicates") <= (i == numbering_publisher ? repeated() + 1 : 0));
      CHECK(row.at("discarded") == 0);
      routed += row.at("routed").get<std::uint64_t>();
    }
    const std::uint64_t announced = letters_routed(stat);
    for (const Json& row : stat.at("subscriptions")) {
      INFO(row.dump());
      // A dead exchange may have counted a batch at the subscriptions and not yet at its publisher.
      if (alive && row.at("name") != "narrow" && is_level(stat, row.at("shard"))) {
        ++compared;
        CHECK(row.at("matched") == (row.at("name") == "watcher" ? announced : routed));
      }
      // Their policies make dead letters of these.
      if (row.at("name") == "fleeting") CHECK(row.at("expired") == 0);
      if (row.at("name") == "burying") CHECK(row.at("dropped").empty());
      if (last.is_null()) continue;
      const Json earlier = row_of(last, "subscriptions", row.at("name"));
      INFO(earlier.dump());
      for (const char* total : {"matched", "acked", "nacked", "rejected", "timed_out", "redelivered", "requeued",
                                "dead_lettered", "expired", "purged", "dlq_removed"}) {
        CAPTURE(total);
        CHECK(row.at(total) >= earlier.at(total));
      }
    }
    if (!alive) ++dead_snapshots;
    last = std::move(stat);
  }
  // Something happens to somebody.
  void blow() {
    if (++blows % 5 == 2) {
      exchange->kill();
      look();
      look();
      exchange.reset();
      exchange = std::make_unique<ExchangeProcess>(temporary.path());
      return;
    }
    Working& one = members[random() % members.size()];
    if (random() % 2 == 0) {
      ::kill(one.child->pid(), SIGSTOP);
      for (int i = 0; i < 6; ++i) {
        ::poll(nullptr, 0, 25);
        look();
      }
      ::kill(one.child->pid(), SIGCONT);
    } else {
      ::kill(one.child->pid(), SIGKILL);
      one.child = std::make_unique<Child>(start_member(*one.role));
    }
  }
};

}  // namespace

TEST_CASE("the books balance at every moment, whatever goes on") {
  const std::uint64_t looks = amount("ACKRING_LOOKS", 250);
  const std::uint64_t seed = amount("ACKRING_SEED", std::random_device{}());
  MESSAGE("seed " << seed);
  Scene scene(seed);
  const std::vector<Role> all = roles();
  Child setup = Child::start("setup", [&](Channel& channel) {
    Bus bus = open_bus(scene.temporary.path());
    for (const Role& role : all) bus.create_subscription(role.options);
    channel.send({{"done", true}});
    channel.receive(patience);
  });
  setup.channel().expect(patience, "the subscriptions");
  setup.stop();
  for (std::size_t i = 0; i < publishers; ++i) {
    scene.giving.push_back(
        std::make_unique<Child>(Child::start("publisher", [&scene, i, number = scene.random()](Channel& channel) {
          be_publisher(channel, scene.temporary.path(), *scene.shared.notes, i, number);
        })));
    scene.giving.back()->channel().expect(patience, "a publisher");
  }
  for (const Role& role : all) {
    for (std::size_t i = 0; i < role.members; ++i) {
      scene.members.push_back({&role, std::make_unique<Child>(scene.start_member(role))});
    }
  }
  Child person = Child::start("operator", [&scene, number = scene.random()](Channel& channel) {
    be_operator(channel, scene.temporary.path(), number);
  });

  const std::int64_t started = now_ns();
  while (scene.snapshots < looks) {
    scene.look();
    ::poll(nullptr, 0, static_cast<int>(scene.random() % 20));
    if (scene.random() % 8 == 0) scene.blow();
  }

  // All that can be settled is, when nobody does anything new.
  person.channel().send({{"end", true}});
  const Json done = person.channel().expect(patience, "the operator").at("done");
  for (auto& child : scene.giving) child->channel().send({{"end", true}});
  std::array<std::uint64_t, publishers> events{};
  for (std::size_t i = 0; i < publishers; ++i) {
    events[i] = scene.giving[i]->channel().expect(patience, "a publisher's end").at("events");
  }
  const bool settled = eventually([&] {
    ::poll(nullptr, 0, 20);
    scene.look();
    for (const Role& role : all) {
      const Json row = row_of(scene.last, "subscriptions", role.options.name);
      if (role.members == 0) continue;
      for (const char* place : {"queued", "in_flight", "retry_waiting"}) {
        if (row.at(place) != 0) return false;
      }
    }
    // Each dead letter was published to their topic, once, whatever became of it since.
    return row_of(scene.last, "subscriptions", "watcher").at("matched") ==
           row_of(scene.last, "subscriptions", "letters").at("dead_lettered");
  });
  INFO(scene.last.dump(1));
  CHECK(settled);
  std::uint64_t committed = 0;
  for (std::size_t i = 0; i < publishers; ++i) {
    const Json row = row_of(scene.last, "publishers", "p" + std::to_string(i));
    CHECK(row.at("committed") == events[i]);
    CHECK(row.at("in_ring") == 0);
    CHECK(row.at("duplicates") == (i == numbering_publisher ? scene.repeated() : 0));
    committed += events[i];
  }
  std::map<std::string, std::uint64_t> sums;
  for (const Json& row : scene.last.at("subscriptions")) {
    for (const char* total : {"matched", "acked", "nacked", "rejected", "timed_out", "redelivered", "requeued",
                              "late_acks", "dead_lettered", "expired", "purged", "dlq_removed"}) {
      sums[total] += row.at(total).get<std::uint64_t>();
    }
    for (const auto& [reason, count] : row.at("dropped").items()) sums[reason] += count.get<std::uint64_t>();
  }
  sums["letters published"] = Scene::letters_routed(scene.last);
  sums["numbered twice"] = scene.repeated();
  sums["delayed"] = scene.shared.notes->delayed.load(std::memory_order_seq_cst);
  for (const auto& [what, count] : done.items()) sums["operator: " + what] = count;
  // Everything that was switched on has happened.
  for (const auto& sum : sums) {
    INFO(sum.first);
    CHECK(sum.second > 0);
  }
  CHECK(scene.dead_snapshots > 0);
  CHECK(scene.compared > 0);
  CHECK(scene.shared.notes->before_due.load(std::memory_order_seq_cst) == 0);
  MESSAGE(scene.snapshots << " snapshots, " << scene.dead_snapshots << " of them of a dead bus, " << committed
                          << " events, " << static_cast<double>(now_ns() - started) / 1e9 << " s; " << Json(sums).dump()
                          << "; operator " << done.dump());
}
