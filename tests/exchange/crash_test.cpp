// Kills the exchange at every single point of a scenario, runs the real recovery, lets everything drain, and asserts the
// exact books: every event once and in order at first delivery, no first delivery twice, counters equal to what the members
// saw. Second deaths, inside the recovery, are played as enumerate.hpp says.
//
// The exchange lives on anonymous memory; death is an exception thrown from the environment in place of the store. The
// members' and publishers' stores are not counted: they belong to other processes.
#include <errno.h>

#include <set>

#include "lib/exchange/dead_letter_files.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr int subscriptions = 4;
const char* const names[subscriptions] = {"all", "tiny", "offline", "once"};

enum class Room : std::uint8_t { always, in_between };
Room room = Room::always;  // in_between: the file system is full when an exchange recovers
std::uint64_t started_without_room = 0;
std::uint64_t refused_without_room = 0;

struct FullFileSystem final : shm::EnvironmentHook {
  const std::uint64_t* clock = nullptr;
  FullFileSystem() { virtual_time = true; }
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {}
  void before_call(shm::CrashPoint call) override {
    if (call == shm::CrashPoint::file_allocate) throw Error(ErrorCode::no_space, "file", "no room", {}, ENOSPC);
  }
  std::uint64_t now_ns() override { return *clock; }
};

// A scenario runs in steps; what clients do happens between the exchange's steps and is never interrupted.
class Scenario {
 public:
  explicit Scenario(KillHook& hook) : hook_(hook) {
    hook.clock = &now_ns_;
    hook.virtual_time = true;
    start();
  }
  ~Scenario() { x_.reset(); }
  void on_death(OnDeath look) { on_death_ = std::move(look); }

  /// Runs it all, restarting the exchange whenever it dies. Answers how often it did.
  int run() {
    connect();
    for (int round = 0; round < 12; ++round) {
      publish(round);
      exchange([&] { x_->step(now_ns_); });
      consume(round);
      now_ns_ += 6'000'000;
      exchange([&] { x_->tick(now_ns_); });
      if (round == 7) leave();
    }
    bool operated = false;
    for (int i = 0; i < 400; ++i) {
      now_ns_ += 6'000'000;
      exchange([&] {
        x_->tick(now_ns_);
        while (x_->step(now_ns_)) {
        }
      });
      consume(100);
      if (i >= 150 && !operated) {  // an operator deals with the dead letters; what dies in it he does again
        operated = true;
        for (const char* name : {"all", "tiny"}) {
          exchange([&] {
            (void)x_->requeue_dead(*x_->find_queue(name), {.delivery = 4}, now_ns_);
            (void)x_->purge_dead(*x_->find_queue(name), {.delivery = 5});
          });
        }
      }
    }
    check();
    return deaths_;
  }

 private:
  // Does one thing of the exchange's; when it dies in it, a new one recovers.
  template <class Step>
  void exchange(Step step) {
    try {
      shm::Environment::hook = &hook_;
      step();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      ++deaths_;
      check_dead_letters();
      if (on_death_) on_death_(*directory_);
      check_sound_at(*directory_, hook_.die_before);
      start();
    }
  }

  // What a tool finds in the files of the dead bus is what its counters say.
  void check_dead_letters() {
    if (!members_[0]) return;
    const auto stat = exchange::stat_document(*directory_, "crash");
    for (const char* name : {"all", "tiny"}) {
      std::uint64_t found = 0;
      exchange::walk_dead_files(*directory_, name, [&found](const ring::EventParts&) { return ++found != 0; });
      CAPTURE(name);
      CHECK(found == row_of(stat, name)["dlq_size"]);
    }
  }

