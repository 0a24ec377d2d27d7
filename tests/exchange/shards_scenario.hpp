// A scenario for two shards that die: both at one point, or one of them, and the other goes on for a while before it dies,
// too, which leaves two open transactions. Whatever number of shards the bus is recovered with, the books have to be exact.
// See crash_test.cpp for the method.
//
// A shard that dies alone is one whose thread did not get to run any more before all were killed: its memory stays half
// done, and its object is not used again. What it holds, it holds for good: while it is in the middle of defining a topic
// nobody else defines one, and nothing that needs all shards to be held comes about.
#pragma once

#include <optional>
#include <set>

#include "lib/exchange/dead_letter_files.hpp"
#include "tests/exchange/enumerate.hpp"
#include "tests/exchange/shard_hook.hpp"
#include "tests/exchange/shards_world.hpp"

namespace ackring::test {

/// One shard dies alone, and the other later.
struct Partial {
  std::size_t first = 0;
  std::uint64_t at = ~std::uint64_t{0};    // point of that shard
  std::uint64_t then = ~std::uint64_t{0};  // point of the other one, counted from that death
};

class ShardsScenario {
  static constexpr int subscriptions = 5;
  static constexpr int rounds = 6;
  // By the order in which they are made shards 1, 0, 1, 0 and 1 have them; @ids, which is made first, is the lead's.
  static constexpr const char* names[subscriptions] = {"all", "tiny", "offline", "once", "watch"};

 public:
  /// Dies as a whole, wherever `hook` says. `next`: how many shards the next exchange asks for; `letters`: dead letters are
  /// published, too.
  ShardsScenario(KillHook& hook, std::size_t next, bool letters) : hook_(&hook), next_(next), letters_(letters) {
    hook.clock = &now_ns_;
    hook.virtual_time = true;
    clock_.clock = &now_ns_;
    start(2);
  }
  ShardsScenario(const Partial& partial, std::size_t next, bool letters)
      : partial_(partial), next_(next), letters_(letters) {
    clock_.clock = hooks_[0].clock = hooks_[1].clock = &now_ns_;
    hooks_[partial.first].die_before = partial.at;
    start(2);
  }
  ~ShardsScenario() { x_.reset(); }
  void on_death(OnDeath look) { on_death_ = std::move(look); }

  int run() {
    connect();
    for (round_ = 0; round_ < rounds; ++round_) {
      publish();
      turn([&](exchange::Exchange& shard) { shard.step(now_ns_); });
      consume();
      now_ns_ += 6'000'000;
      turn([&](exchange::Exchange& shard) { shard.tick(now_ns_); });
      look_after();
      if (round_ == 3) leave();
      if (round_ == 4) change_publisher();
    }
    for (int quiet = 0; round_ < rounds + 14 || (quiet < 4 && round_ < rounds + 80); ++round_) {
      drain_all();
      quiet = is_settled() ? quiet + 1 : 0;
      if (round_ == rounds + 8) operate();
      if (round_ == rounds + 11) begin_offline();
    }
    check();
    return deaths_;
  }
  /// Points of each shard, alone.
  [[nodiscard]] std::uint64_t points_of(std::size_t shard) const { return hooks_[shard].points; }
  [[nodiscard]] bool both_died() const { return both_died_; }

 private:
  void start(std::size_t shards) {
    x_.reset();
    x_ = exchange::Exchange::open(*directory_, {}, shards);
    x_->set_full_ring_grace(0);
    check_found_sound(*x_);
    holder_.calls = 0;
    if (x_->shards().size() > 1) x_->set_holder(&holder_);
  }

  void die() {
    ++deaths_;
    const std::uint64_t point = hook_ != nullptr ? hook_->die_before : partial_->at + partial_->then;
    if (point % 5 == 0) check_dead_letters();
    if (on_death_) on_death_(*directory_);
    check_sound_at(*directory_, point);
    start(next_);
  }

  // What all shards are held for; where they die one by one, none of them is in the middle of something then.
  template <class Step>
  void held(Step step) {
    try {
      shm::Environment::hook = hook_ != nullptr ? static_cast<shm::EnvironmentHook*>(hook_) : &clock_;
      const exchange::ShardHold hold(x_->peers());
      step();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      die();
    }
  }

