// The exchange dies at every point of what clients and operators ask of it: publishers that come, go and come again under
// their name, members that join and leave, new topics, subscriptions that are made, changed, paused, resumed, purged and
// removed, dead letters that are requeued. Who was asking asks again, as he would; the books are exact in the end, and
// nothing is left in the directory of those who have gone.
#include <algorithm>
#include <set>

#include "lib/exchange/host.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

class Scenario {
 public:
  explicit Scenario(KillHook& hook) : hook_(hook) {
    hook.clock = &now_ns_;
    hook.virtual_time = true;
    restart();
  }
  ~Scenario() { x_.reset(); }
  void on_death(OnDeath look) { on_death_ = std::move(look); }

  int run() {
    ask([&] {
      if (x_->find_queue("kept") == nullptr) x_->create_subscription(kept_options(), false);
    });
    join("kept", {});
    join("", {"a.#"});  // an ephemeral one
    attach("one");
    attach("");
    for (const char* topic : {"a.1", "a.2", "b.1"}) publish(topic);
    settle(2);
    update();
    publish("c.1");
    ask([&] { x_->pause(*x_->find_queue("kept")); });
    for (const char* topic : {"a.3", "c.2", "a.1"}) publish(topic);
    settle(1);
    reattach("one");
    ask([&] { x_->resume(*x_->find_queue("kept")); });
    publish("a.4");
    leave("kept");  // with what it has taken
    publish("a.2");
    settle(2);
    join("kept", {});
    settle(6);
    ask([&] { (void)x_->requeue_dead(*x_->find_queue("kept"), {.delivery = 0, .at_most = 2}, now_ns_); });
    leave("kept");
    join("kept", {});
    for (int i = 0; i < 3; ++i) publish("a.5");
    turn();
    ask([&] { x_->pause(*x_->find_queue("kept")); });  // what nobody has taken is set aside
    leave("kept");
    settle(1);
    ask([&] { purged_ = x_->purge(*x_->find_queue("kept"), now_ns_) != 0 || purged_; });
    ask([&] { x_->resume(*x_->find_queue("kept")); });
    leave("");
    detach("");
    settle(2);
    end("kept");
    detach("one");
    settle(3);
    check();
    return deaths_;
  }

 private:
  static SubscriptionOptions kept_options() {
    SubscriptionOptions options;
    options.name = "kept";
    options.patterns = {"a.#"};
    options.ring_bytes = 4096;
    options.max_in_flight = 8;
    options.max_deliveries = 1;
    return options;
  }

  void restart() {
    x_.reset();
    x_ = std::make_unique<exchange::Exchange>(*directory_);
    x_->set_full_ring_grace(0);
  }

  // Whoever asks for something asks again when the exchange has died of it.
  template <class Step>
  void ask(Step step, const std::function<void()>& after_death = {}) {
    while (true) {
      try {
        shm::Environment::hook = &hook_;
        step();
        shm::Environment::hook = nullptr;
        return;
      } catch (const Death&) {
        shm::Environment::hook = nullptr;
        ++deaths_;
        check_books(exchange::stat_document(*directory_, "crash"));
        if (on_death_) on_death_(*directory_);
        restart();
        if (after_death) after_death();
      }
    }
  }

  // A client that did not get its answer is one that has gone: the next one asks.
  template <class Step>
  void come(std::uint64_t& client, Step step) {
    ask(
        [&] {
          client = x_->new_client();
          step();
        },
        [&] { x_->client_gone(client); });
  }

  void join(const std::string& name, std::vector<std::string> patterns) {
    SubscriptionOptions options = kept_options();
    options.name = name;
    options.patterns = std::move(patterns);
    come(member_clients_[name], [&] {
      if (name.empty() && x_->find_queue("kept") == nullptr) return;
      const auto grant = x_->attach_member(member_clients_[name], options, name.empty(), {});
      shm::Environment::hook = nullptr;
      members_[name] = std::make_unique<CoreMember>(*directory_, grant);
    });
  }

  void leave(const std::string& name) {
    ask([&] { x_->client_gone(member_clients_[name]); });
    members_.erase(name);
  }

  void attach(const std::string& name) {
    come(publisher_clients_[name], [&] {
      const auto grant = x_->attach_publisher(publisher_clients_[name], name, 4096);
      shm::Environment::hook = nullptr;
      publishers_[name] = std::make_unique<CorePublisher>(*directory_, grant);
    });
  }

  void detach(const std::string& name) {
    ask([&] { x_->client_gone(publisher_clients_[name]); });
    publishers_.erase(name);
  }

  // The same name again, before the exchange has routed what the earlier one has left.
  void reattach(const std::string& name) {
    const std::uint64_t sequence = publishers_[name]->sequence();
    CHECK(publishers_[name]->publish("a.late", "late"));
    ++published_;
    ++matched_;
    detach(name);
    attach(name);
    CHECK(publishers_[name]->sequence() == sequence + 1);
  }

  void publish(const std::string& topic) {
    for (auto& [name, publisher] : publishers_) {
      REQUIRE(publisher->publish(topic, name + topic));
      ++published_;
      matched_ += topic[0] == 'a' || (updated_ && topic[0] == 'c') ? 1 : 0;
    }
  }

  void update() {
    SubscriptionOptions options = kept_options();
    options.patterns = {"a.#", "c.#"};
    options.dead_letter_topic = "letters";
    settle(2);
    ask([&] { x_->update_subscription(options, {"dead_letter_topic"}); });
    updated_ = true;
  }

