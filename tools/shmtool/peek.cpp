// shmtool peek: what a subscription will hand out next, without taking it.
#include <memory>

#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/event_id.hpp"

namespace ackring::tools {
namespace {

struct PeekOptions {
  std::string name;
  std::uint64_t count = 10;
  bool json = false;
};

int run(const Globals& globals, const PeekOptions& options) {
  std::string lines = open_bus(globals).peek_ndjson(options.name, options.count);
  if (options.json) {
    std::string array = "[";
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = lines.find('\n', at);
      array += (at == 0 ? "" : ",\n") + lines.substr(at, end - at);
      at = end + 1;
    }
    lines = array + "]\n";
  }
  print(lines);
  return status_done;
}

}  // namespace

void add_peek(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "peek", "Show the next events of a subscription without taking them",
      "An object per line, as shmtool sub prints them, in the order in which they will be handed out as far as that "
      "is\n"
      "known: of several members each one's next, then each one's second, and so on. What waits for a retry is not\n"
      "among them (see shmtool stat and explain).\n\n"
      "Examples:\n  shmtool peek billing\n  shmtool peek billing -n 100 | jq -r .topic");
  auto options = std::make_shared<PeekOptions>();
  command.add_option("SUB", options->name, "Name of the subscription")->required();
  add_parsed(command, "-n", "N", "At most this many (10)",
             [options = options.get()](const std::string& text) { options->count = parse_positive(text); });
  command.add_flag("--json", options->json, "One JSON array");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
