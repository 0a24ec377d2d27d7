// shmtool dlq ls|show|export|requeue|purge: what was rejected, or failed too often.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <thread>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/dlq_text.hpp"
#include "tools/shmtool/event_id.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();

struct DlqOptions {
  std::string name;
  bool json = false;
  std::uint64_t count = no_limit;
  bool all = false;
  DeadLetterSelection which;
  double rate = 0;  // 0: as fast as it goes
};

// One JSON array, written as it comes.
void print_array(const Globals& globals, const DlqOptions& options) {
  std::string text = "[";
  walk_dead_letters(globals, options.name, options.count, [&text, first = true](std::string_view line) mutable {
    if (!first) text += ",\n";
    first = false;
    text += line.substr(0, line.size() - 1);
    if (text.size() < 1u << 16) return;
    print(text);
    text.clear();
  });
  print(text + "]\n");
}

int list_subscriptions(const Globals& globals, bool json) {
  const nlohmann::json document = stat_document(globals);
  static constexpr const char* fields[] = {"dlq_size", "retry_waiting", "dead_lettered", "requeued", "dlq_removed"};
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  Table table({"SUBSCRIPTION", ">DEAD", ">IN RETRY", ">DIED EVER", ">REQUEUED", ">PURGED"});
  for (const auto& subscription : document.at("subscriptions")) {
    nlohmann::ordered_json row = {{"name", subscription.at("name")}};
    std::vector<std::string> texts = {subscription.at("name")};
    for (const char* field : fields) {
      row[field] = subscription.at(field);
      texts.push_back(format_count(subscription.at(field).get<std::uint64_t>()));
    }
    rows.push_back(std::move(row));
    table.add(std::move(texts));
  }
  print(json ? rows.dump() + "\n" : table.text());
  return status_done;
}

int list(const Globals& globals, const DlqOptions& options) {
  if (options.name.empty()) return list_subscriptions(globals, options.json);
  if (options.json) {
    print_array(globals, options);
    return status_done;
  }
  Table table(dead_letter_titles());
  walk_dead_letters(globals, options.name, no_limit,
                    [&table](std::string_view line) { table.add(dead_letter_row(line)); });
  print(table.text());
  return status_done;
}

int show(const Globals& globals, const DlqOptions& options) {
  if (options.json) {
    print_array(globals, options);
    return status_done;
  }
  bool first = true;
  walk_dead_letters(globals, options.name, options.count, [&first](std::string_view line) {
    print((first ? "" : "\n") + dead_letter_text(line));
    first = false;
  });
  if (first) print("no dead letters\n");
  return status_done;
}

int export_all(const Globals& globals, const DlqOptions& options) {
  std::string text;
  walk_dead_letters(globals, options.name, no_limit, [&text](std::string_view line) {
    text += line;
    if (text.size() < 1u << 16) return;
    print(text);
    text.clear();
  });
  print(text);
  return status_done;
}

int report(const std::string& what, std::uint64_t done, const DlqOptions& options) {
  if (done == 0) {
    throw Failure(status_not_so,
                  fmt::format("subscription '{}': nothing {}: no dead letter matches: see shmtool dlq ls {}",
                              options.name, what, options.name));
  }
  print(fmt::format("{} {} dead letter{}\n", what, done, done == 1 ? "" : "s"));
  return status_done;
}

int requeue(const Globals& globals, const DlqOptions& options) {
  const bool selected = options.which.delivery != 0 || options.which.sequence != 0 || !options.which.reason.empty();
  if (!options.all && !selected) {
    throw Failure(
        status_usage,
        "dlq requeue: it is not said which dead letters: nothing was requeued: write --all, --id or --reason");
  }
  catch_stop_signals();
  Bus bus = open_bus(globals);
  // With a rate: ten small steps a second, or one letter at a time.
  const double step = options.rate > 0 ? std::ceil(options.rate / 10) : 4096;
  const auto at_most = static_cast<std::uint64_t>(std::clamp(step, 1.0, 4096.0));
  const auto started = Clock::now();
  std::uint64_t done = 0;
  DeadLetterCursor cursor;
  while (cursor.more && !stop_requested()) {
    if (options.rate > 0) {
      const auto due = started + Nanoseconds(std::llround(static_cast<double>(done) * 1e9 / options.rate));
      if (const Nanoseconds wait = due - Clock::now(); wait > Nanoseconds{0}) {
        std::this_thread::sleep_for(std::min<Nanoseconds>(wait, std::chrono::milliseconds(100)));
        continue;
      }
    }
    try {
      done += bus.requeue_dead_letters(options.name, options.which, cursor, at_most);
    } catch (const Error& error) {
      if (done == 0) throw;
      throw Failure(status_of(error.code()), fmt::format("{} ({} were requeued before)", error.what(), done));
    }
  }
  if (done == 0 && stop_requested()) return status_done;
  return report("requeued", done, options);
}