  // Removed while it still holds dead letters: they stay for people, and the subscription goes with the last of them.
  void end(const std::string& name) {
    ask([&] {
      exchange::Queue* queue = x_->find_queue(name);
      if (queue != nullptr && !queue->ending) x_->end_subscription(*queue);
    });
    last_ = row_of(exchange::stat_document(*x_, "crash"), name);
    settle(1);
    ask([&] {
      if (exchange::Queue* queue = x_->find_queue(name)) (void)x_->purge_dead(*queue, {});
    });
    settle(2);
    CHECK(x_->find_queue(name) == nullptr);
    ask([&] {
      SubscriptionOptions again = kept_options();
      if (x_->find_queue("kept") == nullptr) x_->create_subscription(again, false);
      x_->remove_subscription(*x_->find_queue("kept"));
    });
  }

  void settle(int ticks) {
    for (int i = 0; i < ticks; ++i) {
      turn();
      consume();
    }
  }
  void turn() {
    now_ns_ += 6'000'000;
    ask([&] {
      while (x_->step(now_ns_)) {
      }
      x_->tick(now_ns_);
    });
  }

  void consume() {
    for (auto& [name, member] : members_) {
      Seen seen;
      for (int taken = 0; taken < 2 && member->take(seen); ++taken) {
        if (name.empty()) {
          member->verdict(seen.entry, ring::Verdict::ack);
          continue;
        }
        CHECK(attempts_.insert({seen.delivery, seen.attempt}).second);
        const bool bad = seen.delivery % 3 == 1;
        if (taken == 1 && seen.delivery % 3 == 2) continue;  // it leaves with it, or it is left for good
        member->verdict(seen.entry, bad ? ring::Verdict::reject : ring::Verdict::ack);
      }
    }
  }

  void check() {
    const auto stat = exchange::stat_document(*x_, "crash");
    check_books(stat);
    INFO(last_.dump());
    CHECK(last_["matched"] == matched_);
    CHECK(purged_);
    CHECK(last_["dead_lettered"] > 0);
    CHECK(last_["requeued"] > 0);
    std::uint64_t routed = 0;
    for (const auto& row : stat["publishers"]) {
      if (row["name"].get<std::string>().find("letters") != std::string::npos) continue;
      routed += row["routed"].get<std::uint64_t>() + row["unroutable"].get<std::uint64_t>();
      CHECK(row["in_ring"] == 0);
    }
    CHECK(routed == published_);
    for (const std::string& name : directory_->list("")) {
      CAPTURE(name);
      CHECK(!name.starts_with("sub."));
      CHECK(!name.ends_with(".tmp"));
    }
  }

  KillHook& hook_;
  OnDeath on_death_;
  std::shared_ptr<shm::MemoryDirectory> directory_ = std::make_shared<shm::MemoryDirectory>();
  std::unique_ptr<exchange::Exchange> x_;
  std::map<std::string, std::unique_ptr<CoreMember>> members_;
  std::map<std::string, std::unique_ptr<CorePublisher>> publishers_;
  std::map<std::string, std::uint64_t> member_clients_;
  std::map<std::string, std::uint64_t> publisher_clients_;
  std::set<std::pair<std::uint64_t, std::uint32_t>> attempts_;
  nlohmann::ordered_json last_;
  std::uint64_t published_ = 0;
  std::uint64_t matched_ = 0;
  bool updated_ = false;
  bool purged_ = false;
  std::uint64_t now_ns_ = 1'000'000'000;
  int deaths_ = 0;
};

}  // namespace

TEST_CASE(
    "lives: the exchange may die at any point of what clients and operators ask of it, and again in the recovery") {
  die_at_every_point<Scenario>("those who come and go", 2);
  check_named_points({shm::CrashPoint::file_write, shm::CrashPoint::attach_name, shm::CrashPoint::attach_incarnation,
                      shm::CrashPoint::detach_publisher, shm::CrashPoint::retire_publisher, shm::CrashPoint::join_ring,
                      shm::CrashPoint::join_ack_page, shm::CrashPoint::join_member, shm::CrashPoint::leave_member,
                      shm::CrashPoint::leave_ring, shm::CrashPoint::subscription_create,
                      shm::CrashPoint::subscription_define, shm::CrashPoint::subscription_remove,
                      shm::CrashPoint::purge_forget});
}

TEST_CASE("a takeover may die at any point: who takes over after it finds the same bus") {
  World world;
  auto publisher = world.publisher("p");
  auto member = world.member("s", {"#"});
  for (int i = 0; i < 5; ++i) REQUIRE(publisher.publish("a", "payload"));
  KillHook routing;
  routing.clock = &world.now_ns;
  routing.virtual_time = true;
  routing.die_before = 20;  // in the middle of a transaction
  try {
    shm::Environment::hook = &routing;
    world.run();
  } catch (const Death&) {
  }
  shm::Environment::hook = nullptr;
  REQUIRE(routing.points == 21);
  world.x.reset();
  exchange::HostOptions options;
  options.listen = false;
  std::uint64_t deaths = 0;
  for (bool died = true; died; ++deaths) {
    CAPTURE(deaths);
    const auto copy = world.directory->clone();
    KillHook hook;
    hook.clock = &world.now_ns;
    hook.virtual_time = true;
    hook.die_before = deaths;
    died = false;
    try {
      shm::Environment::hook = &hook;
      const exchange::Host host(copy, "crash", options);
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      died = true;
    }
    const exchange::Host host(copy, "crash", options);
    const auto stat = exchange::stat_document(*copy, "crash");
    check_books(stat);
    CHECK(row_of(stat, "s")["matched"].get<std::uint64_t>() + stat["publishers"][0]["in_ring"].get<std::uint64_t>() ==
          5);
    for (const std::string& name : copy->list("")) CHECK(!name.ends_with(".tmp"));
  }
  std::printf("a takeover: points %llu\n", static_cast<unsigned long long>(deaths - 1));
  CHECK(deaths > 15);
}
