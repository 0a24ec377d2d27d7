// A group under load: processes compete for the events of one subscription; one of them is killed and one stands still for
// longer than the ack timeout, both with deliveries in their hands. What each process took is written down in memory that
// all share, by delivery and attempt, so that the test can count afterwards without asking the library.
#include "tests/processes/support.hpp"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>
#include <deque>
#include <memory>
#include <new>
#include <random>

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::size_t members = 6;
constexpr std::size_t window = 8;  // deliveries that a member holds under load
constexpr std::uint64_t publishers = 2;
constexpr std::uint64_t most_events = 16'000'000;
constexpr Nanoseconds ack_timeout = 1s;

struct Tally {
  std::atomic<std::uint64_t> taken;
  std::atomic<std::uint64_t> acked;  // counted before the verdict: what is not in here is held
};

struct Notes {
  std::array<Tally, members> of;
  std::array<std::atomic<std::uint32_t>, most_events> attempts;  // by delivery: bit n - 1: attempt n was taken
  std::atomic<std::uint64_t> twice;                              // the same attempt of a delivery was taken twice
};

struct SharedNotes {
  SharedNotes() {
    void* memory = ::mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    notes = static_cast<Notes*>(memory);  // zero: an atomic of each type here begins like that
  }
  ~SharedNotes() { ::munmap(notes, sizeof(Notes)); }
  SharedNotes(const SharedNotes&) = delete;
  SharedNotes& operator=(const SharedNotes&) = delete;
  Notes* notes = nullptr;
};

SubscriptionOptions options() {
  SubscriptionOptions options;
  options.name = "g";
  options.patterns = {"#"};
  options.group = true;
  options.ack_timeout = ack_timeout;
  options.max_in_flight = 64;
  options.max_deliveries = 30;
  options.backoff_initial = 1ms;
  options.max_events = 20'000;  // publishers wait for members, not the other way round
  return options;
}

// Takes until told to end; holds a window of deliveries while there are more.
void be_member(Channel& channel, const std::string& directory, Notes& notes, std::size_t number) {
  Bus bus = open_bus(directory);
  Subscriber subscriber = bus.subscribe(options());
  channel.send({{"joined", true}});
  Tally& mine = notes.of[number];
  std::deque<Delivery> held;
  const auto ack_oldest = [&] {
    mine.acked.fetch_add(1, std::memory_order_relaxed);
    const Outcome outcome = held.front().ack();
    require(outcome == Outcome::ok, std::string("ack: ") + to_string(outcome));
    held.pop_front();
  };
  for (std::uint64_t turn = 0;; ++turn) {
    auto delivery = subscriber.take(5ms);
    if (!delivery) {
      while (!held.empty()) ack_oldest();
    } else {
      mine.taken.fetch_add(1, std::memory_order_relaxed);
      require(delivery->delivery() < most_events && delivery->attempt() <= 32, "an impossible delivery");
      const std::uint32_t bit = 1u << (delivery->attempt() - 1);
      if ((notes.attempts[delivery->delivery()].fetch_or(bit, std::memory_order_relaxed) & bit) != 0) {
        notes.twice.fetch_add(1, std::memory_order_relaxed);
      }
      held.push_back(std::move(*delivery));
      if (held.size() > window) ack_oldest();
    }
    if ((!held.empty() && turn % 64 != 0) || !channel.receive(0ns)) continue;
    while (!held.empty()) ack_oldest();
    break;
  }
  require(subscriber.flush(patience) == Outcome::ok, "flush");
  channel.send({{"done", true}});
  channel.receive(patience);
}

// Publishes from "go" to "stop", again and again.
void be_publisher(Channel& channel, const std::string& directory, std::uint64_t number) {
  Bus bus = open_bus(directory);
  Publisher publisher = bus.publisher({.name = "p" + std::to_string(number)});
  channel.send({{"ready", true}});
  while (channel.expect(4 * patience, "go or end").contains("go")) {
    while (!channel.receive(0ns)) {
      for (int i = 0; i < 64; ++i) {
        const std::string payload(publisher.sequence() % 200, 'x');
        require(publisher.publish_wait("a.b", as_bytes(payload), patience) == Outcome::ok, "publish");
      }
      if (publisher.sequence() > most_events / publishers - 1'000) ::poll(nullptr, 0, 1);
      require(publisher.sequence() < most_events / publishers, "too many events");
    }
    require(publisher.flush(patience) == Outcome::ok, "flush");
    channel.send({{"published", publisher.sequence()}});
  }
}

struct Scene {
  TemporaryDirectory temporary{"group"};
  ExchangeProcess exchange{temporary.path()};
  SharedNotes shared;
  std::vector<std::unique_ptr<Child>> working;
  std::vector<std::size_t> numbers;  // of those who work
  std::vector<std::unique_ptr<Child>> giving;

  void setup() {
    for (std::size_t i = 0; i < members; ++i) {
      working.push_back(std::make_unique<Child>(
          Child::start("member", [this, i](Channel& channel) { be_member(channel, temporary.path(), notes(), i); })));
      numbers.push_back(i);
      working.back()->channel().expect(patience, "a member");
    }
    for (std::uint64_t i = 0; i < publishers; ++i) {
      giving.push_back(std::make_unique<Child>(
          Child::start("publisher", [this, i](Channel& channel) { be_publisher(channel, temporary.path(), i); })));
      giving.back()->channel().expect(patience, "a publisher");
    }
  }
  Notes& notes() { return *shared.notes; }
  std::uint64_t held_by(std::size_t number) {
    const std::uint64_t done = notes().of[number].acked.load(std::memory_order_relaxed);
    const std::uint64_t all = notes().of[number].taken.load(std::memory_order_relaxed);
    return all > done ? all - done : 0;
  }
  std::uint64_t taken_by_all() {
    std::uint64_t sum = 0;
    for (const Tally& tally : notes().of) sum += tally.taken.load(std::memory_order_relaxed);
    return sum;
  }
  Json books() {
    const Json stat = shm_stat(temporary.path());
    check_books(stat);
    return row_of(stat, "subscriptions", "g");
  }
  void publish() {
    for (auto& child : giving) child->channel().send({{"go", true}});
  }
  // Lets this many more events be taken, stops the publishers, and waits until everything is acked. How much that is.
  std::uint64_t finish(std::uint64_t more) {
    const std::uint64_t until = taken_by_all() + more;
    CHECK(eventually([&] { return taken_by_all() >= until; }));
    for (auto& child : giving) child->channel().send({{"stop", true}});
    std::uint64_t total = 0;
    for (auto& child : giving) {
      total += child->channel().expect(patience, "the publisher has stopped").at("published").get<std::uint64_t>();
    }
    Json row;
    const bool done = eventually([&] { return (row = books()).at("acked") == total; });
    INFO(row.dump());
    REQUIRE(done);
    return total;
  }
  // A member that stands still with deliveries in its hands.
  std::size_t stop_one(std::mt19937_64& random) {
    std::size_t which = 0;
    const bool stopped = eventually([&] {
      which = random() % working.size();
      ::kill(working[which]->pid(), SIGSTOP);
      ::poll(nullptr, 0, 5);  // by then it has stopped
      if (held_by(numbers[which]) > 0) return true;
      ::kill(working[which]->pid(), SIGCONT);
      return false;
    });
    REQUIRE(stopped);
    return which;
  }
};

}  // namespace

