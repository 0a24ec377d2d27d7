// shmtool stat: counters of a bus, as tables or as JSON.
#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

std::string number(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? format_count(found->get<std::uint64_t>()) : "-";
}

std::uint64_t dropped(const nlohmann::json& subscription) {
  std::uint64_t sum = 0;
  for (const auto& count : subscription.at("dropped")) sum += count.get<std::uint64_t>();
  return sum;
}

// Have access rules kept anybody from publishing something?
bool denied(const nlohmann::json& publishers) {
  return std::any_of(publishers.begin(), publishers.end(),
                     [](const nlohmann::json& publisher) { return publisher.value("denied", 0) != 0; });
}

std::string patterns(const nlohmann::json& subscription) {
  std::string text;
  for (const auto& pattern : subscription.at("patterns"))
    text += (text.empty() ? "" : " ") + pattern.get<std::string>();
  return text;
}

// Everything about one subscription, a line per counter.
std::string one_text(const nlohmann::json& subscription) {
  Table table({"", ""});
  for (const auto& [key, value] : subscription.items()) {
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (value.is_number_unsigned()) text = format_count(value.get<std::uint64_t>());
    if (key == "patterns") text = patterns(subscription);
    table.add({key, text});
  }
  return table.text().substr(1);  // without the empty line of titles
}

int run(const Globals& globals, const std::string& name, bool json) {
  const nlohmann::json document = stat_document(globals);
  if (name.empty()) {
    print(json ? document.dump() + "\n" : stat_text(document));
    return status_done;
  }
  for (const auto& subscription : document.at("subscriptions")) {
    if (subscription.at("name") != name) continue;
    print(json ? subscription.dump() + "\n" : one_text(subscription));
    return status_done;
  }
  throw Failure(
      status_not_so,
      fmt::format("subscription '{}': bus '{}' has none of this name: see shmtool subscription ls", name, globals.bus));
}

}  // namespace

std::string stat_text(const nlohmann::json& document) {
  const auto& exchange = document.at("exchange");
  std::string text = fmt::format("bus {}: exchange {}", document.at("bus").get<std::string>(),
                                 exchange.at("state").get<std::string>());
  if (exchange.at("state") != "stopped")
    text += fmt::format(", pid {}, up {:.1f} s", exchange.at("pid").dump(), exchange.value("uptime_s", 0.0));
  if (exchange.at("shards") != 1) text += fmt::format(", {} shards", exchange.at("shards").dump());
  text += fmt::format(", generation {}\n\n", exchange.at("generation").dump());

  std::vector<std::string> titles = {"PUBLISHER",   ">COMMITTED", ">ROUTED",        ">UNROUTABLE",
                                     ">DUPLICATES", ">IN RING",   ">BACK-PRESSURED"};
  const bool any_denied = denied(document.at("publishers"));
  if (any_denied) titles.emplace_back(">DENIED");
  Table publishers(titles);
  for (const auto& publisher : document.at("publishers")) {
    const auto name = publisher.at("name").get<std::string>();
    std::vector<std::string> row = {name.empty() ? "(anonymous)" : name, number(publisher, "committed"),
                                    number(publisher, "routed"),         number(publisher, "unroutable"),
                                    number(publisher, "duplicates"),     number(publisher, "in_ring"),
                                    number(publisher, "back_pressured")};
    if (any_denied) row.push_back(number(publisher, "denied"));
    publishers.add(row);
  }
  text += publishers.text() + "\n";

  Table subscriptions({"SUBSCRIPTION", "PATTERNS", ">MEMBERS", ">MATCHED", ">DELIVERED", ">ACKED", ">QUEUED",
                       ">IN FLIGHT", ">RETRY", ">REDELIVERED", ">DROPPED", ">DEAD", ">LAG"});
  for (const auto& subscription : document.at("subscriptions")) {
    subscriptions.add({subscription.at("name"), patterns(subscription), number(subscription, "members"),
                       number(subscription, "matched"), number(subscription, "delivered"),
                       number(subscription, "acked"), number(subscription, "queued"), number(subscription, "in_flight"),
                       number(subscription, "retry_waiting"), number(subscription, "redelivered"),
                       format_count(dropped(subscription)), number(subscription, "dlq_size"),
                       number(subscription, "lag")});
  }
  return text + subscriptions.text();
}

void add_stat(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "stat", "Counters of a bus, or of one subscription",
      "Works on a bus whose exchange is dead or stalled too. All of one answer is one consistent snapshot:\n"
      "matched = acked + queued + in_flight + retry_waiting + dlq_size + dlq_removed + dropped + expired + purged.\n\n"
      "Examples:\n  shmtool stat --bus orders\n  shmtool stat billing --json | jq .lag");
  auto name = std::make_shared<std::string>();
  command.add_option("SUB", *name, "Name of a subscription");
  auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "JSON instead of tables");
  command.callback(
      [&globals, name, json] { globals.run = [&globals, name, json] { return run(globals, *name, *json); }; });
}

}  // namespace ackring::tools