  // One after the other; who goes first changes from round to round.
  template <class Step>
  void turn(Step step) {
    const std::size_t count = x_->shards().size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t k = (i + static_cast<std::size_t>(round_)) % count;
      const bool whole = hook_ != nullptr;
      try {
        shm::Environment::hook = whole          ? static_cast<shm::EnvironmentHook*>(hook_)
                                 : deaths_ == 0 ? &hooks_[k]
                                                : &clock_;
        step(*x_->shards()[k]);
        shm::Environment::hook = nullptr;
      } catch (const Death&) {
        shm::Environment::hook = nullptr;
        if (!whole) go_on_without(k);
        die();
        return;
      }
    }
  }

  // Clients don't know that it has died; neither does the other shard.
  void go_on_without(std::size_t dead) {
    ShardHook& hook = hooks_[1 - dead];
    hook.points = 0;
    hook.die_before = partial_->then;
    hook.no_topics = hooks_[dead].in_topic;
    exchange::Exchange& other = *x_->shards()[1 - dead];
    const std::uint64_t before_ns = now_ns_;
    try {
      for (int i = 0; i < 5; ++i) {
        if (round_ < rounds) publish();
        shm::Environment::hook = &hook;
        other.step(now_ns_);
        shm::Environment::hook = nullptr;
        consume();
        now_ns_ += 6'000'000;
        shm::Environment::hook = &hook;
        other.tick(now_ns_);
        shm::Environment::hook = nullptr;
      }
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      both_died_ = true;
    }
    now_ns_ = std::max(now_ns_, before_ns);
  }

  void look_after() {
    if (std::exchange(holder_.calls, 0) == 0) return;
    held([&] { x_->look_after_shards(now_ns_); });
  }

  void drain_all() {
    now_ns_ += 6'000'000;
    turn([&](exchange::Exchange& shard) { shard.tick(now_ns_); });
    look_after();
    for (int i = 0; i < 3; ++i) turn([&](exchange::Exchange& shard) { shard.step(now_ns_); });
    consume();
  }

  [[nodiscard]] bool is_settled() const {
    for (const auto& queue : x_->queues()) {
      if (queue && queue->role == exchange::Role::ordinary && exchange::Exchange::pending(*queue) != 0) return false;
    }
    return true;
  }

  // What a tool finds in the files of the dead bus is what its counters say.
  void check_dead_letters() {
    const auto stat = exchange::stat_document(*directory_, "crash");
    for (const char* name : {"all", "tiny"}) {
      std::uint64_t found = 0;
      exchange::walk_dead_files(*directory_, name, [&found](const ring::EventParts&) { return ++found != 0; });
      CAPTURE(name);
      CHECK(found == row_of(stat, name)["dlq_size"]);
    }
  }

  void connect() {
    const exchange::ShardHold hold(x_->peers());
    const std::uint64_t client = x_->new_client();
    SubscriptionOptions ids;
    ids.name = event_ids_name;
    ids.patterns = {"o.#"};
    x_->create_subscription(ids, false);
    for (int i = 0; i < subscriptions; ++i) {
      SubscriptionOptions options;
      options.name = names[i];
      if (i < 2 && letters_) options.dead_letter_topic = std::string("dead.") + names[i];
      options.patterns = {"#"};
      if (i == 0) options.patterns = {"a.#", "b.#", "o.#"};
      if (i == 1) options.patterns = {"a.*"};
      if (i == 4) options.patterns = {"dead.#"};
      options.ring_bytes = i == 1 ? 4096 : 16384;
      options.max_in_flight = i == 1 ? 4 : 64;
      options.ack_timeout = std::chrono::milliseconds(20);
      options.backoff_initial = std::chrono::milliseconds(i == 0 ? 0 : 8);
      options.backoff_max = std::chrono::milliseconds(16);
      options.max_deliveries = 3;
      if (i == 3) options.guarantee = Guarantee::at_most_once;
      if (i == 2) {
        x_->create_subscription(options, false);
      } else {
        members_[i].emplace(*directory_, x_->attach_member(client, options, false, {}));
      }
      CHECK(x_->find_queue(names[i])->shard == (i + 1) % 2);
    }
    for (int i = 0; i < 2; ++i)
      publishers_[i].emplace(*directory_, x_->attach_publisher(client, i == 0 ? "one" : "two", 4096));
  }

