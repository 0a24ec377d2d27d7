// shmtool explain: where an event of a subscription is, and why.
#include <map>
#include <memory>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/event_id.hpp"

namespace ackring::tools {
namespace {

struct ExplainOptions {
  std::string name;
  EventSelection which;
  bool json = false;
};

std::string event_id(const nlohmann::json& event) {
  const auto publisher = event.at("publisher").get<std::string>();
  return (publisher.empty() ? "(anonymous)" : publisher) + "/" + event.at("sequence").dump();
}

// The moment, and how far it is from now.
std::string moment_text(std::uint64_t unix_ns) {
  const auto distance = static_cast<std::int64_t>(unix_ns - realtime_ns());
  const std::string span = format_duration(static_cast<double>(distance < 0 ? -distance : distance));
  return format_time(unix_ns) + (distance < 0 ? " (" + span + " ago)" : " (in " + span + ")");
}

std::string member_text(const nlohmann::json& member) {
  std::string text;
  if (member.contains("number")) text += "number " + member.at("number").dump() + ": ";
  if (member.contains("name")) text += member.at("name").get<std::string>() + ", ";
  if (member.contains("pid")) text += "pid " + member.at("pid").dump() + ", ";
  return text + "client " + member.at("client").dump();
}

std::string place_text(const nlohmann::json& document) {
  static const std::map<std::string, std::string> texts = {
      {"queued", "queued"},   {"in_flight", "in flight"}, {"retry_waiting", "waiting for a retry"},
      {"parked", "parked"},   {"delayed", "delayed"},     {"dead", "a dead letter"},
      {"settled", "settled"}, {"gone", "gone"},           {"not_routed", "not routed yet"},
      {"unknown", "unknown"}};
  const auto state = document.at("state").get<std::string>();
  const auto known = texts.find(state);
  std::string text = known == texts.end() ? state : known->second;
  if (!document.contains("where")) return text;
  const bool ring = document.at("where") == "ring";
  return text + (ring ? " in the ring of a member, " : " in the backlog, ") +
         format_count(document.at("position").get<std::uint64_t>()) + " before it there";
}

std::string text_of(const nlohmann::json& document) {
  const std::string what = document.contains("delivery") ? "delivery " + document.at("delivery").dump()
                                                         : "event " + event_id(document.at("event"));
  std::string all =
      fmt::format("{} of {}: {}\n", what, document.at("subscription").get<std::string>(), place_text(document));
  const auto add = [&all](std::string_view title, std::string_view value) {
    all += fmt::format("  {:<11} {}\n", title, value);
  };
  const auto add_moment = [&](std::string_view title, const char* name) {
    if (document.contains(name)) add(title, moment_text(document.at(name).get<std::uint64_t>()));
  };
  if (document.contains("reason")) add("why", document.at("reason").get<std::string>());
  if (document.contains("member")) add("member", member_text(document.at("member")));
  add_moment("since", "since_ns");
  add_moment("until", "until_ns");
  add_moment("due", "due_ns");
  if (document.contains("event") && document.at("event").contains("topic")) {
    const auto& event = document.at("event");
    add("event", event_id(event) + " of " + event.at("topic").get<std::string>());
    add("published", moment_text(event.at("published_ns").get<std::uint64_t>()));
    if (event.at("key") != "") add("key", event.at("key").get<std::string>());
    if (event.contains("traceparent")) add("traceparent", event.at("traceparent").get<std::string>());
    if (!event.at("headers").empty()) add("headers", event.at("headers").dump());
  }
  if (document.contains("attempt")) add("attempt", document.at("attempt").dump());
  std::string_view title = "before";
  for (const auto& attempt : document.value("attempts", nlohmann::json::array())) {
    add(title, format_time(attempt.at("time_ns").get<std::uint64_t>()) + " " + attempt.at("cause").get<std::string>());
    title = "";
  }
  return all;
}

int run(const Globals& globals, const ExplainOptions& options) {
  const std::string document = open_bus(globals).explain_json(options.name, options.which);
  print(options.json ? document + "\n" : text_of(nlohmann::json::parse(document)));
  return status_done;
}

}  // namespace

void add_explain(CLI::App& app, Globals& globals) {
  CLI::App& command =
      add_command(app, "explain", "Where an event of a subscription is, and why",
                  "The event is named by its delivery number, or as PUBLISHER/SEQUENCE. Exit status 1: there is no "
                  "such subscription,\n"
                  "or no such event was ever published or delivered.\n\n"
                  "Examples:\n  shmtool explain billing 17\n  shmtool explain billing shop/42 --json | jq -r .state");
  auto options = std::make_shared<ExplainOptions>();
  command.add_option("SUB", options->name, "Name of the subscription")->required();
  add_parsed(command, "DELIVERY", "N|PUBLISHER/SEQUENCE", "The event",
             [options = options.get()](const std::string& text) { options->which = parse_event_id(text); })
      ->required();
  command.add_flag("--json", options->json, "One JSON object");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
