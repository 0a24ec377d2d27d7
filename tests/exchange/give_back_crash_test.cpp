// The exchange dies at every point of what give_back and members' latencies add: what was given back is charged to nobody,
// what was measured counts once, whenever X dies and whoever leaves next. See crash_test.cpp for the method.
#include <errno.h>

#include <set>

#include "ackring/error.hpp"
#include "lib/client/latency_writer.hpp"
#include "lib/shm/latency.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t ms = 1'000'000;

// Subscriptions: plain with a ring that is full, a group, and one that is ordered.
constexpr const char* names[] = {"plain", "group", "ordered"};

SubscriptionOptions options_of(const std::string& name) {
  SubscriptionOptions options;
  options.name = name;
  options.patterns = {"#"};
  options.group = name == "group";
  options.ordered = name == "ordered";
  options.ring_bytes = 4096;
  options.max_in_flight = 4;
  options.ack_timeout = std::chrono::seconds(100);
  options.backoff_initial = options.backoff_max = std::chrono::milliseconds(8);
  options.max_deliveries = 3;
  return options;
}

class GiveBackScenario {
 public:
  explicit GiveBackScenario(KillHook& hook) : hook_(hook) {
    hook.clock = &now_ns_;
    hook.virtual_time = true;
    start();
  }
  ~GiveBackScenario() { x_.reset(); }
  void on_death(OnDeath look) { on_death_ = std::move(look); }

  int run() {
    client_ = x_->new_client();
    for (const char* name : names) join(name);
    join("group");
    publisher_ = std::make_unique<CorePublisher>(*directory_, x_->attach_publisher(client_, "one", 4096));
    for (int round = 0; round < 36; ++round) {
      if (round < 3) publish(round);
      now_ns_ += 6 * ms;
      exchange([&] {
        x_->step(now_ns_);
        x_->tick(now_ns_);
        while (x_->step(now_ns_)) {
        }
      });
      const bool leaving = round == 3 || round == 7;
      consume(leaving);
      if (leaving) leave();
    }
    check();
    return deaths_;
  }

 private:
  struct Consumer {
    std::string name;
    std::unique_ptr<CoreMember> member;
  };
  struct Books {
    std::map<std::uint64_t, std::uint32_t> attempts;  // that the next take of a delivery has to be
    std::map<std::uint64_t, int> given_back;          // how often, by delivery
    std::set<std::uint64_t> dead;
    std::uint64_t measured = 0;
    std::uint64_t kept = 0;  // takes that were not given back
    std::uint64_t nacked = 0;
    std::uint64_t held = 0;  // by members that left
  };

  template <class Step>
  void exchange(Step step) {
    try {
      shm::Environment::hook = &hook_;
      step();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      ++deaths_;
      if (!consumers_.empty()) {
        const auto dead = exchange::stat_document(*directory_, "crash");
        check_books(dead);
        check_measured(dead);
      }
      if (on_death_) on_death_(*directory_);
      check_sound_at(*directory_, hook_.die_before);
      start();
      const bool looks = hook_.die_before % 5 == 0;  // documents cost more than all the rest
      if (looks && !consumers_.empty()) check_measured(exchange::stat_document(*x_, "crash"));
    }
  }

  void start() {
    x_.reset();
    x_ = std::make_unique<exchange::Exchange>(*directory_);
    x_->set_full_ring_grace(0);
    test::check_found_sound(*x_);
  }

  void check_measured(const nlohmann::ordered_json& stat) {
    for (const char* name : names) {
      const auto row = row_of(stat, name);
      const std::uint64_t found =
          row.contains("publish_to_take") ? row["publish_to_take"]["count"].get<std::uint64_t>() : 0;
      CAPTURE(name);
      CHECK(found == books_[name].measured);
    }
  }

  void join(const std::string& name) {
    consumers_.push_back(
        {name, std::make_unique<CoreMember>(*directory_, x_->attach_member(client_, options_of(name), false, {}))});
  }

  void publish(int round) {
    for (int event = 0; event < 3; ++event) {
      published_ += publisher_->add("a", std::string(static_cast<std::size_t>(round) * 9, 'p')) ? 1 : 0;
    }
    publisher_->commit();
  }

  // `leaving`: some are held, and there is no tick between the verdicts and the end.
  void consume(bool leaving) {
    for (Consumer& consumer : consumers_) {
      Books& books = books_[consumer.name];
      for (Seen seen; consumer.member->take(seen);) {
        std::uint32_t& attempt = books.attempts.try_emplace(seen.delivery, 1).first->second;
        CHECK_MESSAGE(seen.attempt == attempt, consumer.name, ": delivery ", seen.delivery, " is attempt ",
                      seen.attempt, " instead of ", attempt);
        CHECK(seen.causes.size() == attempt - 1);
        client::add_latency(consumer.member->latency().take, 1000, 1);
        ++books.measured;
        if (leaving && attempt <= 2 && (consumer.name == "ordered" || seen.delivery % 3 == 0)) {
          ++attempt;
          ++books.held;
          ++books.kept;
          continue;
        }
        int& times = books.given_back[seen.delivery];
        if (times < (leaving ? 3 : 2) && seen.delivery % 3 != 1) {
          consumer.member->give_back(seen.entry, times % 2 == 0 ? 0 : 14);
          ++times;
          continue;
        }
        ++books.kept;
        if (seen.delivery % 5 == 2) {
          consumer.member->nack(seen.entry, std::string("no"));
          ++books.nacked;
          if (++attempt > 3) books.dead.insert(seen.delivery);
        } else {
          consumer.member->verdict(seen.entry, ring::Verdict::ack);
        }
      }
    }
  }

