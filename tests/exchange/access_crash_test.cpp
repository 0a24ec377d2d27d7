// The exchange dies at every point of a scenario in which some topics are denied to their publisher, and comes
// back, in one of the two cases with narrower rules. Nothing denied is ever delivered; what is allowed comes once and in
// order; each event is counted as routed or as denied, never as both. See crash_test.cpp for the method.
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"
#include "tests/exchange/soundness.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr uid_t alice = 50'001;
constexpr std::uint64_t rounds = 60;

control::AccessRules rules_of(std::vector<std::string> publish) {
  control::AccessRules rules;
  rules.deny_unnamed = true;
  control::AccessRule rule;
  rule.uids = {alice};
  rule.grants.publish = std::move(publish);
  rules.rules.push_back(rule);
  return rules;
}

control::AccessRules first_rules() { return rules_of({"orders.#", "fills.*"}); }
control::AccessRules narrower_rules() { return rules_of({"orders.#"}); }

template <bool narrows>
class Scenario {
 public:
  explicit Scenario(KillHook& hook) : hook_(hook) {
    hook_.clock = &world_.now_ns;
    start();
  }
  Scenario(const Scenario&) = delete;
  Scenario& operator=(const Scenario&) = delete;

  int run() {
    member_ = std::make_unique<CoreMember>(world_.member("s", {"#"}));
    publisher_ = std::make_unique<CorePublisher>(
        *world_.directory, world_.x->attach_publisher(world_.client, "p", 64 << 10, {alice, 100, {}}));
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      // Topics come up all the time: some are new just when the exchange dies.
      for (const char* first : {"orders.", "secret.", "fills."}) {
        REQUIRE(publisher_->add(first + std::to_string(round / 4), first + std::to_string(round)));
      }
      publisher_->commit();
      guarded([&] { world_.run(); });
      world_.run();
      take();
    }
    check();
    return deaths_;
  }
  void on_death(OnDeath look) { on_death_ = std::move(look); }

 private:
  template <class Step>
  void guarded(Step step) {
    if (deaths_ == 0) shm::Environment::hook = &hook_;
    try {
      step();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      ++deaths_;
      check_books(exchange::stat_document(*world_.directory, "crash"));
      check_sound_at(*world_.directory, hook_.die_before);
      if (on_death_) on_death_(*world_.directory);
      start();
    }
  }

  void start() {
    const bool narrower = narrows && deaths_ > 0;
    world_.x.reset();
    world_.x = std::make_unique<exchange::Exchange>(*world_.directory, narrower ? narrower_rules() : first_rules());
    world_.x->set_full_ring_grace(0);
    check_found_sound(*world_.x);
  }

  void take() {
    for (Seen seen; member_->take(seen);) {
      const std::size_t dot = seen.payload.find('.');
      std::uint64_t& last = last_[seen.payload.substr(0, dot)];
      CHECK(std::stoull(seen.payload.substr(dot + 1)) == ++last);
      member_->verdict(seen.entry, ring::Verdict::ack);
      ++taken_;
    }
  }

  void check() {
    CHECK(last_["orders"] == rounds);
    CHECK(!last_.contains("secret"));
    if (!narrows) CHECK(last_["fills"] == rounds);
    const auto row = world_.stat()["publishers"].at(0);
    CHECK(row["routed"] == taken_);
    CHECK(row["denied"] == 3 * rounds - taken_);
    CHECK(row["in_ring"] == 0);
    CHECK(row["duplicates"] == 0);
    CHECK(row["discarded"] == 0);
  }

  World world_;
  KillHook& hook_;
  OnDeath on_death_;
  int deaths_ = 0;
  std::unique_ptr<CoreMember> member_;
  std::unique_ptr<CorePublisher> publisher_;
  std::map<std::string, std::uint64_t> last_;  // by first word of the topic: number of the last event taken
  std::uint64_t taken_ = 0;
};

}  // namespace

TEST_CASE("any point: denied topics stay denied, and every event of them is counted once") {
  die_at_every_point<Scenario<false>>("denied topics", 9, first_rules());
}

TEST_CASE("any point: with narrower rules after it, each event is routed or denied, and none is both") {
  die_at_every_point<Scenario<true>>("topics withdrawn", 9, narrower_rules());
}
