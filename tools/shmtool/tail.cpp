// shmtool tail: prints events as they are published, and disturbs nobody: an ephemeral subscription, at most once, that
// drops its oldest events when it can't follow.
#include <memory>
#include <utility>
#include <vector>

#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/take_loop.hpp"

namespace ackring::tools {
namespace {

struct TailOptions {
  std::vector<std::string> patterns;
  TakeOptions take{.command = "tail"};
  bool json = false;  // its lines are JSON anyway
};

int run(const Globals& globals, const TailOptions& options) {
  catch_stop_signals();
  const auto started = TakeLoop::Clock::now();
  SubscriptionOptions tap;
  tap.patterns = options.patterns;
  tap.guarantee = at_most_once;
  tap.overflow = Overflow::drop_oldest;  // said, so that not even a batch waits for the ring of the tap
  tap.max_bytes = 16u << 20;             // a tap that stands still must not use up the memory of the bus
  Bus bus = open_bus(globals);
  Subscriber subscriber = bus.subscribe(tap);
  return TakeLoop(std::move(bus), std::move(subscriber), options.take, started).run();
}

}  // namespace

void add_tail(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "tail", "Print events as they are published: a tap",
      "It takes nothing from any subscription and holds up nobody: where it can't follow, it misses events, and those "
      "of\n"
      "more than 1 MiB do not fit its ring. Patterns as for sub. What was published before it started is not printed.\n"
      "Ends at --count (exit status 0), at --timeout (0 without --count, else 1), by SIGINT or SIGTERM, and when "
      "nobody\n"
      "reads its output.\n\n"
      "Examples:\n  shmtool tail '#'\n  shmtool tail 'orders.#' --timeout 10s | jq -r .topic | sort | uniq -c");
  auto options = std::make_shared<TailOptions>();
  command.add_option("PATTERN", options->patterns, "Patterns of topics")->required();
  options->take.add_to(command);
  command.add_flag("--json", options->json, "A line of JSON per event, as without it");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
