#include "tools/exchange/config_file.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "lib/control/subscription_codec.hpp"
#include "tools/common/program.hpp"

using namespace ackring;
using tools::Arguments;
using tools::ConfigFile;
using tools::parse_config;
using tools::Settings;
using tools::settings_of;

TEST_CASE("a file of settings: every key where it belongs, spelled as flags are or with underscores") {
  const ConfigFile file = parse_config(R"(
bus = "orders"
dir = "/dev/shm/x"
cpu = [1, 3]
shards = 2
wait = "park"
socket-group = "root"
socket_mode = "0660"
access = "/etc/access.toml"
metrics = "127.0.0.1:9464"
[log]
level = "debug"
format = "json"
file = "/tmp/log"
)",
                                       "x.toml");
  REQUIRE(file.errors.empty());
  const Settings settings = settings_of({}, file);
  CHECK(settings.bus == "orders");
  CHECK(settings.directory == "/dev/shm/x");
  CHECK(settings.cpus == std::vector<int>{1, 3});
  CHECK(settings.shards == 2);
  CHECK(settings.wait == Wait::park);
  CHECK(settings.socket_group == 0);
  CHECK(settings.socket_mode == 0660);
  CHECK(settings.access == "/etc/access.toml");
  CHECK(settings.metrics == "127.0.0.1:9464");
  CHECK(settings.log == tools::LogSettings{spdlog::level::debug, tools::LogFormat::json, "/tmp/log"});
}

TEST_CASE("what was given as an argument is not the file's") {
  Arguments arguments;
  arguments.settings.bus = "mine";
  arguments.settings.log.level = spdlog::level::err;
  arguments.given = {"bus", "log.level", "access"};
  const ConfigFile file = parse_config(
      "bus = \"theirs\"\nshards = 3\nlog.level = \"debug\"\nlog.format = \"json\"\n[access]\ndefault = \"deny\"",
      "x.toml");
  REQUIRE(file.errors.empty());
  const Settings settings = settings_of(arguments, file);
  CHECK(settings.bus == "mine");
  CHECK(settings.shards == 3);
  CHECK(settings.log.level == spdlog::level::err);
  CHECK(settings.log.format == tools::LogFormat::json);
  CHECK_FALSE(settings.access_rules.has_value());
  CHECK(settings_of({}, file).access_rules.value().deny_unnamed);
}

TEST_CASE("subscriptions: all options of shmtool subscription create; what keeps last values comes first") {
  const ConfigFile file = parse_config(R"(
[[subscription]]
name = "billing"
patterns = ["orders.#", "refunds.*"]
guarantee = "at-least-once"
from = "last"
ack-timeout = "5s"
max_deliveries = 7
backoff = "1s:1m:3"
jitter = 0.5
retry_delays = ["1s", "10s"]
ttl = "1h"
dead_letter_expired = true
dead_letter_topic = "dead.billing"
max_dead = "1MiB"
max_events = 1000
max_bytes = "2MiB"
overflow = "dead-letter"
group = true
ordered = false
ordered_by_key = true
max_in_flight = 64
ring = "64KiB"
update = true

[[subscription]]
name = "@last"
patterns = "#"
)",
                                       "x.toml");
  REQUIRE(file.errors == std::vector<std::string>{});
  REQUIRE(file.subscriptions.size() == 2);
  CHECK(file.subscriptions[0].options.name == "@last");
  CHECK_FALSE(file.subscriptions[0].update);
  CHECK(file.subscriptions[0].given.empty());
  const tools::DeclaredSubscription& billing = file.subscriptions[1];
  const SubscriptionOptions& options = billing.options;
  CHECK(billing.where == "x.toml:2");
  CHECK(billing.update);
  CHECK(options.patterns == std::vector<std::string>{"orders.#", "refunds.*"});
  CHECK(options.from == StartFrom::last_values);
  CHECK(options.ack_timeout == std::chrono::seconds(5));
  CHECK(options.max_deliveries == 7);
  CHECK(options.backoff_initial == std::chrono::seconds(1));
  CHECK(options.backoff_max == std::chrono::minutes(1));
  CHECK(options.backoff_multiplier == 3);
  CHECK(options.jitter == 0.5);
  CHECK(options.retry_delays == std::vector<Nanoseconds>{std::chrono::seconds(1), std::chrono::seconds(10)});
  CHECK(options.ttl == std::chrono::hours(1));
  CHECK(options.dead_letter_expired);
  CHECK(options.dead_letter_topic == "dead.billing");
  CHECK(options.max_dead_bytes == 1u << 20);
  CHECK(options.max_events == 1000);
  CHECK(options.max_bytes == 2u << 20);
  CHECK(options.overflow == Overflow::dead_letter);
  CHECK(options.group);
  CHECK_FALSE(options.ordered);
  CHECK(options.ordered_by_key);
  CHECK(options.max_in_flight == 64);
  CHECK(options.ring_bytes == 64u << 10);
  // Every option of a definition is given, but for `from`, which means nothing to one that is there.
  CHECK(billing.given.size() == control::options_to_json(options).size() - 1);
  for (const std::string& name : billing.given) CHECK_MESSAGE(control::options_to_json(options).contains(name), name);
}

