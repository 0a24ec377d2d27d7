// Access rules as the exchange itself holds publishers to them: a client that skips the check of the library is one here.
#include <tuple>

#include "ackring/error.hpp"
#include "tests/exchange/core_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr uid_t alice = 50'001;
constexpr uid_t bob = 50'002;
constexpr gid_t traders = 700;

control::AccessRules rules_of(std::vector<std::string> publish, std::vector<gid_t> gids = {}) {
  control::AccessRules rules;
  rules.deny_unnamed = true;
  control::AccessRule rule;
  if (gids.empty()) rule.uids = {alice};
  rule.gids = std::move(gids);
  rule.grants.publish = std::move(publish);
  rules.rules.push_back(rule);
  return rules;
}

struct RuledWorld : World {
  explicit RuledWorld(const control::AccessRules& rules) { restart_with(rules); }
  void restart_with(const control::AccessRules& rules) {
    x.reset();
    x = std::make_unique<exchange::Exchange>(*directory, rules);
  }
  CorePublisher publisher_of(const control::Identity& owner, const std::string& name = "p") {
    publishing = x->new_client();
    return {*directory, x->attach_publisher(publishing, name, 64 << 10, owner)};
  }
  std::uint64_t publishing = 0;  // client of the last publisher
  nlohmann::ordered_json publisher_row(std::size_t index = 0) { return stat()["publishers"].at(index); }
  std::string taken_by(CoreMember& member) {
    std::string all;
    for (Seen seen; member.take(seen);) all += seen.payload;
    return all;
  }
};

const control::Identity plain_alice{alice, 100, {}};

}  // namespace

TEST_CASE("events of a topic that is not for their publisher are counted as denied, and go nowhere") {
  RuledWorld world(rules_of({"orders.#"}));
  auto member = world.member("s", {"#"});
  auto publisher = world.publisher_of(plain_alice);
  for (const char* event : {"1", "2", "3"}) {
    publisher.publish("orders.eu", event);
    publisher.publish("secret", "x");
  }
  world.run();
  CHECK(world.taken_by(member) == "123");
  auto row = world.publisher_row();
  CHECK(row["routed"] == 3);
  CHECK(row["denied"] == 3);
  CHECK(row["discarded"] == 0);
  CHECK(world.x->topics().count() == 1);  // nobody fills the table with topics that are not for him

  world.restart_with(rules_of({"orders.#"}));
  publisher.publish("secret", "x");      // defined before
  publisher.publish("secret.two", "x");  // and one that is new
  publisher.publish("orders.us", "4");
  world.run();
  CHECK(world.taken_by(member) == "4");
  row = world.publisher_row();
  CHECK(row["routed"] == 4);
  CHECK(row["denied"] == 5);
}

TEST_CASE(
    "after a restart with narrower rules, what was defined before is denied, too; with wider ones, what comes anew") {
  RuledWorld world(rules_of({"orders.#", "fills.#"}));
  auto member = world.member("s", {"#"});
  auto publisher = world.publisher_of(plain_alice);
  publisher.publish("fills.eu", "1");
  publisher.publish("orders.eu", "2");
  world.run();
  publisher.publish("fills.eu", "x");  // not routed yet when the rules change
  world.restart_with(rules_of({"orders.#"}));
  publisher.publish("fills.eu", "x");
  publisher.publish("orders.eu", "3");
  world.run();
  CHECK(world.taken_by(member) == "123");
  CHECK(world.publisher_row()["denied"] == 2);
  CHECK(world.x->find_publisher(publisher.slot(), publisher.incarnation())->withdrawn_topic == "fills.eu");

  world.restart_with(rules_of({"#"}));
  publisher.publish("fills.eu", "x");  // this ring's number for it leads nowhere
  publisher.publish("fills.us", "4");
  world.run();
  CHECK(world.taken_by(member) == "4");
  CHECK(world.publisher_row()["denied"] == 3);
}

TEST_CASE("whose ring it is outlives exchange and client, groups included") {
  for (const bool member_of_group : {true, false}) {
    RuledWorld world(rules_of({"orders.#"}, {traders}));
    auto member = world.member("s", {"#"});
    const control::Identity owner{bob, 100, {5, member_of_group ? traders : traders + 1}};
    auto publisher = world.publisher_of(owner);
    publisher.publish("orders.eu", "1");
    world.x->client_gone(world.publishing);  // and X after it, before it looked at the ring
    world.restart_with(rules_of({"orders.#"}, {traders}));
    world.run();
    CHECK(world.taken_by(member) == (member_of_group ? "1" : ""));
    CHECK(world.publisher_row()["denied"] == (member_of_group ? 0 : 1));
  }
}

TEST_CASE("the user of every client that holds something is known after a restart") {
  RuledWorld world(rules_of({"#"}));
  const std::uint64_t publishing = world.x->new_client();
  const std::uint64_t subscribed = world.x->new_client();
  std::ignore = world.x->attach_publisher(publishing, "p", 64 << 10, plain_alice);
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  std::ignore = world.x->attach_member(subscribed, options, false, {}, {bob, 100, {}});
  for (int i = 0; i < 2; ++i) {
    const auto holders = world.x->holders();
    CHECK(holders.at(publishing) == alice);
    CHECK(holders.at(subscribed) == bob);
    world.restart_with(rules_of({"#"}));
  }
}

TEST_CASE("the name of a publisher is its user's, where rules hold") {
  RuledWorld world(rules_of({"#"}));
  world.publisher_of(plain_alice, "gateway");
  world.x->client_gone(world.publishing);
  world.run();
  world.restart_with(rules_of({"#"}));
  world.tick();
  try {
    world.publisher_of({bob, 100, {}}, "gateway");
    FAIL("another user got it");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::permission);
    CHECK(std::string(error.what()).find("50001") != std::string::npos);
  }
  CHECK_NOTHROW(world.publisher_of(plain_alice, "gateway"));
  world.x->client_gone(world.publishing);
  world.restart_with({});  // without rules, everybody may do everything
  world.tick();
  CHECK_NOTHROW(world.publisher_of({bob, 100, {}}, "gateway"));
}

TEST_CASE("rules can be replaced while the exchange runs") {
  RuledWorld world(control::AccessRules{});
  auto member = world.member("s", {"#"});
  auto publisher = world.publisher_of(plain_alice);
  publisher.publish("fills.eu", "1");
  publisher.publish("orders.eu", "2");
  world.run();
  world.x->set_access(rules_of({"orders.#"}));
  publisher.publish("fills.eu", "x");
  publisher.publish("fills.us", "x");
  publisher.publish("orders.eu", "3");
  world.run();
  CHECK(world.taken_by(member) == "123");
  CHECK(world.publisher_row()["denied"] == 2);
}
