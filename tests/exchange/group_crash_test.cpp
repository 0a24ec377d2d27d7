// The exchange dies at every point of what groups and ordered subscriptions add: handing out by credit, handing
// over what a dead or a frozen member had not taken, one delivery at a time. See crash_test.cpp for the method.
#include <set>

#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

class GroupScenario {
 public:
  explicit GroupScenario(KillHook& hook) : hook_(hook) {
    hook.clock = &now_ns_;
    hook.virtual_time = true;
    start();
  }
  ~GroupScenario() { x_.reset(); }

  int run() {
    connect();
    for (int round = 0; round < 120; ++round) {
      if (round < 6) publish(round);
      now_ns_ += 6'000'000;
      exchange([&] {
        x_->step(now_ns_);
        x_->tick(now_ns_);
        while (x_->step(now_ns_)) {
        }
      });
      if (round == 12) die("g", 0);
      if (round == 14) join("g", 0);
      if (round == 16) die("k", 0);
      if (round == 18) join("k", 0);
      if (round == 7 || round == 9) {  // an operator; what dies in it he does again
        for (const char* name : {"g", "k", "p"}) {
          for (bool done = false; !done;) {
            exchange([&] {
              exchange::Queue& queue = *x_->find_queue(name);
              round == 7 ? x_->pause(queue) : x_->resume(queue);
              done = true;
            });
          }
        }
      }
      if (round == 50) publish(round);
      if (round == 54) {
        for (bool done = false; !done;) {
          exchange([&] {
            (void)x_->purge(*x_->find_queue("u"), now_ns_);
            done = true;
          });
        }
      }
      if (round == 60) thaw_ = true;  // the frozen one wakes up: its rest was taken back long ago
      consume();
    }
    check();
    return deaths_;
  }

  void on_death(OnDeath look) { on_death_ = std::move(look); }

 private:
  template <class Step>
  void exchange(Step step) {
    try {
      shm::Environment::hook = &hook_;
      step();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      ++deaths_;
      if (!members_.empty()) check_books(exchange::stat_document(*directory_, "crash"));
      if (on_death_) on_death_(*directory_);
      check_sound_at(*directory_, hook_.die_before);
      start();
    }
  }

  void start() {
    x_.reset();
    x_ = std::make_unique<exchange::Exchange>(*directory_);
    x_->set_full_ring_grace(0);
    test::check_found_sound(*x_);
  }

  void connect() {
    client_ = x_->new_client();
    for (const char* name : {"g", "o", "k", "p", "u"}) {
      join(name, 0);
      if (name[0] >= 'p') continue;
      join(name, 1);
    }
    for (int i = 0; i < 2; ++i) {
      publishers_.push_back(
          std::make_unique<CorePublisher>(*directory_, x_->attach_publisher(client_, i == 0 ? "one" : "two", 4096)));
    }
  }

  void join(const std::string& name, int which) {
    SubscriptionOptions options;
    options.name = name;
    options.patterns = {"#"};
    options.group = name < "p";
    options.ordered = name == "o" || name == "k";
    options.ordered_by_key = name == "k";
    options.ring_bytes = 4096;
    options.max_in_flight = 4;
    options.ack_timeout = std::chrono::milliseconds(30);
    options.backoff_initial = options.backoff_max = std::chrono::milliseconds(8);
    options.max_deliveries = 3;
    members_[{name, which}] = std::make_unique<CoreMember>(*directory_, x_->attach_member(client_, options, false, {}));
  }

  exchange::Lane* lane_of(const std::string& name, int which) {
    return x_->find_queue(name)->find_lane(members_[{name, which}]->ring);
  }

  void die(const std::string& name, int which) {
    exchange([&] { x_->detach_member(*lane_of(name, which)); });
    if (exchange::Lane* lane = lane_of(name, which); lane != nullptr && lane->has_member()) {
      exchange([&] { x_->detach_member(*lane); });
    }
    members_.erase({name, which});
  }

