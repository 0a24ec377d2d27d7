#include "lib/control/access.hpp"

#include <doctest/doctest.h>

#include <unistd.h>

#include <bitset>
#include <chrono>
#include <string>
#include <vector>

#include "ackring/error.hpp"
#include "lib/control/pattern_cover.hpp"
#include "lib/control/topic_pattern.hpp"

using ackring::ErrorCode;
using ackring::control::AccessRule;
using ackring::control::AccessRules;
using ackring::control::covers;
using ackring::control::Identity;
using ackring::control::matches;
using ackring::control::name_matches;
using ackring::control::Permissions;

namespace {

// All texts of up to `most` of these words.
std::vector<std::string> texts_of(const std::vector<std::string>& words, std::size_t most) {
  std::vector<std::string> all(words);
  for (std::size_t begin = 0, length = 1; length < most; ++length) {
    const std::size_t end = all.size();
    for (std::size_t i = begin; i < end; ++i) {
      for (const std::string& word : words) all.push_back(all[i] + "." + word);
    }
    begin = end;
  }
  return all;
}

// Users that are neither root nor this process's.
constexpr uid_t alice = 50'001;
constexpr uid_t bob = 50'002;

AccessRule rule_of(std::vector<uid_t> uids, std::vector<gid_t> gids, std::vector<std::string> publish) {
  AccessRule rule;
  rule.uids = std::move(uids);
  rule.gids = std::move(gids);
  rule.grants.publish = std::move(publish);
  return rule;
}

template <class Call>
std::string refusal_of(Call call) {
  try {
    call();
  } catch (const ackring::Error& error) {
    CHECK(error.code() == ErrorCode::permission);
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a pattern covers another exactly when every topic that the one matches is one of the other's") {
  const std::vector<std::string> patterns = texts_of({"a", "b", "*", "#"}, 4);
  // Long enough for a topic that tells two such patterns apart: longer ones only repeat words that `#` took already.
  constexpr std::size_t most_words = 8;
  const std::vector<std::string> topics = texts_of({"a", "b", "z"}, most_words);
  using Matched = std::bitset<9840>;
  REQUIRE(topics.size() == Matched{}.size());
  std::vector<Matched> matched(patterns.size());
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    for (std::size_t j = 0; j < topics.size(); ++j) matched[i].set(j, matches(patterns[i], topics[j]));
  }
  std::size_t covered = 0;
  std::size_t wrong = 0;
  for (std::size_t outer = 0; outer < patterns.size(); ++outer) {
    for (std::size_t inner = 0; inner < patterns.size(); ++inner) {
      const bool expected = (matched[inner] & ~matched[outer]).none();
      if (covers(patterns[outer], patterns[inner]) != expected) {
        ++wrong;
        CHECK_MESSAGE(wrong > 10, patterns[outer] << " over " << patterns[inner] << " is " << expected);
      }
      if (expected) ++covered;
    }
  }
  CHECK(wrong == 0);
  CHECK(covered > patterns.size());                        // each covers itself, at least
  CHECK(covered < patterns.size() * patterns.size() / 2);  // and few cover many
}

TEST_CASE("patterns that cover each other, and some that nearly do") {
  CHECK(covers("orders.#", "orders.*.created"));
  CHECK(covers("#", "#"));
  CHECK(covers("*.#", "#"));  // a topic has at least one word
  CHECK(covers("#.*", "*.#"));
  CHECK(covers("a.#.#", "a.#"));
  CHECK(covers("orders.#", "orders"));
  CHECK_FALSE(covers("orders.*", "orders.#"));
  CHECK_FALSE(covers("orders.*", "orders"));
  CHECK_FALSE(covers("orders.*.created", "orders.#"));
  CHECK_FALSE(covers("a", "*"));
  CHECK_FALSE(covers("#.a.#", "#"));
  CHECK(covers("#.a.#", "*.*.a"));
}

TEST_CASE("patterns made to need many states end in time, and are not covered") {
  std::string outer = "#.a";
  std::string inner = "#.a";
  for (int i = 0; i < 60; ++i) {
    outer += ".*";
    inner += i % 2 == 0 ? ".#.a" : ".*";
  }
  const auto begin = std::chrono::steady_clock::now();
  (void)covers(outer, inner);
  (void)covers(inner, outer);
  // Bounded by cover_states; a search without bounds would not end before the test's own time is over.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
}

TEST_CASE("names of subscriptions: * is any run of characters, and reserved ones are meant only where written out") {
  CHECK(name_matches("billing", "billing"));
  CHECK(name_matches("orders-*", "orders-eu"));
  CHECK(name_matches("orders-*", "orders-"));
  CHECK(name_matches("*", "any.thing"));
  CHECK(name_matches("*-eu-*", "orders-eu-west-eu-1"));
  CHECK_FALSE(name_matches("billing", "billing2"));
  CHECK_FALSE(name_matches("orders-*", "orders"));
  CHECK_FALSE(name_matches("*-eu", "orders-eu-1"));
  CHECK_FALSE(name_matches("*", "@last"));
  CHECK(name_matches("@last", "@last"));
}

TEST_CASE("what a user may do is what all rules that name it grant together; who is named by none has the default") {
  AccessRules rules;
  rules.rules.push_back(rule_of({alice}, {}, {"orders.#"}));
  rules.rules.push_back(rule_of({}, {700}, {"fills.*"}));
  for (const bool deny : {false, true}) {
    rules.deny_unnamed = deny;
    const Permissions plain = rules.of({alice, 100, {}});
    CHECK(plain.may_publish("orders.eu.created"));
    CHECK_FALSE(plain.may_publish("fills.eu"));
    CHECK_FALSE(plain.may_subscribe("orders.#"));  // no rule says so
    CHECK(rules.of({alice, 700, {}}).may_publish("fills.eu"));
    CHECK(rules.of({alice, 100, {5, 700}}).may_publish("fills.eu"));
    CHECK(rules.of({alice, 100, {5, 700}}).may_publish("orders"));
    CHECK_FALSE(rules.of({bob, 700, {}}).may_publish("orders"));
    CHECK(rules.of({bob, 100, {}}).everything == !deny);
    CHECK(rules.of({bob, 100, {}}).may_publish("anything") == !deny);
    CHECK(rules.of({0, 100, {}}).everything);
    CHECK(rules.of({::geteuid(), 100, {}}).everything);
  }
  rules.rules.push_back(rule_of({}, {}, {"common.#"}));  // everybody
  CHECK(rules.of({bob, 100, {}}).may_publish("common.x"));
  CHECK_FALSE(rules.of({bob, 100, {}}).may_publish("other"));
  CHECK(AccessRules{}.of({bob, 100, {}}).everything);
}

TEST_CASE("to operate a subscription includes to join it, not the other way round") {
  Permissions may;
  may.everything = false;
  may.join = {"audit"};
  may.operate = {"billing-*"};
  CHECK(may.may_join("audit"));
  CHECK_FALSE(may.may_operate("audit"));
  CHECK(may.may_join("billing-eu"));
  CHECK(may.may_operate("billing-eu"));
  CHECK_FALSE(may.may_join("other"));
}

TEST_CASE("a refusal says what is refused to whom, and what is allowed") {
  Permissions may;
  may.everything = false;
  may.subscribe = {"fills.*", "prices.#"};
  const Identity who{alice, 100, {}};
  const std::string text = refusal_of([&] { may.require_subscribe(who, {"prices.eu", "orders.#"}); });
  for (const char* part : {"orders.#", "50001", "subscribe", "fills.*, prices.#"}) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  }
  CHECK(refusal_of([&] { may.require_publish(who, "orders.x"); }).find("topic 'orders.x'") == 0);
  CHECK(refusal_of([&] { may.require_join(who, "s"); }).find("subscription 's'") == 0);
  CHECK(refusal_of([&] { may.require_operate(who, "s"); }).find("subscription 's'") == 0);
  CHECK(refusal_of([&] { may.require_subscribe(who, {"fills.a"}); }).empty());
}