int purge(const Globals& globals, const DlqOptions& options) {
  return report("purged", open_bus(globals).purge_dead_letters(options.name, options.which), options);
}

void set_id(DeadLetterSelection& which, const EventSelection& event) {
  which.delivery = event.delivery;
  which.publisher = event.publisher;
  which.sequence = event.sequence;
}

using Run = int (*)(const Globals&, const DlqOptions&);

std::shared_ptr<DlqOptions> add(CLI::App& command, Globals& globals, Run run, bool name_required = true) {
  auto options = std::make_shared<DlqOptions>();
  command.add_option("SUB", options->name, "Name of the subscription")->required(name_required);
  command.callback(
      [&globals, options, run] { globals.run = [&globals, options, run] { return run(globals, *options); }; });
  return options;
}

void add_selection(CLI::App& command, const std::shared_ptr<DlqOptions>& options) {
  CLI::Option* all = command.add_flag("--all", options->all, "Every dead letter there is now");
  CLI::Option* id =
      add_parsed(command, "--id", "N|PUBLISHER/SEQUENCE", "The one of this delivery, or of this event",
                 [options = options.get()](const std::string& text) { set_id(options->which, parse_event_id(text)); });
  CLI::Option* reason =
      command.add_option("--reason", options->which.reason,
                         "Those of this reason, such as max_deliveries; 'rejected' means those that say why too");
  reason->check([](const std::string& text) { return text.empty() ? "a reason is missing" : ""; });
  all->excludes(id)->excludes(reason);
  id->excludes(reason);
}

}  // namespace

void add_dlq(CLI::App& app, Globals& globals) {
  CLI::App& group = add_command(app, "dlq", "List, show, export, requeue and purge dead letters",
                                "Dead letters are events that were rejected, or failed --max-deliveries times.\n"
                                "ls, show and export work on a bus whose exchange is dead or stalled too.");
  group.require_subcommand(1);

  CLI::App& list_command = add_command(group, "ls", "Counters of all subscriptions, or the dead letters of one", "");
  const auto listed = add(list_command, globals, list, false);
  list_command.add_flag("--json", listed->json, "One JSON array; with SUB that of dlq show");

  CLI::App& show_command =
      add_command(group, "show", "Dead letters with everything that is known of them, oldest first",
                  "Example:\n  shmtool dlq show billing --json | jq -r '.[].reason'");
  const auto shown = add(show_command, globals, show);
  add_parsed(show_command, "-n", "N", "At most this many (all)",
             [shown = shown.get()](const std::string& text) { shown->count = parse_positive(text); });
  show_command.add_flag("--json", shown->json, "One JSON array");

  CLI::App& export_command =
      add_command(group, "export", "All dead letters as NDJSON, for tools",
                  "The lines are the objects of dlq show --json; shmtool pub --ndjson takes them "
                  "too, as new events.\n\nExample:\n  shmtool dlq export billing > dead.ndjson");
  (void)add(export_command, globals, export_all);

  CLI::App& requeue_command =
      add_command(group, "requeue", "Deliver dead letters again, with a new budget of attempts",
                  "What dies during the command is not requeued again. Exit status 1: nothing matched.\n\nExamples:\n"
                  "  shmtool dlq requeue billing --id 17\n  shmtool dlq requeue billing --all --rate 100");
  const auto requeued = add(requeue_command, globals, requeue);
  add_selection(requeue_command, requeued);
  add_parsed(requeue_command, "--rate", "N", "Dead letters per second",
             [requeued = requeued.get()](const std::string& text) {
               requeued->rate = parse_real(text, "a rate: write a number, such as 100");
               if (requeued->rate <= 0) throw std::invalid_argument("'" + text + "' is not above 0");
             });

  CLI::App& purge_command = add_command(group, "purge", "Remove dead letters for good; all, if not told which",
                                        "Exit status 1: nothing matched.\n\nExample:\n"
                                        "  shmtool dlq purge billing --reason rejected");
  add_selection(purge_command, add(purge_command, globals, purge));
}

}  // namespace ackring::tools