  void publish(int round) {
    for (auto& publisher : publishers_) {
      for (int event = 0; event < 2; ++event) {
        published_ +=
            publisher->add("a", std::string(static_cast<std::size_t>(round) * 5, 'p'), event == 0 ? "even" : "odd") ? 1
                                                                                                                    : 0;
      }
      publisher->commit();
    }
  }

  // The second member of each takes one event and stands still until it is thawed.
  void consume() {
    for (auto& [key, member] : members_) {
      const bool freezes = key.second == 1 && !thaw_;
      if (freezes && held_.contains(key)) continue;
      Seen seen;
      if (key.first == "u" && attempts_["u"].size() > 2) continue;  // it was nacked, and has the rest in its ring
      while (member->take(seen)) {
        record(key.first, seen);
        if (freezes) {
          held_[key] = seen.entry;
          break;
        }
        const bool bad = seen.delivery % 7 == 3 || (seen.attempt == 1 && seen.delivery % 5 == 2);
        member->verdict(seen.entry, bad ? ring::Verdict::nack : ring::Verdict::ack);
      }
      if (!freezes && held_.contains(key)) {
        member->verdict(held_[key], ring::Verdict::ack);  // late
        held_.erase(key);
      }
    }
  }

  void record(const std::string& name, const Seen& seen) {
    CHECK_MESSAGE(attempts_[name].insert({seen.delivery, seen.attempt}).second, name, ": attempt ", seen.attempt,
                  " of delivery ", seen.delivery, " was seen twice");
    if (name == "g" || name == "u" || seen.attempt != 1) return;
    std::uint64_t& last = last_[name + (name == "k" ? seen.key : "")];
    CHECK_MESSAGE(seen.delivery > last, name, ": out of order");
    last = seen.delivery;
  }

  void check() {
    const auto stat = exchange::stat_document(*x_, "crash");
    check_books(stat);
    check_books(exchange::stat_document(*directory_, "crash"));
    for (const char* name : {"g", "o", "k"}) {
      const auto row = row_of(stat, name);
      INFO(row.dump());
      CHECK(row["matched"] == published_);
      CHECK(row["acked"].get<std::uint64_t>() + row["dlq_size"].get<std::uint64_t>() == published_);
      CHECK(row["dlq_size"] != 0);
      CHECK(row["timed_out"] != 0);
      std::uint64_t first = 0;
      for (const auto& [delivery, attempt] : attempts_[name]) first += attempt == 1 ? 1 : 0;
      CHECK(first == published_);
      CHECK(x_->find_queue(name)->members.size() == 2);
    }
    const auto paused = row_of(stat, "p");
    CHECK(paused["acked"].get<std::uint64_t>() + paused["dlq_size"].get<std::uint64_t>() == published_);
    const auto purged = row_of(stat, "u");
    CHECK(purged["purged"] == published_ - purged["acked"].get<std::uint64_t>());
    CHECK(purged["purged"] != 0);
  }

  using Key = std::pair<std::string, int>;
  KillHook& hook_;
  OnDeath on_death_;
  std::shared_ptr<shm::MemoryDirectory> directory_ = std::make_shared<shm::MemoryDirectory>();
  std::unique_ptr<exchange::Exchange> x_;
  std::map<Key, std::unique_ptr<CoreMember>> members_;
  std::map<Key, std::uint64_t> held_;
  std::vector<std::unique_ptr<CorePublisher>> publishers_;
  std::map<std::string, std::set<std::pair<std::uint64_t, std::uint32_t>>> attempts_;
  std::uint64_t published_ = 0;
  std::map<std::string, std::uint64_t> last_;
  std::uint64_t client_ = 0;
  std::uint64_t now_ns_ = 1'000'000'000;
  bool thaw_ = false;
  int deaths_ = 0;
};

}  // namespace

TEST_CASE("groups: the exchange may die at any point, and again in the recovery") {
  die_at_every_point<GroupScenario>("groups", 9);
  check_named_points({shm::CrashPoint::group_hand, shm::CrashPoint::group_park, shm::CrashPoint::group_revoke,
                      shm::CrashPoint::pause_set_aside, shm::CrashPoint::purge_discard, shm::CrashPoint::purge_backlog,
                      shm::CrashPoint::leave_member});
}
