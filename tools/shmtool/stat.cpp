// shmtool stat: counters of a bus, as tables or as JSON.
#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <vector>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/stat_watch.hpp"
#include "tools/shmtool/subscription_text.hpp"
#include "tools/shmtool/top_text.hpp"

namespace ackring::tools {
namespace {

std::string number(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? format_count(found->get<std::uint64_t>()) : "-";
}

// Of a look of --watch: a counter's change per second.
std::string rate(const nlohmann::json& subscription, const char* counter) {
  const auto& per_s = subscription.at("per_s").at(counter);
  if (!per_s.is_number()) return "-";
  const double value = per_s.get<double>();
  return value == 0 || value >= 100 ? format_count(static_cast<std::uint64_t>(std::llround(value)))
                                    : fmt::format("{:.1f}", value);
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

// `-` where there is none; an operator's order shows, whatever the breakers make of it.
std::string breaker_column(const nlohmann::json& subscription) {
  if (!has_breaker(subscription)) return "-";
  const auto& breaker = subscription.at("breaker");
  const auto state = breaker.at("state").get<std::string>();
  if (breaker.at("order") == "auto") return state;
  return fmt::format("{} (ordered {})", state, breaker.at("order").get<std::string>());
}

std::string patterns(const nlohmann::json& subscription) {
  std::string text;
  for (const auto& pattern : subscription.at("patterns"))
    text += (text.empty() ? "" : " ") + pattern.get<std::string>();
  return text;
}

// Everything about one subscription, a line per counter, and what there is to tell of its members.
std::string one_text(const nlohmann::json& subscription) {
  Table table({"", ""});
  const std::uint64_t now_ns = monotonic_ns();
  for (const auto& [key, value] : subscription.items()) {
    if (key == "per_s") continue;
    if (value.is_structured()) {
      for (const auto& [title, text] : lines_of(subscription, key, now_ns)) table.add({title, text});
      continue;
    }
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (value.is_number_unsigned()) text = format_count(value.get<std::uint64_t>());
    if (key == "oldest_monotonic_ns") {  // nobody reads a clock that began at some start of the machine
      const auto since_ns = value.get<std::uint64_t>();
      table.add({"oldest", since_ns == 0 || since_ns > now_ns ? "-" : compact_time(now_ns - since_ns)});
      continue;
    }
    table.add({key, text});
  }
  for (const char* counter : rate_counters) {
    if (subscription.contains("per_s")) table.add({std::string(counter) + "/s", rate(subscription, counter)});
  }
  return table.text().substr(1);  // without the empty line of titles
}

struct StatOptions {
  std::string name;
  bool json = false;
  bool watched = false;
  Nanoseconds interval = std::chrono::seconds(1);
  std::uint64_t count = 0;  // 0: no limit
};

// What is printed of the document.
std::string text_of(const nlohmann::json& document, const Globals& globals, const StatOptions& options) {
  if (options.name.empty()) return options.json ? document.dump() + "\n" : stat_text(document);
  for (const auto& subscription : document.at("subscriptions")) {
    if (subscription.at("name") != options.name) continue;
    return options.json ? subscription.dump() + "\n" : one_text(subscription);
  }
  throw Failure(status_not_so,
                fmt::format("subscription '{}': bus '{}' has none of this name: see shmtool subscription ls",
                            options.name, globals.bus));
}

int run(const Globals& globals, const StatOptions& options) {
  if (!options.watched) {
    print(text_of(stat_document(globals), globals, options));
    return status_done;
  }
  catch_stop_signals();
  StatRates rates;
  return watch(options.interval, options.count, [&] {
    nlohmann::json document = stat_document(globals);
    rates.add_to(document, monotonic_ns());
    const std::string text = text_of(document, globals, options);
    return options.json ? text : format_time(realtime_ns()) + "  " + text + "\n";
  });
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

  std::vector<std::string> columns = {"SUBSCRIPTION", "PATTERNS", ">MEMBERS",   ">MATCHED", ">DELIVERED",
                                      ">ACKED",       ">QUEUED",  ">IN FLIGHT", ">RETRY",   ">REDELIVERED",
                                      ">DROPPED",     ">DEAD",    ">LAG"};
  const auto& all = document.at("subscriptions");
  const bool watched = std::any_of(all.begin(), all.end(), [](const auto& one) { return one.contains("per_s"); });
  if (watched) columns.insert(columns.end(), {">MATCHED/s", ">DELIVERED/s", ">ACKED/s", ">NACKED/s"});
  const bool any_breaker = std::any_of(all.begin(), all.end(), has_breaker);
  if (any_breaker) columns.emplace_back("BREAKER");
  Table subscriptions(columns);
  for (const auto& subscription : all) {
    std::vector<std::string> row = {subscription.at("name"),
                                    patterns(subscription),
                                    number(subscription, "members"),
                                    number(subscription, "matched"),
                                    number(subscription, "delivered"),
                                    number(subscription, "acked"),
                                    number(subscription, "queued"),
                                    number(subscription, "in_flight"),
                                    number(subscription, "retry_waiting"),
                                    number(subscription, "redelivered"),
                                    format_count(dropped(subscription)),
                                    number(subscription, "dlq_size"),
                                    number(subscription, "lag")};
    for (const char* counter : rate_counters) {
      if (watched) row.push_back(rate(subscription, counter));
    }
    if (any_breaker) row.push_back(breaker_column(subscription));
    subscriptions.add(row);
  }
  return text + subscriptions.text();
}

void add_stat(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "stat", "Counters of a bus, or of one subscription",
      "Works on a bus whose exchange is dead or stalled too. All of one answer is one consistent snapshot:\n"
      "matched = acked + queued + in_flight + retry_waiting + dlq_size + dlq_removed + dropped + expired + purged.\n\n"
      "--watch adds what was matched, delivered, acked and nacked per second since the look before; with --json, a "
      "document "
      "per\nline, where each subscription has `per_s`. SUB goes before --watch, or --watch has its interval.\n\n"
      "Examples:\n  shmtool stat --bus orders\n  shmtool stat billing --json | jq .lag\n  shmtool stat --watch 2s");
  auto options = std::make_shared<StatOptions>();
  command.add_option("SUB", options->name, "Name of a subscription");
  command.add_flag("--json", options->json, "JSON instead of tables");
  auto* watched = command
                      .add_option_function<std::vector<std::string>>(
                          "--watch",
                          [options = options.get()](const std::vector<std::string>& texts) {
                            options->watched = true;
                            if (texts.empty() || texts.front().empty()) return;
                            try {
                              options->interval = parse_duration(texts.front());
                            } catch (const std::invalid_argument& error) {
                              throw CLI::ValidationError("--watch", error.what());
                            }
                            if (options->interval > Nanoseconds{0}) return;
                            throw CLI::ValidationError("--watch", "the time between two looks is 0: write 1s or so");
                          },
                          "Look again and again, this often (1s), until a signal or a closed pipe ends it")
                      ->type_name("[DURATION]")
                      ->expected(0, 1);
  command.add_option("--count", options->count, "End after this many looks")
      ->check(above_zero())
      ->default_str("no limit")
      ->needs(watched);
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
