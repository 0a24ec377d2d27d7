#include "tools/exchange/access_file.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tools/common/program.hpp"

using ackring::control::AccessRules;
using ackring::tools::parse_access_rules;
using ackring::tools::read_access_file;

namespace {

// Status and message of what refuses it.
std::string refusal(const std::string& text) {
  try {
    (void)parse_access_rules(text, "access.toml");
  } catch (const ackring::tools::Failure& failure) {
    CHECK(failure.status() == ackring::tools::status_usage);
    return failure.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a file of rules: names and numbers, lists and single ones, each key where it belongs") {
  const AccessRules rules = parse_access_rules(R"(
# Who may do what.
default = "allow"

[[rule]]
uid = ["root", 1001]
publish = ["orders.#"]
subscribe = ["fills.*", "prices.#"]
join = "audit"
operate = ["billing", "orders-*", "@last"]

[[rule]]
gid = 0
publish = "common.*"
)",
                                               "access.toml");
  CHECK_FALSE(rules.deny_unnamed);
  REQUIRE(rules.rules.size() == 2);
  CHECK(rules.rules[0].uids == std::vector<uid_t>{0, 1001});
  CHECK(rules.rules[0].gids.empty());
  CHECK(rules.rules[0].grants.publish == std::vector<std::string>{"orders.#"});
  CHECK(rules.rules[0].grants.subscribe == std::vector<std::string>{"fills.*", "prices.#"});
  CHECK(rules.rules[0].grants.join == std::vector<std::string>{"audit"});
  CHECK(rules.rules[0].grants.operate == std::vector<std::string>{"billing", "orders-*", "@last"});
  CHECK(rules.rules[1].gids == std::vector<gid_t>{0});
  CHECK(rules.rules[1].grants.publish == std::vector<std::string>{"common.*"});
  CHECK(parse_access_rules("", "empty").deny_unnamed);  // a file of rules allows what it says, and nothing else
}

TEST_CASE("what is no rule is refused with file, line and key, and what is allowed") {
  struct Bad {
    std::string text;
    std::vector<std::string> says;
  };
  for (const Bad& bad : {
           Bad{"default = \"maybe\"", {"access.toml:1: default:", "\"allow\" or \"deny\""}},
           Bad{"default = 5", {"access.toml:1: default:"}},
           Bad{"\ndefaults = \"deny\"", {"access.toml:2: defaults:", "no such key", "[[rule]]"}},
           Bad{"rule = 5", {"access.toml:1: rule:", "[[rule]]"}},
           Bad{"rule = [5]", {"access.toml:1: rule:", "[[rule]]"}},
           Bad{"[[rule]]\nuser = [\"root\"]",
               {"access.toml:2: user:", "uid, gid, publish, subscribe, join and operate"}},
           Bad{"[[rule]]\nuid = [\"no such user\"]", {"access.toml:2: uid:", "'no such user' is no user here"}},
           Bad{"[[rule]]\ngid = [\"no such group\"]", {"access.toml:2: gid:", "is no group here"}},
           Bad{"[[rule]]\nuid = [-1]", {"access.toml:2: uid:", "-1 is out of limits"}},
           Bad{"[[rule]]\nuid = [4294967295]", {"access.toml:2: uid:", "out of limits"}},
           Bad{"[[rule]]\nuid = [1.5]", {"access.toml:2: uid:", "neither a name nor a number"}},
           Bad{"[[rule]]\nuid = []", {"access.toml:2: uid:", "empty"}},  // not: everybody
           Bad{"[[rule]]\npublish = [\"ok\",\n  \"a..b\"]", {"access.toml:3: publish:", "a..b", "no empty words"}},
           Bad{"[[rule]]\nsubscribe = [5]", {"access.toml:2: subscribe:", "no text"}},
           Bad{"[[rule]]\noperate = [\"a b\"]", {"access.toml:2: operate:", "a b"}},
           Bad{"[[rule]]\njoin = [\"@\"]", {"access.toml:2: join:"}},
           Bad{"default = \"allow\"\n[[rule]]\npublish = \"#\"", {"access.toml:1: default:", "names everybody"}},
           Bad{"[[rule]]\npublish = [", {"access.toml:", "TOML:"}},
       }) {
    const std::string message = refusal(bad.text);
    for (const std::string& part : bad.says) CHECK_MESSAGE(message.find(part) != std::string::npos, message);
  }
  std::string many = "[[rule]]\npublish = [";
  for (int i = 0; i < 300; ++i) many += "\"" + std::string(200, 'a') + std::to_string(i) + "\",\n";
  CHECK(refusal(many + "]").find("publish: the patterns of all rules have") != std::string::npos);
}

TEST_CASE("a file that others could change is no file of rules") {
  const std::string path = std::filesystem::temp_directory_path() / ("access-" + std::to_string(::getpid()) + ".toml");
  const auto refusal_of_file = [&path]() -> std::string {
    try {
      (void)read_access_file(path);
    } catch (const ackring::tools::Failure& failure) {
      CHECK(failure.status() == ackring::tools::status_refused);
      return failure.what();
    }
    return "accepted";
  };
  std::filesystem::remove(path);
  CHECK(refusal_of_file().find(path + ": can't open it") == 0);
  std::ofstream(path) << "[[rule]]\npublish = \"#\"\n";
  REQUIRE(::chmod(path.c_str(), 0644) == 0);
  CHECK(refusal_of_file() == "accepted");
  for (const mode_t mode : {mode_t{0664}, mode_t{0646}}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    CHECK(refusal_of_file().find("others change it") != std::string::npos);
  }
  std::filesystem::remove(path);
  CHECK(refusal_of_file() != "accepted");
}
