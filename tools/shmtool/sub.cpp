// shmtool sub: takes deliveries one by one, prints each, then gives its verdict.
#include <memory>
#include <utility>
#include <vector>

#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/subscription_options.hpp"
#include "tools/shmtool/take_loop.hpp"

namespace ackring::tools {
namespace {

struct SubOptions {
  std::vector<std::string> patterns;
  std::string name;
  TakeOptions take{.command = "sub"};
  SubscriptionArguments arguments;
};

Subscriber join(Bus& bus, const SubOptions& options) {
  SubscriptionOptions wanted;
  wanted.name = options.name;
  wanted.patterns = options.patterns;
  if (!options.name.empty()) {
    if (const auto existing = find_subscription(bus, options.name)) {
      options.arguments.require_same(*existing, options.patterns);
      wanted = *existing;
      wanted.name = options.name;
      return bus.subscribe(wanted);
    }
    if (options.patterns.empty()) {
      throw Failure(status_not_so, "subscription '" + options.name +
                                       "': there is none of this name, and no pattern to make it with: "
                                       "write shmtool sub PATTERN… --name " +
                                       options.name);
    }
  }
  options.arguments.apply(wanted);
  return bus.subscribe(wanted);
}

Verdict parse_verdict(const std::string& text) {
  if (text == "ack") return Verdict::ack;
  if (text == "nack") return Verdict::nack;
  if (text == "none") return Verdict::none;
  if (text == "reject") return Verdict::reject;
  throw std::invalid_argument("'" + text + "' is not a verdict: choose ack, nack, reject or none");
}

int run(const Globals& globals, const SubOptions& options) {
  if (options.patterns.empty() && options.name.empty()) {
    throw Failure(status_usage,
                  "sub: nothing to subscribe to: a pattern is missing: write shmtool sub PATTERN…, such as 'orders.#'");
  }
  catch_stop_signals();
  const auto started = TakeLoop::Clock::now();
  Bus bus = open_bus(globals);
  Subscriber subscriber = join(bus, options);
  return TakeLoop(std::move(bus), std::move(subscriber), options.take, started).run();
}

}  // namespace

void add_sub(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "sub", "Take, print and ack deliveries",
      "Patterns: words split by '.', * is one word, # zero or more. Without --name: an ephemeral subscription, gone at "
      "the end.\n"
      "With --name: attaches to that subscription as it is (options given must agree with it), or creates it.\n"
      "Verdict none holds what was printed and gives it back at the end. Ends at --count (exit status 0), at "
      "--timeout\n"
      "(0 without --count, else 1), by SIGINT or SIGTERM, and when nobody reads its output.\n\n"
      "Examples:\n  shmtool sub 'orders.#' --count 10 --timeout 5s\n  shmtool sub 'orders.*.created' --name billing "
      "--format raw");
  auto options = std::make_shared<SubOptions>();
  command.add_option("PATTERN", options->patterns, "Patterns of topics");
  command.add_option("--name", options->name, "Name of the subscription")->type_name("SUB");
  add_parsed(command, "--verdict", "ack|nack|reject|none", "What to do with a delivery that was printed (ack)",
             [options = options.get()](const std::string& text) { options->take.verdict = parse_verdict(text); });
  options->take.add_to(command);
  options->arguments.add_to(command);
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
