// ackring-exchange: one exchange that serves one bus until it is told to end.
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/host.hpp"
#include "lib/shm/descriptor.hpp"
#include "lib/shm/directory.hpp"
#include "lib/shm/segment.hpp"
#include "lib/shm/transaction_number.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/exchange/config_file.hpp"
#include "tools/exchange/declared.hpp"
#include "tools/exchange/log.hpp"
#include "tools/exchange/metrics_server.hpp"
#include "tools/exchange/reload.hpp"
#include "tools/exchange/service_manager.hpp"
#include "tools/exchange/settings.hpp"

namespace ackring::tools {
namespace {

// What the signal handler may touch. The host outlives the handler's last use of it: main leaves it until the end.
exchange::Host* volatile serving = nullptr;
volatile std::sig_atomic_t stopping = 0;

void on_stop_signal(int /*signal*/) {
  stopping = 1;
  if (exchange::Host* host = serving; host != nullptr) host->stop();
}

// What makes a restart with many members shorter: each has a table of 256 KiB, which the allocator would map by itself.
void prepare_process(std::size_t shards) {
  shm::this_process_never_forks();
  ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  ::mallopt(M_TOP_PAD, 16 << 20);
  ::mallopt(M_ARENA_MAX, static_cast<int>(shards));
}

// Others reach the socket only if they may pass through the directories; its files stay 0600.
void let_others_through(const std::string& path) {
  const shm::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || (status.st_mode & 0011) == 0011) return;
  if (::fchmod(fd.get(), (status.st_mode & 07777) | 0011) != 0) {
    throw Failure(status_refused, path + ": other users can't pass through it: run chmod go+x on it as its owner");
  }
}

// SIGHUP ends a program whose terminal has gone. One that has files to read or open again does that instead.
bool reloads(const Arguments& arguments, const Settings& settings) {
  return !arguments.config.empty() || !settings.log.file.empty() || !settings.access.empty();
}

exchange::Notice ready_notice(exchange::Host& host, const Settings& options, std::uint64_t began_ns) {
  std::uint64_t shards = 0;
  std::uint64_t publishers = 0;
  std::uint64_t subscriptions = 0;
  std::uint64_t events = 0;
  std::uint64_t dead = 0;
  const exchange::Exchange& exchange = host.core();
  for (const exchange::Exchange* shard : exchange.shards()) shards += shard != nullptr ? 1 : 0;
  for (const auto& ingress : exchange.publishers()) publishers += ingress && ingress->ring_page != nullptr ? 1 : 0;
  for (const auto& queue : exchange.queues()) {
    if (!queue) continue;
    ++subscriptions;
    events += exchange::Exchange::pending(*queue);
    dead += queue->block.dead_events;
  }
  const std::uint64_t took_us = (monotonic_ns() - began_ns) / 1000;
  return {exchange::Notice::Level::info,
          "exchange.ready",
          fmt::format("bus={} dir={} pid={} version={} shards={} generation={}: {} subscriptions with {} events and {} "
                      "dead letters, {} publishers, ready in {} us",
                      options.bus, options.directory, ::getpid(), ACKRING_VERSION, shards, exchange.generation(),
                      subscriptions, events, dead, publishers, took_us),
          {{"bus", options.bus},
           {"dir", options.directory},
           {"pid", static_cast<std::uint64_t>(::getpid())},
           {"version", std::string(ACKRING_VERSION)},
           {"shards", shards},
           {"generation", exchange.generation()},
           {"subscriptions", subscriptions},
           {"events", events},
           {"dead_letters", dead},
           {"publishers", publishers},
           {"took_us", took_us}}};
}

int serve(const Arguments& arguments) {
  const ConfigFile file = read_config(arguments);
  const Settings options = settings_of(arguments, file);
  shm::check_name("bus", options.bus);
  prepare_process(options.shards);
  exchange::HostOptions host_options;
  host_options.access = access_rules_of(options);
  if (reloads(arguments, options)) hold_reload_signal();
  Log log(options.log);  // its thread runs on any core
  for (auto cpu = options.cpus.rbegin(); cpu != options.cpus.rend(); ++cpu)
    pin_to_cpu(*cpu);  // each is one; the first stays
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);

  const std::string path = options.directory + "/" + options.bus;
  const auto directory = std::make_shared<shm::FileDirectory>(path, true);
  if ((options.socket_mode & 0077) != 0) {
    let_others_through(options.directory);
    let_others_through(path);
  }
  host_options.wait = options.wait;
  host_options.shards = options.shards;
  host_options.cpus = options.cpus;
  host_options.socket_group = options.socket_group;
  host_options.socket_mode = options.socket_mode;
  host_options.guard_bus_errors = true;
  host_options.on_notice = [&log](const exchange::Notice& notice) { log.tell(notice); };
  const std::uint64_t began_ns = monotonic_ns();
  // Its end takes up to two seconds, in which another process can serve the bus already: it goes behind the host.
  std::optional<MetricsServer> metrics;
  exchange::Host host(directory, options.bus, host_options);
  declare_subscriptions(host.core(), file.subscriptions, true, host_options.on_notice);
  if (!options.metrics.empty()) metrics.emplace(options.metrics, options.bus, options.directory);
  log.tell(ready_notice(host, options, began_ns));
  serving = &host;
  if (stopping != 0) host.stop();  // the signal came before there was a host to stop

  try {
    print(fmt::format("ready bus={} dir={} pid={}\n", options.bus, options.directory, ::getpid()));
  } catch (const ClosedPipe&) {
    // Whoever started it does not read; it serves all the same.
  }
  notify_service_manager(fmt::format("READY=1\nSTATUS=serving bus {}\n", options.bus));
  {
    std::optional<Reloader> reloader;
    if (reloads(arguments, options)) reloader.emplace(host, log, arguments, options);
    host.run();
  }
  serving = nullptr;
  notify_service_manager("STOPPING=1\n");
  log.tell({exchange::Notice::Level::info,
            "exchange.stopped",
            fmt::format("bus={} pid={} stopped: what was committed is routed", options.bus, ::getpid()),
            {{"bus", options.bus}, {"served_s", (monotonic_ns() - began_ns) / 1'000'000'000}}});
  return status_done;
}

}  // namespace
}  // namespace ackring::tools

int main(int argc, char** argv) {
  using namespace ackring::tools;
  Arguments arguments;
  CLI::App app("Serves one ackring bus: moves events from publishers to subscriptions until SIGTERM or SIGINT.",
               "ackring-exchange");
  app.set_version_flag("--version", "ackring-exchange " ACKRING_VERSION);
  const auto complete = add_arguments(app, arguments);
  app.footer(
      "Prints `ready bus=… dir=… pid=…` when it serves. SIGTERM and SIGINT: routes what is committed, exits 0.\n"
      "SIGHUP: reads its files again (with --config, --access or --log-file).\n"
      "Exit status 3: the bus has an exchange already, or the system refused. Tells systemd when it is ready.\n"
      "A client and a publisher need two open files each, a subscriber one; as many as `ulimit -Hn` allows.\n\n"
      "Example:\n  ackring-exchange --bus orders --cpu 1 &\n  shmtool --bus orders ping && shmtool --bus orders stat");
  return run_program("ackring-exchange", app, argc, argv, [&] {
    complete();
    try {
      return arguments.check_config ? check_config(arguments) : serve(arguments);
    } catch (const ackring::Error& error) {
      // What shmtool answers with 1, "there is no such thing", is a refusal here: the exchange can't serve.
      if (error.code() == ackring::ErrorCode::not_found) throw Failure(status_refused, error.what());
      throw;
    }
  });
}
