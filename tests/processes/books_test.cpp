// The books while everything goes on at once: publishers, all kinds of subscriptions, members with every verdict that are
// killed and stopped, an operator who pauses, purges and requeues, an exchange that is killed. At random moments `stat` must
// be one consistent snapshot: each matched event in exactly one place, each committed one too.
#include "tests/processes/support.hpp"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <random>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::size_t publishers = 3;

struct Role {
  SubscriptionOptions options;
  std::size_t members;
};

std::vector<Role> roles() {
  std::vector<Role> all;
  const auto add = [&all](const char* name, std::size_t members, auto set) {
    SubscriptionOptions options;
    options.name = name;
    options.patterns = {"run.#"};
    options.ack_timeout = 100ms;
    options.max_deliveries = 3;
    options.backoff_initial = 2ms;
    options.backoff_max = 20ms;
    options.ring_bytes = 64u << 10;
    options.max_events = 3'000;
    set(options);
    all.push_back({std::move(options), members});
  };
  add("plain", 1, [](SubscriptionOptions& options) { options.max_deliveries = 2; });
  add("group", 3, [](SubscriptionOptions& options) {
    options.group = true;
    options.max_in_flight = 16;
  });
  add("ordered", 1, [](SubscriptionOptions& options) {
    options.ordered = true;
    options.max_events = 500;
    options.overflow = Overflow::drop_oldest;
  });
  add("keys", 2, [](SubscriptionOptions& options) {
    options.group = options.ordered_by_key = true;
    options.max_in_flight = 32;
  });
  add("strict", 2, [](SubscriptionOptions& options) {
    options.group = options.ordered = options.ordered_by_key = true;
    options.max_events = 2'000;
    options.overflow = Overflow::drop_newest;
  });
  add("once", 1, [](SubscriptionOptions& options) {
    options.guarantee = at_most_once;
    options.ring_bytes = 4096;  // the largest events do not fit
    options.max_events = 50;
    options.overflow = Overflow::drop_oldest;
  });
  add("narrow", 1, [](SubscriptionOptions& options) { options.patterns = {"run.a.#", "run.*.x"}; });
  add("offline", 0, [](SubscriptionOptions& options) {
    options.max_events = 1'000;
    options.overflow = Overflow::drop_newest;
  });
  return all;
}

// What publishers say of themselves, so that the books are not only held against themselves.
struct Notes {
  std::array<std::atomic<std::uint64_t>, publishers> begun;  // sequence that is about to be committed at most
  std::array<std::atomic<std::uint64_t>, publishers> committed;
};

struct SharedNotes {
  SharedNotes() {
    void* memory = ::mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    notes = static_cast<Notes*>(memory);  // zero: all that is in it begins like that
  }
  ~SharedNotes() { ::munmap(notes, sizeof(Notes)); }
  SharedNotes(const SharedNotes&) = delete;
  SharedNotes& operator=(const SharedNotes&) = delete;
  Notes* notes = nullptr;
};

// Tries again while the exchange is away or the name still held.
template <class Make>
auto with_patience(Make make) {
  const std::int64_t deadline = now_ns() + patience.count();
  while (true) {
    try {
      return make();
    } catch (const Error&) {
      if (now_ns() > deadline) throw;
      ::poll(nullptr, 0, 2);
    }
  }
}

