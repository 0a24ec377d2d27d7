// Subscriptions that are ordered by key.
#include <algorithm>
#include <map>
#include <set>

#include "ackring/error.hpp"
#include "tests/exchange/group_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

// A directory that has no room for a retry log.
struct Full final : shm::Directory {
  explicit Full(shm::MemoryDirectory& of) : memory(of) {}
  shm::UniqueFd create(const std::string& name) override {
    if (full && name.find(".retry.") != std::string::npos) throw Error(ErrorCode::no_space, name, "it is full");
    return memory.create(name);
  }
  shm::UniqueFd open(const std::string& name, bool writable) const override { return memory.open(name, writable); }
  void rename(const std::string& from, const std::string& to) override { memory.rename(from, to); }
  bool remove(const std::string& name) noexcept override { return memory.remove(name); }
  bool exists(const std::string& name) const override { return memory.exists(name); }
  std::vector<std::string> list(std::string_view prefix) const override { return memory.list(prefix); }
  std::string path(std::string_view name) const override { return memory.path(name); }
  shm::MemoryDirectory& memory;
  bool full = false;
};

void publish_keys(World& world, CorePublisher& publisher, int events, int keys) {
  for (int i = 0; i < events; ++i) publisher.add("a", std::to_string(i), "k" + std::to_string(i % keys));
  publisher.commit();
  world.tick();
}

}  // namespace

TEST_CASE("by key: a key stays with its member, in order, retries too, until the member goes") {
  World world;
  SubscriptionOptions options = group(64);
  options.ordered_by_key = true;
  std::map<int, CoreMember> members;
  for (int i = 0; i < 3; ++i) members.emplace(i, world.member("k", {"#"}, options));
  auto publisher = world.publisher();
  std::map<std::string, int> owner;
  std::map<std::string, std::uint64_t> last;
  std::uint64_t acked = 0;
  bool sticky = true;
  const auto consume = [&] {
    for (auto& [number, member] : members) {
      for (const Seen& seen : take_all(member)) {
        const auto [at, fresh] = owner.try_emplace(seen.key, number);
        sticky = sticky && at->second == number;
        if (seen.attempt == 1) {
          CHECK(seen.delivery > last[seen.key]);
          last[seen.key] = seen.delivery;
        }
        const bool bad = seen.attempt == 1 && seen.delivery % 9 == 4;
        member.verdict(seen.entry, bad ? ring::Verdict::nack : ring::Verdict::ack);
        acked += bad ? 0 : 1;
      }
    }
  };
  for (int round = 0; round < 30; ++round) {
    publish_keys(world, publisher, 20, 10);
    consume();
    if (round == 10) world.restart();
    if (round == 20) members.emplace(3, world.member("k", {"#"}, options));  // takes no key from anybody
  }
  for (int i = 0; i < 30; ++i) {
    consume();
    world.tick();
  }
  CHECK(sticky);
  CHECK(acked == 600);
  std::set<int> used;
  for (const auto& [key, number] : owner) used.insert(number);
  CHECK(used == std::set<int>{0, 1, 2});

  // Its keys go to others when it goes: what it had taken first, then what it had not.
  publish_keys(world, publisher, 40, 10);
  CoreMember leaver = std::move(members.at(0));
  members.erase(0);
  Seen taken;
  REQUIRE(leaver.take(taken));
  std::erase_if(owner, [](const auto& entry) { return entry.second == 0; });
  world.x->detach_member(lane_of(world, leaver));
  std::vector<std::uint64_t> of_key;
  for (int i = 0; i < 20; ++i) {
    for (auto& [number, member] : members) {
      for (const Seen& seen : take_all(member)) {
        if (seen.key == taken.key) of_key.push_back(seen.delivery);
        const auto [at, fresh] = owner.try_emplace(seen.key, number);
        sticky = sticky && at->second == number;
        member.verdict(seen.entry, ring::Verdict::ack);
      }
    }
    world.tick();
  }
  CHECK(sticky);
  CHECK(of_key.size() == 4);
  CHECK(of_key.front() == taken.delivery);
  CHECK(std::is_sorted(of_key.begin(), of_key.end()));
  CHECK(row_of(world.stat(), "k")["acked"] == 640);
}

TEST_CASE("by key: a member that is full does not hold up the keys of the others") {
  World world;
  SubscriptionOptions options = group(2);
  options.ordered_by_key = true;
  options.ack_timeout = std::chrono::seconds(100);
  auto stuck = world.member("k", {"#"}, options);
  auto free = world.member("k", {"#"}, options);
  auto publisher = world.publisher();
  publish_keys(world, publisher, 2, 2);  // a key for each
  const std::vector<Seen> held = take_all(stuck);
  REQUIRE(held.size() == 1);
  for (const Seen& seen : take_all(free)) free.verdict(seen.entry, ring::Verdict::ack);
  std::vector<std::uint64_t> got;
  for (int round = 0; round < 20; ++round) {
    publish_keys(world, publisher, 4, 2);
    for (const Seen& seen : take_all(free)) {
      CHECK(seen.key != held[0].key);
      got.push_back(seen.delivery);
      free.verdict(seen.entry, ring::Verdict::ack);
    }
    if (round == 9) world.restart();
  }
  for (int i = 0; i < 30; ++i) {
    for (const Seen& seen : take_all(free)) {
      got.push_back(seen.delivery);
      free.verdict(seen.entry, ring::Verdict::ack);
    }
    world.tick();
  }
  CHECK(got.size() == 40);
  CHECK(std::is_sorted(got.begin(), got.end()));
  CHECK(row_of(world.stat(), "k")["queued"] == 40);  // one of them is in its ring
  std::vector<std::uint64_t> late{held[0].delivery};
  stuck.verdict(held[0].entry, ring::Verdict::ack);
  for (int i = 0; i < 60; ++i) {
    world.tick();
    for (const Seen& seen : take_all(stuck)) {
      CHECK(seen.attempt == 1);
      late.push_back(seen.delivery);
      stuck.verdict(seen.entry, ring::Verdict::ack);
    }
  }
  CHECK(late.size() == 41);
  CHECK(std::is_sorted(late.begin(), late.end()));
  const auto row = row_of(world.stat(), "k");
  CHECK(row["acked"] == 82);
  CHECK(row["redelivered"] == 0);
  CHECK(row["lag"] == 0);
}

