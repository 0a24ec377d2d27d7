// shmtool subscription create|update|pause|resume|purge|remove|ls.
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

struct NamedOptions {
  std::string name;
  std::vector<std::string> patterns;
  SubscriptionArguments arguments;
};

int create(const Globals& globals, const NamedOptions& options) {
  SubscriptionOptions wanted;
  wanted.name = options.name;
  wanted.patterns = options.patterns;
  options.arguments.apply(wanted);
  open_bus(globals).create_subscription(wanted);
  return status_done;
}

int update(const Globals& globals, const NamedOptions& options) {
  Bus bus = open_bus(globals);
  SubscriptionOptions wanted = bus.subscription(options.name);
  wanted.name = options.name;
  if (!options.patterns.empty()) wanted.patterns = options.patterns;
  options.arguments.apply(wanted);
  bus.update_subscription(wanted);
  return status_done;
}

int list(const Globals& globals, bool json) {
  const nlohmann::json subscriptions = stat_document(globals).at("subscriptions");
  if (json) {
    print(subscriptions.dump() + "\n");
    return status_done;
  }
  Table table({"SUBSCRIPTION", "PATTERNS", "GUARANTEE", ">MEMBERS", ">QUEUED", ">IN FLIGHT"});
  for (const auto& subscription : subscriptions) {
    std::vector<std::string> patterns = subscription.at("patterns");
    table.add({subscription.at("name"), fmt::format("{}", fmt::join(patterns, " ")), subscription.at("guarantee"),
               subscription.at("members").dump(), format_count(subscription.at("queued").get<std::uint64_t>()),
               format_count(subscription.at("in_flight").get<std::uint64_t>())});
  }
  print(table.text());
  return status_done;
}

void add_changes(CLI::App& group, Globals& globals) {
  CLI::App& create_command = add_command(group, "create", "Create a subscription; events that match wait in it",
                                         "Example:\n  shmtool subscription create billing 'orders.#' --ack-timeout 5s "
                                         "--max-events 100000 --overflow drop-oldest");
  auto created = std::make_shared<NamedOptions>();
  create_command.add_option("NAME", created->name, "Name of the subscription")->required();
  create_command.add_option("PATTERN", created->patterns, "Patterns of topics")->required();
  created->arguments.add_to(create_command);
  create_command.callback(
      [&globals, created] { globals.run = [&globals, created] { return create(globals, *created); }; });

  CLI::App& update_command = add_command(
      group, "update", "Change what was given; the rest stays",
      "Guarantee and ring sizes can't change.\n\nExample:\n  shmtool subscription update billing --ack-timeout 10s");
  auto updated = std::make_shared<NamedOptions>();
  update_command.add_option("NAME", updated->name, "Name of the subscription")->required();
  update_command.add_option("PATTERN", updated->patterns, "New patterns, instead of all old ones");
  updated->arguments.add_to(update_command);
  update_command.callback(
      [&globals, updated] { globals.run = [&globals, updated] { return update(globals, *updated); }; });
}

void add_operations(CLI::App& group, Globals& globals) {
  const auto add = [&](const char* verb, const char* what, const char* details, auto act) {
    CLI::App& command = add_command(group, verb, what, details);
    auto name = std::make_shared<std::string>();
    command.add_option("NAME", *name, "Name of the subscription")->required();
    command.callback([&globals, name, act] {
      globals.run = [&globals, name, act] {
        Bus bus = open_bus(globals);
        act(bus, *name);
        return int{status_done};
      };
    });
  };
  add("pause", "Deliver nothing until it is resumed; events queue",
      "What a member has taken stays with it; what it has not taken yet waits at the head of the queue.",
      [](Bus& bus, const std::string& name) { bus.pause_subscription(name); });
  add("resume", "Deliver again, from where it stood", "",
      [](Bus& bus, const std::string& name) { bus.resume_subscription(name); });
  add("purge", "Empty the queue: all that is not in flight goes for good",
      "Dead letters stay: see shmtool dlq purge. Prints how many events went.", [](Bus& bus, const std::string& name) {
        print(fmt::format("purged {} events\n", bus.purge_subscription(name)));
      });

  CLI::App& breaker =
      add_command(group, "breaker", "Open or close the circuit breakers of a subscription's handlers",
                  "open: nothing is handled; closed: everything is, however often that fails; auto: they "
                  "decide by themselves again.\nLasts over restarts. Handlers obey within 100 ms.\n\n"
                  "Example:\n  shmtool subscription breaker billing open");
  auto whose = std::make_shared<std::string>();
  auto order = std::make_shared<std::string>();
  breaker.add_option("NAME", *whose, "Name of the subscription")->required();
  breaker.add_option("ORDER", *order, "What they shall be")
      ->check(CLI::IsMember({"open", "closed", "auto"}))
      ->type_name("open|closed|auto")
      ->required();
  breaker.callback([&globals, whose, order] {
    globals.run = [&globals, whose, order] {
      open_bus(globals).order_breaker(*whose, *order == "open"     ? BreakerOrder::open
                                              : *order == "closed" ? BreakerOrder::closed
                                                                   : BreakerOrder::automatic);
      return int{status_done};
    };
  });

  CLI::App& command =
      add_command(group, "remove", "Remove a subscription",
                  "One with a live member is busy (exit status 3). One that holds events or dead letters "
                  "is removed only if --pending says what becomes of them (else exit status 1):\n"
                  "  keep         it matches nothing any more, and goes when they are gone\n"
                  "  dead-letter  they become dead letters; it goes when those are requeued and done, or purged\n"
                  "  drop         they go with it");
  auto name = std::make_shared<std::string>();
  auto pending = std::make_shared<std::string>();
  command.add_option("NAME", *name, "Name of the subscription")->required();
  command.add_option("--pending", *pending, "What becomes of what it holds")
      ->check(CLI::IsMember({"keep", "dead-letter", "drop"}))
      ->type_name("keep|dead-letter|drop");
  command.callback([&globals, name, pending] {
    globals.run = [&globals, name, pending] {
      const Pending choice = pending->empty()     ? Pending::refuse
                             : *pending == "keep" ? Pending::keep
                             : *pending == "drop" ? Pending::drop
                                                  : Pending::dead_letter;
      open_bus(globals).remove_subscription(*name, choice);
      return int{status_done};
    };
  });
}

}  // namespace

void add_subscription(CLI::App& app, Globals& globals) {
  CLI::App& group = add_command(app, "subscription", "Create, change, remove and list subscriptions", "");
  group.require_subcommand(1);
  add_changes(group, globals);

  add_operations(group, globals);

  CLI::App& list_command = add_command(group, "ls", "List the subscriptions of a bus", "");
  auto json = std::make_shared<bool>(false);
  list_command.add_flag("--json", *json, "One JSON array, as in stat --json");
  list_command.callback([&globals, json] { globals.run = [&globals, json] { return list(globals, *json); }; });
}

}  // namespace ackring::tools