  void start() {
    x_.reset();
    if (room == Room::in_between && members_[0]) {
      FullFileSystem full;
      full.clock = &now_ns_;
      shm::Environment::hook = &full;
      try {
        x_ = std::make_unique<exchange::Exchange>(*directory_);
        ++started_without_room;
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::no_space);
        ++refused_without_room;
      }
      shm::Environment::hook = nullptr;
    }
    if (!x_) x_ = std::make_unique<exchange::Exchange>(*directory_);
    x_->set_full_ring_grace(0);
    test::check_found_sound(*x_);
  }

  void connect() {
    const std::uint64_t client = x_->new_client();
    for (int i = 0; i < subscriptions; ++i) {
      SubscriptionOptions options;
      options.name = names[i];
      options.patterns = {i == 1 ? "a.*" : "#"};
      options.ring_bytes = i == 1 ? 4096 : 16384;
      options.max_in_flight = i == 1 ? 4 : 64;
      options.ack_timeout = std::chrono::milliseconds(20);
      options.backoff_initial = std::chrono::milliseconds(i == 0 ? 0 : 8);
      options.backoff_max = std::chrono::milliseconds(30);
      options.max_deliveries = 3;
      if (i == 3) options.guarantee = Guarantee::at_most_once;
      if (i == 2) {
        x_->create_subscription(options, false);
      } else {
        members_[i] = std::make_unique<CoreMember>(*directory_, x_->attach_member(client, options, false, {}));
      }
    }
    for (int i = 0; i < 2; ++i) {
      publishers_.push_back(
          std::make_unique<CorePublisher>(*directory_, x_->attach_publisher(client, i == 0 ? "one" : "two", 4096)));
    }
  }

  void publish(int round) {
    for (std::size_t i = 0; i < publishers_.size(); ++i) {
      for (int event = 0; event < 3; ++event) {
        const std::string topic = event == 1 ? "b.x.y" : "a.x";
        if (publishers_[i]->add(topic, std::string(static_cast<std::size_t>(round) * 9, 'p'))) {
          expected_[static_cast<int>(i)].push_back(topic);
        }
      }
      publishers_[i]->commit();
    }
  }

  // Takes what is there; acks most, nacks some, forgets some (they time out), all on the first attempt.
  void consume(int round) {
    for (int i = 0; i < subscriptions; ++i) {
      if (!members_[i]) continue;
      if (i == 1 && round < 8) continue;  // the tiny one is slow: its ring fills and its backlog is used
      if (i == 3) members_[i]->release();
      Seen seen;
      while (members_[i]->take(seen)) {
        record(i, seen);
        if (i == 3) {
          members_[i]->release();
          continue;
        }
        if (seen.delivery % 13 == 5) {
          members_[i]->verdict(seen.entry, ring::Verdict::reject);
        } else if (seen.delivery % 11 == 4) {  // poison
          members_[i]->verdict(seen.entry, ring::Verdict::nack);
        } else if (seen.attempt == 1 && seen.delivery % 7 == 3) {
          members_[i]->verdict(seen.entry, ring::Verdict::nack);
          ++nacks_[i];
        } else if (seen.attempt == 1 && seen.delivery % 7 == 5) {
          forgotten_[i].push_back(seen.entry);
        } else {
          members_[i]->verdict(seen.entry, ring::Verdict::ack);
        }
        if (forgotten_[i].size() > 3) let_go(i);
      }
    }
    if (round == 100) {
      for (int i = 0; i < subscriptions; ++i) let_go(i);
    }
  }

  // The views of deliveries that have timed out by now are let go: their late verdicts mean no more than that.
  void let_go(int i) {
    std::vector<std::uint64_t> waiting;
    for (const std::uint64_t entry : forgotten_[i]) {
      const exchange::Queue* queue = x_->find_queue(names[i]);
      const bool above = entry - queue->lane.floor_entry < queue->lane.entries - queue->lane.floor_entry;
      if (above && queue->lane.state_of(entry) == 0) {
        waiting.push_back(entry);
      } else {
        members_[i]->verdict(entry, ring::Verdict::ack);
      }
    }
    forgotten_[i] = waiting;
  }

  void leave() {
    exchange([&] { x_->detach_member(x_->find_queue("all")->lane); });
    exchange::Queue* queue = x_->find_queue("all");
    if (queue->lane.has_member()) exchange([&] { x_->detach_member(x_->find_queue("all")->lane); });
    members_[0].reset();
    forgotten_[0].clear();
    SubscriptionOptions options = x_->find_queue("all")->options;
    options.patterns.clear();
    members_[0] = std::make_unique<CoreMember>(*directory_, x_->attach_member(x_->new_client(), options, false, {}));
  }

  void record(int i, const Seen& seen) {
    CHECK_MESSAGE(attempts_[i].insert({seen.delivery, seen.attempt}).second, "subscription ", names[i], " saw attempt ",
                  seen.attempt, " of delivery ", seen.delivery, " twice");
    const int publisher = std::stoi(seen.publisher);
    auto& last = last_sequence_[i][publisher];
    if (seen.attempt == 1) {
      CHECK_MESSAGE(seen.sequence > last, "subscription ", names[i], " saw a first delivery twice or out of order");
      last = seen.sequence;
      ++first_[i];
      settled_[i].insert(seen.delivery);
    } else {
      CHECK(settled_[i].contains(seen.delivery));
    }
  }

  void check() {
    exchange::Queue* offline = x_->find_queue("offline");
    SubscriptionOptions options = offline->options;
    members_[2] = std::make_unique<CoreMember>(*directory_, x_->attach_member(88, options, false, {}));
    for (int i = 0; i < 60; ++i) {
      now_ns_ += 6'000'000;
      x_->tick(now_ns_);
      while (x_->step(now_ns_)) {
      }
      consume(100);
    }
    x_->tick(now_ns_ += 6'000'000);
    const auto stat = exchange::stat_document(*x_, "crash");
    check_books(stat);
    check_books(exchange::stat_document(*directory_, "crash"));
    for (int i = 0; i < subscriptions; ++i) {
      std::uint64_t expected = 0;
      for (const auto& [publisher, topics] : expected_) {
        for (const std::string& topic : topics) expected += i != 1 || topic == "a.x" ? 1 : 0;
      }
      const auto row = row_of(stat, names[i]);
      INFO("subscription ", names[i], ": ", row.dump());
      CHECK(row["matched"] == expected);
      // Where there is no room, at most once drops what its ring does not take.
      const std::uint64_t dropped = i == 3 ? row["dropped"].value("drop-newest", std::uint64_t{0}) : 0;
      CHECK((dropped == 0 || room == Room::in_between));
      CHECK(first_[i] + dropped == expected);
      const auto dead = row["dlq_size"].get<std::uint64_t>() + row["dlq_removed"].get<std::uint64_t>();
      CHECK(row["acked"].get<std::uint64_t>() + dead + dropped == expected);
      CHECK((i == 3 ? dead == 0 : dead > 0));
      CHECK(row["retry_waiting"] == 0);
      CHECK(row["lag"] == 0);
      CHECK(row["queued"] == 0);
    }
  }

  KillHook& hook_;
  OnDeath on_death_;
  std::shared_ptr<shm::MemoryDirectory> directory_ = std::make_shared<shm::MemoryDirectory>();
  std::unique_ptr<exchange::Exchange> x_;
  std::unique_ptr<CoreMember> members_[subscriptions];
  std::vector<std::unique_ptr<CorePublisher>> publishers_;
  std::map<int, std::vector<std::string>> expected_;
  std::map<int, std::uint64_t> last_sequence_[subscriptions];
  std::set<std::uint64_t> settled_[subscriptions];
  std::set<std::pair<std::uint64_t, std::uint32_t>> attempts_[subscriptions];
  std::uint64_t first_[subscriptions] = {};
  std::uint64_t nacks_[subscriptions] = {};
  std::vector<std::uint64_t> forgotten_[subscriptions];
  std::uint64_t now_ns_ = 1'000'000'000;
  int deaths_ = 0;
};

}  // namespace