TEST_CASE("ordered by key: one delivery of a key at a time; its retry holds back its successors, and nobody else's") {
  World world;
  SubscriptionOptions options = group(64);
  options.ordered = options.ordered_by_key = true;
  options.max_deliveries = 3;
  std::vector<CoreMember> members;
  for (int i = 0; i < 2; ++i) members.push_back(world.member("k", {"#"}, options));
  auto publisher = world.publisher();
  publish_keys(world, publisher, 60, 6);
  std::map<std::string, std::vector<std::uint64_t>> order;
  std::uint64_t before_retry = 0;
  for (int i = 0; i < 400; ++i) {
    std::map<std::string, int> open;
    for (CoreMember& member : members) {
      for (const Seen& seen : take_all(member)) {
        CHECK(++open[seen.key] == 1);
        order[seen.key].push_back(seen.delivery);
        const bool poison = seen.delivery == 7;  // of the first key
        member.verdict(seen.entry, poison ? ring::Verdict::nack : ring::Verdict::ack);
        if (order["k0"].size() == 2) ++before_retry;
      }
    }
    world.tick();
    if (i == 8) world.restart();
  }
  CHECK(before_retry > 20);  // the other keys went on meanwhile
  for (const auto& [key, deliveries] : order) {
    CHECK(std::is_sorted(deliveries.begin(), deliveries.end()));
    CHECK(deliveries.size() == (key == "k0" ? 12 : 10));
  }
  const auto row = row_of(world.stat(), "k");
  CHECK(row["acked"] == 59);
  CHECK(row["dlq_size"] == 1);
}

TEST_CASE("ordered by key: a requeued dead letter and what a dead member had not taken do not wait for each other") {
  World world;
  SubscriptionOptions options = group(64);
  options.ordered = options.ordered_by_key = true;
  auto publisher = world.publisher();
  {
    CoreMember member = world.member("k", {"#"}, options);
    publish_keys(world, publisher, 3, 1);
    Seen seen;
    REQUIRE(member.take(seen));
    member.verdict(seen.entry, ring::Verdict::reject);
    world.tick();
    world.tick();  // the second one is in the ring
    REQUIRE(row_of(world.stat(), "k")["dlq_size"] == 1);
    world.x->requeue_dead(*world.x->find_queue("k"), {}, world.now_ns);
    world.x->detach_member(lane_of(world, member));
  }
  world.tick();
  CoreMember next = world.member("k", {"#"}, options);
  std::vector<std::uint64_t> got;
  for (int i = 0; i < 10; ++i) {
    world.tick();
    for (const Seen& seen : take_all(next)) {
      got.push_back(seen.delivery);
      next.verdict(seen.entry, ring::Verdict::ack);
    }
  }
  std::sort(got.begin(), got.end());
  CHECK(got == std::vector<std::uint64_t>{1, 2, 3});
}

TEST_CASE("by key: the keys of a dead member wait while what it held has no room to come back") {
  World world;
  Full directory(*world.directory);
  world.x = std::make_unique<exchange::Exchange>(directory);
  SubscriptionOptions options = group(64);
  options.ordered_by_key = true;
  auto dying = world.member("k", {"#"}, options);
  auto other = world.member("k", {"#"}, options);
  auto publisher = world.publisher();
  publish_keys(world, publisher, 20, 10);
  Seen taken;
  REQUIRE(dying.take(taken));
  directory.full = true;
  world.x->detach_member(lane_of(world, dying));
  REQUIRE(lane_of(world, dying).leaving);
  std::map<std::string, std::uint64_t> last;
  std::uint64_t acked = 0;
  const auto consume = [&] {
    for (const Seen& seen : take_all(other)) {
      if (seen.delivery != taken.delivery) {
        CHECK(seen.delivery > last[seen.key]);
        last[seen.key] = seen.delivery;
      }
      other.verdict(seen.entry, ring::Verdict::ack);
      ++acked;
    }
    world.tick();
  };
  publish_keys(world, publisher, 20, 10);
  for (int i = 0; i < 5; ++i) consume();
  CHECK(acked < 40);
  directory.full = false;
  for (int i = 0; i < 10; ++i) consume();
  CHECK(acked == 40);
  CHECK(row_of(world.stat(), "k")["acked"] == 40);
  world.x.reset();  // before its directory
}