void be_publisher(Channel& channel, const std::string& directory, Notes& notes, std::size_t number,
                  std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bus bus = with_patience([&] { return open_bus(directory); });
  const std::string name = "p" + std::to_string(number);
  Publisher publisher = with_patience([&] { return bus.publisher({.name = name, .ring_bytes = 64u << 10}); });
  channel.send({{"ready", true}});
  const std::array<const char*, 5> topics{"run.a.x", "run.b.x", "run.c.y.z", "run.a", "lonely.x"};
  while (!channel.receive(0ns)) {
    const std::uint64_t burst = random() % 40;
    for (std::uint64_t i = 0; i < burst; ++i) {
      const std::string payload(random() % 50 == 0 ? 1'500 : random() % 200, 'x');
      const std::string key = random() % 4 == 0 ? "" : "k" + std::to_string(random() % 30);
      notes.begun[number].store(publisher.sequence() + 1, std::memory_order_seq_cst);
      (void)publisher.publish_wait(topics[random() % topics.size()], as_bytes(payload), 20ms, {.key = key});
      notes.committed[number].store(publisher.sequence(), std::memory_order_seq_cst);
    }
    ::poll(nullptr, 0, static_cast<int>(random() % 8));
  }
  require(publisher.flush(patience) == Outcome::ok, name + ": flush");
  channel.send({{"last", publisher.sequence()}});
  channel.receive(patience);
}

void be_member(Channel& channel, const std::string& directory, const SubscriptionOptions& options, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bus bus = with_patience([&] { return open_bus(directory); });
  Subscriber subscriber = with_patience([&] { return bus.subscribe({.name = options.name}); });
  channel.send({{"ready", true}});
  std::deque<Delivery> held;  // some of them for longer than the ack timeout
  for (std::uint64_t turn = 0; !(turn % 16 == 0 && channel.receive(0ns)); ++turn) {
    auto delivery = subscriber.take(2ms);
    if (random() % 400 == 0) ::poll(nullptr, 0, 150);
    if (held.size() > 8 || (!delivery && !held.empty())) {
      (void)held.front().ack();
      held.pop_front();
    }
    if (!delivery) continue;
    switch (random() % 24) {
      case 0:
        (void)delivery->nack();
        break;
      case 1:
        (void)delivery->nack(std::chrono::milliseconds(random() % 10));
        break;
      case 2:
        (void)delivery->reject("it is " + std::to_string(random() % 3));
        break;
      case 3:
        break;  // no verdict: nacked
      case 4:
      case 5:
        held.push_back(std::move(*delivery));
        break;
      case 6:
        (void)delivery->extend(200ms);
        held.push_back(std::move(*delivery));
        break;
      default:
        (void)delivery->ack();
    }
  }
  held.clear();
  (void)subscriber.flush(patience);
}

void be_operator(Channel& channel, const std::string& directory, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bus bus = open_bus(directory);
  const std::vector<Role> all = roles();
  std::map<std::string, std::uint64_t> done;
  while (!channel.receive(std::chrono::milliseconds(random() % 10))) {
    const std::string& name = all[random() % all.size()].options.name;
    try {
      switch (random() % 8) {
        case 0:
          bus.pause_subscription(name);
          ++done["paused"];
          break;
        case 1:
          if (random() % 4 == 0) done["purged"] += bus.purge_subscription(name);
          break;
        case 2:
          done["letters purged"] += bus.purge_dead_letters(name, {.reason = "rejected: it is 1"});
          break;
        case 3:
        case 4:
          done["requeued"] += bus.requeue_dead_letters(name);
          break;
        default:
          bus.resume_subscription(name);
      }
    } catch (const Error& error) {  // the exchange is away
      const bool known = error.code() == ErrorCode::timeout || error.code() == ErrorCode::no_exchange;
      require(known, std::string("operator: ") + error.what());
    }
  }
  for (const Role& role : all) {
    with_patience([&] {
      bus.resume_subscription(role.options.name);
      return true;
    });
  }
  channel.send({{"done", done}});
  channel.receive(patience);
}

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
  std::uint64_t blows = 0;

  explicit Scene(std::uint64_t seed) : random(seed) {}

  Child start_member(const Role& role) {
    return Child::start("member", [this, &role, seed = random()](Channel& channel) {
      be_member(channel, temporary.path(), role.options, seed);
    });
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
      CHECK(row.at("duplicates") == 0);
      CHECK(row.at("discarded") == 0);
      routed += row.at("routed").get<std::uint64_t>();
    }
    for (const Json& row : stat.at("subscriptions")) {
      INFO(row.dump());
      // A dead exchange may have counted a batch at the subscriptions and not yet at its publisher.
      if (alive && row.at("name") != "narrow") CHECK(row.at("matched") == routed);
      if (last.is_null()) continue;
      const Json earlier = row_of(last, "subscriptions", row.at("name"));
      INFO(earlier.dump());
      for (const char* total : {"matched", "acked", "nacked", "rejected", "timed_out", "redelivered", "requeued",
                                "dead_lettered", "purged", "dlq_removed"}) {
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
  std::array<std::uint64_t, publishers> sequences{};
  for (std::size_t i = 0; i < publishers; ++i) {
    sequences[i] = scene.giving[i]->channel().expect(patience, "a publisher's end").at("last");
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
    return true;
  });
  INFO(scene.last.dump(1));
  CHECK(settled);
  std::uint64_t committed = 0;
  for (std::size_t i = 0; i < publishers; ++i) {
    const Json row = row_of(scene.last, "publishers", "p" + std::to_string(i));
    CHECK(row.at("committed") == sequences[i]);
    CHECK(row.at("in_ring") == 0);
    committed += sequences[i];
  }
  std::map<std::string, std::uint64_t> sums;
  for (const Json& row : scene.last.at("subscriptions")) {
    for (const char* total : {"matched", "acked", "nacked", "rejected", "timed_out", "redelivered", "requeued",
                              "late_acks", "dead_lettered", "purged", "dlq_removed"}) {
      sums[total] += row.at(total).get<std::uint64_t>();
    }
    for (const auto& [reason, count] : row.at("dropped").items()) sums[reason] += count.get<std::uint64_t>();
  }
  // Everything that was switched on has happened.
  for (const auto& sum : sums) {
    INFO(sum.first);
    CHECK(sum.second > 0);
  }
  CHECK(scene.dead_snapshots > 0);
  MESSAGE(scene.snapshots << " snapshots, " << scene.dead_snapshots << " of them of a dead bus, " << committed
                          << " events, " << static_cast<double>(now_ns() - started) / 1e9 << " s; " << Json(sums).dump()
                          << "; operator " << done.dump());
}