  void publish() {
    for (std::optional<CorePublisher>& publisher : publishers_) {
      if (&publisher == &publishers_[1] && changing_) continue;
      const std::size_t size = static_cast<std::size_t>(published_ % 8) * 9;
      for (const std::string& topic : {"b.x." + std::to_string(published_ / 6), std::string("a.x")}) {
        if (publisher->add(topic, std::string(size, 'p'))) ++expected_[topic == "a.x" ? 1 : 0];
      }
      // Both publish each id, and one of them twice.
      const std::string id = std::to_string(published_ / 3);
      publisher->headers = with_id(id);
      if (publisher->add("o.x", id)) ids_.insert(id);
      publisher->headers.clear();
      publisher->commit();
      ++published_;
    }
  }

  void consume() {
    for (int i = 0; i < subscriptions; ++i) {
      if (!members_[i]) continue;
      if (i == 1 && round_ < 4) continue;  // the tiny one is slow: its ring fills and its backlog is used
      CoreMember& member = *members_[i];
      if (i == 3) member.release();
      for (Seen seen; member.take(seen);) {
        record(i, seen);
        if (i == 3) {
          member.release();
        } else if (i < 2 && seen.delivery % 13 == 5) {
          member.verdict(seen.entry, ring::Verdict::reject);
        } else if (i < 2 && seen.delivery % 11 == 4) {  // poison
          member.verdict(seen.entry, ring::Verdict::nack);
        } else if (seen.attempt == 1 && seen.delivery % 7 == 3) {
          member.verdict(seen.entry, ring::Verdict::nack);
        } else if (seen.attempt == 1 && seen.delivery % 7 == 5) {
          forgotten_[i].emplace_back(seen.entry, now_ns_);
        } else {
          member.verdict(seen.entry, ring::Verdict::ack);
        }
      }
      // By now they have timed out, if their shard has come to it; some are late, then.
      std::erase_if(forgotten_[i], [&](const auto& forgotten) {
        if (now_ns_ - forgotten.second < 40'000'000) return false;
        member.verdict(forgotten.first, ring::Verdict::ack);
        return true;
      });
    }
  }

  void record(int i, const Seen& seen) {
    CHECK_MESSAGE(attempts_[i].insert({seen.delivery, seen.attempt}).second, "subscription ", names[i], " saw attempt ",
                  seen.attempt, " of delivery ", seen.delivery, " twice");
    if (seen.attempt != 1) return;
    const auto source = std::make_pair(seen.publisher, seen.sequence);
    CHECK_MESSAGE(seen.sequence > std::exchange(last_[i][seen.publisher], seen.sequence), "subscription ", names[i],
                  " saw a first delivery twice or out of order");
    ++first_[i];
    // A letter has the payload of the event that died; its publisher is the third one.
    const bool has_id = !seen.payload.empty() && seen.payload[0] != 'p' && seen.publisher != "2";
    if (!has_id) return;
    // The same event for all subscriptions, of those that bear the id.
    CHECK(chosen_.try_emplace(seen.payload, source).first->second == source);
    CHECK(seen_ids_[i].insert(source).second);
  }

  // A member leaves, and comes back.
  void leave() {
    held([&] { x_->detach_member(x_->find_queue("all")->lane); });
    exchange::Queue* queue = x_->find_queue("all");
    if (queue->lane.has_member()) held([&] { x_->detach_member(queue->lane); });
    const exchange::ShardHold hold(x_->peers());
    forgotten_[0].clear();
    SubscriptionOptions options = queue->options;
    options.patterns.clear();
    members_[0].emplace(*directory_, x_->attach_member(x_->new_client(), options, false, {}));
  }

  // A publisher leaves, its ring goes when all have read it, and its name is used again.
  void change_publisher() {
    const std::uint64_t sequence = publishers_[1]->sequence();
    changing_ = true;
    held([&] {
      exchange::Ingress* ingress = x_->find_publisher(publishers_[1]->slot(), publishers_[1]->incarnation());
      if (ingress != nullptr) x_->detach_publisher(*ingress);
    });
    for (int i = 0; i < 3; ++i) drain_all();
    const exchange::ShardHold hold(x_->peers());
    exchange::Ingress* ingress = x_->find_publisher(publishers_[1]->slot(), publishers_[1]->incarnation());
    if (ingress != nullptr) x_->detach_publisher(*ingress);
    publishers_[1].emplace(*directory_, x_->attach_publisher(x_->new_client(), "two", 4096));
    CHECK(publishers_[1]->sequence() == sequence);
    changing_ = false;
  }