  // All members leave, those of the group at once; then there are new ones.
  void leave() {
    const auto any_left = [&] {
      bool any = false;
      for (const char* name : names) any = any || x_->find_queue(name)->has_member();
      return any;
    };
    while (any_left()) {
      exchange([&] {
        for (const char* name : names) {
          (void)x_->detach_members(*x_->find_queue(name), [](const exchange::Lane&) { return true; });
        }
      });
    }
    check_measured(exchange::stat_document(*x_, "crash"));
    consumers_.clear();
    for (const char* name : names) join(name);
    join("group");
  }

  void check() {
    const auto stat = exchange::stat_document(*x_, "crash");
    check_books(stat);
    check_books(exchange::stat_document(*directory_, "crash"));
    check_measured(stat);
    for (const char* name : names) {
      const Books& books = books_[name];
      const auto row = row_of(stat, name);
      INFO(row.dump());
      CHECK(row["matched"] == published_);
      CHECK(row["dlq_size"] == books.dead.size());
      CHECK(row["acked"] == published_ - books.dead.size());
      CHECK(row["delivered"] == books.kept);
      CHECK(row["nacked"] == books.nacked);
      CHECK(row["redelivered"] == books.nacked - books.dead.size() + books.held);
      CHECK(row["timed_out"] == 0);
      CHECK(books.measured > books.kept);
      CHECK((deaths_ != 0 || books.held != 0));  // after a death, members may leave when there was nothing to hold
      CHECK(!books.dead.empty());
      exchange::Exchange::walk_dead(*x_->find_queue(name), {}, [&](std::uint64_t, const ring::EventParts& event) {
        CHECK(books.dead.contains(event.header->delivery));
        CHECK(exchange::reason_of(event) == "max_deliveries: no");
        return true;
      });
    }
  }

  KillHook& hook_;
  OnDeath on_death_;
  std::shared_ptr<shm::MemoryDirectory> directory_ = std::make_shared<shm::MemoryDirectory>();
  std::unique_ptr<exchange::Exchange> x_;
  std::vector<Consumer> consumers_;
  std::unique_ptr<CorePublisher> publisher_;
  std::map<std::string, Books> books_;
  std::uint64_t published_ = 0;
  std::uint64_t client_ = 0;
  std::uint64_t now_ns_ = 1'000'000'000;
  int deaths_ = 0;
};

// No file can grow.
struct FullFileSystem final : shm::EnvironmentHook {
  const std::uint64_t* clock = nullptr;
  FullFileSystem() { virtual_time = true; }
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {}
  void before_call(shm::CrashPoint call) override {
    if (call == shm::CrashPoint::file_allocate) throw Error(ErrorCode::no_space, "file", "no room", {}, ENOSPC);
  }
  std::uint64_t now_ns() override { return *clock; }
};

}  // namespace

TEST_CASE("given back, and measured: the exchange may die at any point, and again in the recovery") {
  die_at_every_point<GiveBackScenario>("give back", 9);
  check_named_points({shm::CrashPoint::pause_set_aside, shm::CrashPoint::retry_release, shm::CrashPoint::leave_member,
                      shm::CrashPoint::leave_ring});
}

TEST_CASE("given back by one who leaves while there is no room for it: it is charged for that no more") {
  World world;
  SubscriptionOptions options = options_of("plain");
  options.max_deliveries = 1;
  auto member = world.member("plain", {"#"}, options);
  auto publisher = world.publisher();
  publisher.publish("a", "1");
  world.run();
  Seen seen;
  REQUIRE(member.take(seen));
  CHECK(member.give_back(seen.entry));
  FullFileSystem full;
  full.clock = &world.now_ns;
  shm::Environment::hook = &full;
  world.x->tick(world.now_ns);
  world.x->detach_member(world.x->find_queue("plain")->lane);
  world.x->tick(world.now_ns);
  shm::Environment::hook = nullptr;
  const auto held = row_of(world.stat(), "plain");
  CHECK(held["dlq_size"] == 0);
  CHECK(held["in_flight"] == 1);
  world.tick();
  CHECK_FALSE(world.x->find_queue("plain")->has_member());
  const auto row = row_of(world.stat(), "plain");
  CHECK(row["queued"] == 1);
  CHECK(row["delivered"] == 0);
  auto next = world.member("plain", {"#"}, options);
  world.tick();
  REQUIRE(next.take(seen));
  CHECK(seen.attempt == 1);
}
