// How commands get at a bus: through its exchange, or, where that is dead or stalled, from shared memory alone.
#include <optional>

#include "lib/exchange/host.hpp"
#include "lib/exchange/snapshot.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {

CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& footer) {
  CLI::App* command = app.add_subcommand(name, description);
  command->fallthrough();
  command->footer(footer);
  return *command;
}

Bus open_bus(const Globals& globals, Nanoseconds timeout) {
  BusOptions options;
  options.directory = globals.directory;
  options.exchange = ExchangeMode::require;
  options.client_name = "shmtool";
  options.timeout = timeout;
  try {
    return Bus::open(globals.bus, options);
  } catch (const Error& error) {
    // A bus that does not exist has no exchange either; "not found" is for what is asked of a bus.
    if (error.code() == ErrorCode::not_found) throw Failure(status_refused, error.what());
    throw;
  }
}

nlohmann::json stat_document(const Globals& globals) {
  const std::string path = globals.directory + "/" + globals.bus;
  std::optional<Error> unreadable;
  bool serving = false;
  try {
    const shm::FileDirectory directory(path, false);
    nlohmann::json document = exchange::stat_document(directory, globals.bus);
    serving = document.at("exchange").at("state") == "running";
    if (!serving) return document;
  } catch (const Error& error) {
    // Other users may not read the files, only ask at the socket.
    unreadable.emplace(error);
  }
  try {
    return nlohmann::json::parse(open_bus(globals, std::chrono::seconds(2)).stat_json());
  } catch (const Error& error) {
    if (serving && (error.code() == ErrorCode::no_exchange || error.code() == ErrorCode::timeout)) {
      // It went away, or stopped answering, since the look at its tick.
      return exchange::stat_document(shm::FileDirectory(path, false), globals.bus);
    }
    if (!unreadable || error.code() != ErrorCode::no_exchange) throw;
  } catch (const Failure&) {
    if (!unreadable) throw;
  }
  if (unreadable->code() == ErrorCode::not_found) {
    throw Failure(status_refused, "bus '" + globals.bus + "': there is no such bus in " + globals.directory +
                                      ": start ackring-exchange --bus " + globals.bus + ", or see shmtool ls");
  }
  throw Failure(status_refused, unreadable->what());
}

}  // namespace ackring::tools
