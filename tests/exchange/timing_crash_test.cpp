// Death at every point of a scenario in which events expire, are delayed, overflow into dead letters, are
// requeued, and a subscription goes: every event ends in exactly one place, is delivered once, in time and in order.
#include <set>

#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t ms = 1'000'000;
constexpr int subscriptions = 4;
const char* const names[subscriptions] = {"plain", "mortal", "small", "ordered"};

class Scenario {
 public:
  explicit Scenario(KillHook& hook) : hook_(hook) {
    hook.clock = &now_ns_;
    hook.virtual_time = true;
    start();
  }
  ~Scenario() { x_.reset(); }

  void on_death(OnDeath look) { on_death_ = std::move(look); }

  int run() {
    connect();
    for (int round = 0; round < 6; ++round) {
      publish(round);
      exchange([&] { x_->step(now_ns_); });
      if (round % 2 == 1) consume();
      now_ns_ += 6 * ms;
      exchange([&] { x_->tick(now_ns_); });
    }
    for (int i = 0; i < 60; ++i) {
      now_ns_ += 6 * ms;
      exchange([&] {
        x_->tick(now_ns_);
        while (x_->step(now_ns_)) {
        }
      });
      consume();
      if (i == 30) operate();
    }
    check();
    return deaths_;
  }

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
      check_books(exchange::stat_document(*directory_, "crash"));
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
    const std::uint64_t client = x_->new_client();
    for (int i = 0; i < subscriptions; ++i) {
      SubscriptionOptions options;
      options.name = names[i];
      options.patterns = {"a"};
      options.ring_bytes = 4096;
      options.max_in_flight = 8;
      options.ack_timeout = std::chrono::seconds(10);
      options.retry_delays = {std::chrono::milliseconds(9)};
      if (i == 1) {
        options.ttl = std::chrono::milliseconds(40);
        options.dead_letter_expired = true;
      }
      if (i == 2) {
        options.max_events = 6;
        options.overflow = Overflow::dead_letter;
        options.dead_letter_topic = "dead.small";
      }
      options.ordered = i == 3;
      members_[i] = std::make_unique<CoreMember>(*directory_, x_->attach_member(client, options, false, {}));
    }
    SubscriptionOptions gone;
    gone.name = "gone";
    gone.patterns = {"a"};
    x_->create_subscription(gone, false);
    gone.name = "watch";
    gone.patterns = {"dead.#"};
    x_->create_subscription(gone, false);
    publisher_ = std::make_unique<CorePublisher>(*directory_, x_->attach_publisher(client, "one", 16384));
  }

  void publish(int round) {
    for (int event = 0; event < 8; ++event) {
      shm::TimingInfo times{};
      const int kind = (round * 3 + event) % 5;
      if (kind == 1) times.not_before_ns = now_ns_ + 20 * ms + static_cast<std::uint64_t>(event);
      if (kind == 2) times.expires_ns = now_ns_ + static_cast<std::uint64_t>(event % 3) * 5 * ms;
      if (kind == 4) times = {now_ns_ + 60 * ms, now_ns_ + 30 * ms};
      publisher_->published_ns = now_ns_;
      REQUIRE(publisher_->add("a", "payload", "", times));
      times_[publisher_->sequence()] = times;
    }
    publisher_->commit();
  }

  void consume() {
    for (int i = 0; i < subscriptions; ++i) {
      Seen seen;
      while (members_[i]->take(seen)) {
        const shm::TimingInfo& times = times_[seen.sequence];
        INFO(names[i], ": attempt ", seen.attempt, " of delivery ", seen.delivery);
        CHECK(now_ns_ >= times.not_before_ns);
        CHECK(attempts_[i].insert({seen.delivery, seen.attempt}).second);
        // What was a dead letter, or delayed, is late.
        if (seen.attempt == 1 && times.not_before_ns == 0 && !operated_) {
          CHECK(seen.sequence > last_[i]);
          last_[i] = seen.sequence;
        }
        const bool fails = seen.attempt == 1 && seen.delivery % 7 == 3;
        members_[i]->verdict(seen.entry, fails ? ring::Verdict::nack : ring::Verdict::ack);
        acked_[i] += fails ? 0 : 1;
      }
    }
  }

  // Dead letters come back; a subscription goes. What dies in it is done again.
  void operate() {
    operated_ = true;
    for (const char* name : {"mortal", "small"}) {
      for (int i = 0; i < 2; ++i) {
        exchange([&] { (void)x_->requeue_dead(*x_->find_queue(name), {.delivery = 0, .at_most = 3}, now_ns_); });
      }
    }
    exchange::Queue* gone = x_->find_queue("gone");
    if (gone != nullptr) exchange([&] { x_->end_subscription(*gone, true); });
    gone = x_->find_queue("gone");
    if (gone != nullptr && !gone->burying) exchange([&] { x_->end_subscription(*gone, true); });
  }

  void check() {
    x_->tick(now_ns_ += 6 * ms);
    const auto stat = exchange::stat_document(*x_, "crash");
    check_books(stat);
    check_books(exchange::stat_document(*directory_, "crash"));
    const std::uint64_t published = times_.size();
    for (int i = 0; i < subscriptions; ++i) {
      const auto row = row_of(stat, names[i]);
      INFO(row.dump());
      CHECK(row["matched"] == published);
      CHECK(row["acked"] == acked_[i]);
      CHECK(row["queued"] == 0);
      CHECK(row["retry_waiting"] == 0);
      CHECK(row["acked"].get<std::uint64_t>() + row["expired"].get<std::uint64_t>() +
                row["dlq_size"].get<std::uint64_t>() ==
            published);
      CHECK((i == 1 || row["expired"].get<std::uint64_t>() > 0));
      // A redo blocks nobody and lets nothing expire, so that a death may leave no dead letter.
      CHECK((deaths_ != 0 || (i != 1 && i != 2) || row["requeued"].get<std::uint64_t>() > 0));
    }
    const auto watched = row_of(stat, "watch");
    INFO(watched.dump());
    CHECK(watched["matched"] == row_of(stat, "small")["dead_lettered"]);
    CHECK(watched["queued"] == watched["matched"]);
    const auto gone = row_of(stat, "gone");
    INFO(gone.dump());
    CHECK(gone["matched"] == published);
    CHECK(gone["dlq_size"].get<std::uint64_t>() + gone["expired"].get<std::uint64_t>() == published);
  }

  KillHook& hook_;
  OnDeath on_death_;
  std::shared_ptr<shm::MemoryDirectory> directory_ = std::make_shared<shm::MemoryDirectory>();
  std::unique_ptr<exchange::Exchange> x_;
  std::unique_ptr<CoreMember> members_[subscriptions];
  std::unique_ptr<CorePublisher> publisher_;
  std::map<std::uint64_t, shm::TimingInfo> times_;
  std::set<std::pair<std::uint64_t, std::uint32_t>> attempts_[subscriptions];
  std::uint64_t last_[subscriptions] = {};
  std::uint64_t acked_[subscriptions] = {};
  bool operated_ = false;
  std::uint64_t now_ns_ = 1'000'000'000;
  int deaths_ = 0;
};

}  // namespace

TEST_CASE("times: the exchange may die at any point, and again in the recovery") {
  die_at_every_point<Scenario>("events with times", 9);
  check_named_points({shm::CrashPoint::expire_later, shm::CrashPoint::dead_announce, shm::CrashPoint::redo_announce,
                      shm::CrashPoint::subscription_define});
}