  // An operator deals with the dead letters; what dies in it he does again.
  void operate() {
    for (const char* name : {"all", "tiny"}) {
      held([&] {
        (void)x_->requeue_dead(*x_->find_queue(name), {.delivery = 4}, now_ns_);
        (void)x_->purge_dead(*x_->find_queue(name), {.delivery = 5});
      });
    }
  }

  void begin_offline() {
    const exchange::ShardHold hold(x_->peers());
    SubscriptionOptions options = x_->find_queue("offline")->options;
    members_[2].emplace(*directory_, x_->attach_member(x_->new_client(), options, false, {}));
  }

  void check() {
    const auto stat = exchange::stat_document(*x_, "crash");
    check_books(stat);
    check_books(exchange::stat_document(*directory_, "crash"));
    for (const exchange::Notice& notice : x_->report()) CHECK_FALSE(notice.text.empty());
    std::uint64_t letters = 0;
    for (const char* name : {"all", "tiny"}) {
      letters += letters_ ? row_of(stat, name)["dead_lettered"].get<std::uint64_t>() : 0;
    }
    const std::uint64_t sent = expected_[0] + expected_[1] + ids_.size();
    const std::uint64_t expected[subscriptions] = {sent, expected_[1], sent + letters, sent + letters, letters};
    for (int i = 0; i < subscriptions; ++i) {
      const auto row = row_of(stat, names[i]);
      INFO("subscription ", names[i], ": ", row.dump());
      CHECK(row["matched"] == expected[i]);
      CHECK(first_[i] == expected[i]);
      const auto dead = row["dlq_size"].get<std::uint64_t>() + row["dlq_removed"].get<std::uint64_t>();
      CHECK(row["acked"].get<std::uint64_t>() + dead == expected[i]);
      CHECK((i < 2 ? dead > 0 : dead == 0));
      CHECK(row["retry_waiting"] == 0);
      CHECK(row["lag"] == 0);
      CHECK(row["queued"] == 0);
    }
    CHECK(row_of(stat, "@ids")["matched"] == ids_.size());
    std::uint64_t routed = 0;
    for (const auto& row : stat["publishers"]) {
      CHECK(row["in_ring"] == 0);
      CHECK(row["unroutable"] == 0);
      routed += row["routed"].get<std::uint64_t>();
      if (row["name"] == "@dead-letters") CHECK(row["routed"] == letters);
    }
    CHECK(routed == sent + letters);
  }

  KillHook* hook_ = nullptr;
  std::optional<Partial> partial_;
  ShardHook hooks_[2];
  ShardHook clock_;  // of those who don't die
  std::size_t next_;
  bool letters_;
  OnDeath on_death_;
  CountingHolder holder_;
  std::shared_ptr<shm::MemoryDirectory> directory_ = std::make_shared<shm::MemoryDirectory>();
  std::unique_ptr<exchange::Exchange> x_;
  std::optional<CoreMember> members_[subscriptions];
  std::optional<CorePublisher> publishers_[2];
  std::uint64_t published_ = 0;
  std::uint64_t expected_[2] = {};  // events of b.#, and of a.x
  std::set<std::string> ids_;
  std::map<std::string, std::pair<std::string, std::uint64_t>> chosen_;
  std::set<std::pair<std::string, std::uint64_t>> seen_ids_[subscriptions];
  std::map<std::string, std::uint64_t> last_[subscriptions];
  std::set<std::pair<std::uint64_t, std::uint32_t>> attempts_[subscriptions];
  std::uint64_t first_[subscriptions] = {};
  std::vector<std::pair<std::uint64_t, std::uint64_t>> forgotten_[subscriptions];
  std::uint64_t now_ns_ = 1'000'000'000;
  int round_ = 0;
  int deaths_ = 0;
  bool both_died_ = false;
  bool changing_ = false;  // the second publisher has left
};

}  // namespace ackring::test