TEST_CASE("the exchange may die at any point, and again in the recovery: the books are exact") {
  die_at_every_point<Scenario>("the flow", 9);
  check_named_points({shm::CrashPoint::file_create,
                      shm::CrashPoint::file_allocate,
                      shm::CrashPoint::file_rename,
                      shm::CrashPoint::file_remove,
                      shm::CrashPoint::transaction_intent,
                      shm::CrashPoint::transaction_sink,
                      shm::CrashPoint::transaction_commit,
                      shm::CrashPoint::transaction_counters,
                      shm::CrashPoint::route_topic,
                      shm::CrashPoint::route_source,
                      shm::CrashPoint::deliver_record,
                      shm::CrashPoint::backlog_spill,
                      shm::CrashPoint::backlog_pump,
                      shm::CrashPoint::settle_floor,
                      shm::CrashPoint::settle_state,
                      shm::CrashPoint::retry_append,
                      shm::CrashPoint::retry_release,
                      shm::CrashPoint::retry_redeliver,
                      shm::CrashPoint::retry_mark,
                      shm::CrashPoint::retry_late_ack,
                      shm::CrashPoint::retry_head,
                      shm::CrashPoint::dead_append,
                      shm::CrashPoint::dead_reasons,
                      shm::CrashPoint::dead_requeue,
                      shm::CrashPoint::dead_purge,
                      shm::CrashPoint::recover_begin,
                      shm::CrashPoint::recover_subscriptions,
                      shm::CrashPoint::recover_publishers,
                      shm::CrashPoint::redo_route,
                      shm::CrashPoint::redo_pump,
                      shm::CrashPoint::redo_move,
                      shm::CrashPoint::redo_source,
                      shm::CrashPoint::recover_strays,
                      shm::CrashPoint::recover_end});
}

// Where a sink that has not got an event has no room for it, and others hold it already, the transaction can't be finished,
// and must not be taken for finished.
TEST_CASE("the exchange may die at any point, and there is no room when the next one starts: the books are exact") {
  const Depth depth;
  room = Room::in_between;
  std::uint64_t points = 0;
  {
    KillHook count;
    Scenario scenario(count);
    REQUIRE(scenario.run() == 0);
    points = count.points;
  }
  started_without_room = refused_without_room = 0;
  const std::uint64_t stride = depth.deep || depth.point != nullptr ? 1 : 5;
  for (std::uint64_t n = depth.first(); n < points; n += stride) {
    CAPTURE(n);
    KillHook hook;
    hook.die_before = n;
    Scenario scenario(hook);
    CHECK(scenario.run() > 0);
    if (depth.point != nullptr) break;
  }
  room = Room::always;
  std::printf("without room: %llu exchanges started, %llu did not\n",
              static_cast<unsigned long long>(started_without_room),
              static_cast<unsigned long long>(refused_without_room));
  if (depth.point == nullptr) CHECK(started_without_room > points / stride / 2);
}
