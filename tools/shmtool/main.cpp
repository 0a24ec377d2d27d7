// shmtool: looks at buses, publishes, subscribes, measures.
#include <cstdlib>

#include "lib/shm/bus_error_guard.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"

int main(int argc, char** argv) {
  using namespace ackring::tools;
  Globals globals;
  CLI::App app("Looks at ackring buses, publishes, subscribes, measures.", "shmtool");
  app.set_version_flag("--version", "shmtool " ACKRING_VERSION);
  app.add_option("--bus", globals.bus, "Name of the bus")->envname("ACKRING_BUS")->capture_default_str();
  const CLI::Option* directory = app.add_option("--dir", globals.directory, "Directory that holds buses")
                                     ->envname("ACKRING_DIR")
                                     ->capture_default_str();
  app.require_subcommand(1);
  app.footer(
      "--bus and --dir may stand anywhere on the line. `shmtool COMMAND --help` tells more.\n"
      "Exit status: 0 done; 1 what was asked is not so; 2 wrong usage; 3 the system refused (no exchange, busy, …).\n"
      "Durations: 250us, 10ms, 5s, 2m, a bare number is seconds. Sizes: 64, 4KiB, 1MiB.");
  add_ls(app, globals);
  add_ping(app, globals);
  add_stat(app, globals);
  add_metrics(app, globals);
  add_top(app, globals);
  add_pub(app, globals);
  add_sub(app, globals);
  add_tail(app, globals);
  add_record(app, globals);
  add_replay(app, globals);
  add_peek(app, globals);
  add_explain(app, globals);
  add_subscription(app, globals);
  add_dlq(app, globals);
  add_plan(app, globals);
  add_doctor(app, globals);
  add_gc(app, globals);
  add_bench(app, globals);
  add_demo(app, globals);
  return run_program("shmtool", app, argc, argv, [&globals, directory] {
    ackring::shm::guard_bus_errors();  // it may look into files that a client cuts short meanwhile
    globals.directory_given = directory->count() > 0;
    ackring::shm::check_name("bus", globals.bus);
    return globals.run();
  });
}
