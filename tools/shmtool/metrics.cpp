// shmtool metrics: what a Prometheus would get, of a live bus or a dead one.
#include <memory>

#include "lib/shm/environment.hpp"
#include "tools/common/metrics.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {

void add_metrics(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(app, "metrics", "Metrics of a bus, in Prometheus's text format",
                                  "The same as ackring-exchange --metrics ADDRESS:PORT serves; also of a bus whose "
                                  "exchange is dead. docs/metrics.md "
                                  "lists them.\n\nExample:\n  shmtool metrics --bus orders | promtool check metrics");
  command.callback([&globals] {
    globals.run = [&globals] {
      print(metrics_text(metric_families(stat_document(globals), shm::Environment::now_ns())));
      return int{status_done};
    };
  });
}

}  // namespace ackring::tools