TEST_CASE("what is wrong is said with file, line and key, and what to write") {
  struct Bad {
    std::string text;
    std::vector<std::string> says;
  };
  const std::string sub = "[[subscription]]\nname = \"s\"\npatterns = [\"#\"]\n";
  for (const Bad& bad : {
           Bad{"bus = 5", {"x.toml:1: key 'bus': it is no text: write it in quotes"}},
           Bad{"bus = \"a/b\"", {"x.toml:1: key 'bus': "}},
           Bad{"\nbuss = \"x\"", {"x.toml:2: key 'buss': there is no such key: use bus, dir"}},
           Bad{"dir = \"\"", {"x.toml:1: key 'dir': it is empty"}},
           Bad{"cpu = [1, -1]", {"x.toml:1: key 'cpu': '1,-1' is no list of cores"}},
           Bad{"cpu = [\"a\"]", {"x.toml:1: key 'cpu': "}},
           Bad{"shards = 9", {"x.toml:1: key 'shards': '9' is no number of shards: write 1 to 4"}},
           Bad{"wait = \"sometimes\"", {"x.toml:1: key 'wait': ", "choose spin, adaptive or park"}},
           Bad{"socket_mode = 660", {"x.toml:1: key 'socket_mode': it is no text"}},
           Bad{"socket_mode = \"999\"", {"x.toml:1: key 'socket_mode': '999' is not a mode"}},
           Bad{"socket_group = \"no such\"", {"x.toml:1: key 'socket_group': "}},
           Bad{"metrics = \"9464\"", {"x.toml:1: key 'metrics': '9464' is no address with a port"}},
           Bad{"metrics = \"localhost:9464\"", {"key 'metrics'"}},
           Bad{"metrics = \"127.0.0.1:70000\"", {"key 'metrics'"}},
           Bad{"metrics = \"::1:9464\"", {"key 'metrics'"}},
           Bad{"[log]\nlevel = \"loud\"", {"x.toml:2: key 'log.level': 'loud' is not a level: choose trace"}},
           Bad{"[log]\ncolour = true",
               {"x.toml:2: key 'log.colour': there is no such key: use level, format and file"}},
           Bad{"log = 5", {"x.toml:1: key 'log': "}},
           Bad{"[access]\ndefault = 5", {"x.toml:2: key 'access.default': it is neither of two words"}},
           Bad{"access = 5", {"x.toml:1: key 'access': "}},
           Bad{"bus = ", {"x.toml:1: no TOML: "}},
           Bad{"subscription = 5", {"x.toml:1: key 'subscription': it is no list of tables"}},
           Bad{"[[subscription]]\npatterns = [\"#\"]", {"x.toml:1: key 'name': it is missing"}},
           Bad{"[[subscription]]\nname = \"s\"", {"x.toml:1: key 'patterns': it is missing"}},
           Bad{"[[subscription]]\nname = \"a/b\"\npatterns = \"#\"", {"x.toml:2: key 'name': "}},
           Bad{"[[subscription]]\nname = \"s\"\npatterns = [\"ok\",\n\"a..b\"]", {"x.toml:4: key 'patterns': 'a..b'"}},
           Bad{"[[subscription]]\nname = \"s\"\npatterns = []", {"x.toml:3: key 'patterns': the list is empty"}},
           Bad{sub + sub, {"x.toml:5: key 'name': 's' is the name of an earlier one"}},
           Bad{sub + "colour = 1",
               {"x.toml:4: key 'colour': a subscription has no such key: use name, patterns", "ttl"}},
           Bad{sub + "help = true", {"x.toml:4: key 'help': a subscription has no such key"}},
           Bad{sub + "update = 1", {"x.toml:4: key 'update': it is neither true nor false"}},
           Bad{sub + "group = \"yes\"", {"x.toml:4: key 'group': it is neither true nor false"}},
           Bad{sub + "ttl = true", {"x.toml:4: key 'ttl': it is neither text nor number"}},
           Bad{sub + "ttl = [1]", {"x.toml:4: key 'ttl': it is neither text nor number"}},
           Bad{sub + "ttl = \"5x\"", {"x.toml:4: key 'ttl': '5x' has the unknown unit"}},
           Bad{sub + "ack_timeout = \"1us\"",
               {"x.toml:4: key 'ack_timeout': 1000 ns is too short: give at least 1 ms"}},
           Bad{sub + "ring = 5000", {"x.toml:4: key 'ring': 5000 is not a power of two"}},
           Bad{sub + "max_deliveries = 0", {"x.toml:4: key 'max_deliveries': 0 is out of limits"}},
           Bad{sub + "max_deliveries = -1", {"x.toml:4: key 'max_deliveries': "}},
           Bad{sub + "ordered = true\nguarantee = \"at-most-once\"", {"x.toml:1: key 'subscription': what is settled"}},
       }) {
    const ConfigFile file = parse_config(bad.text, "x.toml");
    REQUIRE_MESSAGE(file.errors.size() == 1, bad.text);
    for (const std::string& part : bad.says) {
      CHECK_MESSAGE(file.errors[0].find(part) != std::string::npos, file.errors[0]);
    }
    CHECK(file.errors[0].find('\n') == std::string::npos);
  }
}

TEST_CASE("all that is wrong is said") {
  const ConfigFile file =
      parse_config("bus = 1\nnothing = 2\n[[subscription]]\nname = \"s\"\nttl = \"x\"\nring = 1\n", "x.toml");
  REQUIRE(file.errors.size() == 5);                               // the patterns are missing, too
  CHECK(std::is_sorted(file.errors.begin(), file.errors.end()));  // by lines, which have one digit here
  CHECK(file.subscriptions.empty());
}