TEST_CASE(
    "a group under load: one member is killed, one stands still; every event is acked, none twice but by attempt") {
  const std::uint64_t events = amount("ACKRING_GROUP_EVENTS", 50'000);  // at least, before and after each blow
  const std::uint64_t seed = amount("ACKRING_SEED", std::random_device{}());
  MESSAGE("seed " << seed);
  std::mt19937_64 random(seed);
  Scene scene;
  scene.setup();
  const std::int64_t started = now_ns();

  // One is killed, somewhere in the first part.
  scene.publish();
  const std::uint64_t moment = random() % events;
  REQUIRE(eventually([&] { return scene.taken_by_all() > moment; }));
  const std::size_t victim = scene.stop_one(random);
  const std::uint64_t lost = scene.held_by(scene.numbers[victim]);
  ::kill(scene.working[victim]->pid(), SIGKILL);
  scene.working.erase(scene.working.begin() + static_cast<std::ptrdiff_t>(victim));
  scene.numbers.erase(scene.numbers.begin() + static_cast<std::ptrdiff_t>(victim));
  (void)scene.finish(events);
  CHECK(scene.books().at("redelivered") >= lost);

  // Another stands still, perhaps with more in its ring: the others do its work, after the ack timeout.
  scene.publish();
  const std::size_t frozen = scene.stop_one(random);
  const pid_t frozen_pid = scene.working[frozen]->pid();
  const auto& frozen_takes = scene.notes().of[scene.numbers[frozen]].taken;
  const std::uint64_t stood_at = frozen_takes.load(std::memory_order_relaxed);
  (void)scene.finish(events);
  const Json after_freeze = scene.books();
  CHECK(after_freeze.at("timed_out") >= 1);
  CHECK(after_freeze.at("members") == members - 1);
  CHECK(frozen_takes.load(std::memory_order_relaxed) == stood_at);

  // It goes on, and has its share again.
  ::kill(frozen_pid, SIGCONT);
  scene.publish();
  REQUIRE(eventually([&] { return frozen_takes.load(std::memory_order_relaxed) > stood_at + window; }));
  const std::uint64_t total = scene.finish(events);
  const double seconds = static_cast<double>(now_ns() - started) / 1e9;
  for (auto& child : scene.working) child->channel().send({{"end", true}});
  for (auto& child : scene.working) child->channel().expect(patience, "a member's end");

  const Json row = scene.books();
  INFO(row.dump());
  for (const char* place :
       {"queued", "in_flight", "retry_waiting", "dlq_size", "lag", "nacked", "rejected", "purged"}) {
    CAPTURE(place);
    CHECK(row.at(place) == 0);
  }
  CHECK(row.at("matched") == total);
  CHECK(row.at("acked") == total);
  CHECK(scene.notes().twice.load(std::memory_order_relaxed) == 0);
  // Between taking a delivery and writing it down, one who was killed may have lost one.
  const std::uint64_t noted = scene.taken_by_all();
  const auto delivered = row.at("delivered").get<std::uint64_t>();
  CHECK(delivered >= noted);
  CHECK(delivered <= noted + 1);
  std::uint64_t again = 0;
  std::uint64_t missing = 0;
  for (std::uint64_t delivery = 1; delivery <= total; ++delivery) {
    const std::uint32_t bits = scene.notes().attempts[delivery].load(std::memory_order_relaxed);
    if (bits == 0) ++missing;
    again += static_cast<std::uint64_t>(std::popcount(bits & ~1u));
  }
  CHECK(missing == 0);
  CHECK(again <= row.at("redelivered").get<std::uint64_t>());
  CHECK(again + 1 >= row.at("redelivered").get<std::uint64_t>());
  MESSAGE(total << " events, the killed one held " << lost << ", " << row.at("redelivered") << " redelivered, "
                << row.at("timed_out") << " timed out, " << row.at("late_acks") << " late acks, " << seconds << " s");
}
