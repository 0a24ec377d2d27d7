// shmtool ls: the buses of a directory.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include "lib/exchange/host.hpp"
#include "lib/exchange/snapshot.hpp"
#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

// One line of the listing. A bus that can't be read is listed with the reason: one bad bus hides no other.
nlohmann::json describe(const std::string& parent, const std::string& bus) {
  nlohmann::json entry{{"bus", bus},      {"state", "unknown"}, {"pid", nullptr},
                       {"publishers", 0}, {"subscriptions", 0}, {"queued", 0}};
  try {
    const shm::FileDirectory directory(parent + "/" + bus, false);
    if (!directory.exists("exchange") && !directory.exists("exchange.lock")) return nullptr;
    const nlohmann::json document = exchange::stat_document(directory, bus);
    entry["state"] = document.at("exchange").at("state");
    if (entry["state"] != "stopped") entry["pid"] = document.at("exchange").at("pid");
    entry["publishers"] = document.at("publishers").size();
    entry["subscriptions"] = document.at("subscriptions").size();
    std::uint64_t queued = 0;
    for (const auto& subscription : document.at("subscriptions"))
      queued += subscription.at("queued").get<std::uint64_t>();
    entry["queued"] = queued;
  } catch (const Error& error) {
    entry["state"] = "unreadable";
    entry["error"] = error.what();
  }
  return entry;
}

int run(const Globals& globals, bool json) {
  nlohmann::json buses = nlohmann::json::array();
  std::error_code error;
  std::vector<std::string> names;
  std::filesystem::directory_iterator entry(globals.directory, error);
  if (error && (globals.directory_given || error != std::errc::no_such_file_or_directory)) {
    throw Failure(status_refused,
                  globals.directory + ": can't list it: " + error.message() + ": check --dir and its mode");
  }
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_directory(ignored) && !entry->is_symlink(ignored)) names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    nlohmann::json bus = describe(globals.directory, name);
    if (!bus.is_null()) buses.push_back(std::move(bus));
  }
  if (json) {
    print(buses.dump() + "\n");
    return status_done;
  }
  Table table({"BUS", "STATE", ">PID", ">PUBLISHERS", ">SUBSCRIPTIONS", ">QUEUED", ""});
  for (const auto& bus : buses) {
    table.add({bus["bus"], bus["state"], bus["pid"].is_null() ? "-" : bus["pid"].dump(), bus["publishers"].dump(),
               bus["subscriptions"].dump(), format_count(bus["queued"].get<std::uint64_t>()), bus.value("error", "")});
  }
  print(table.text());
  return status_done;
}

}  // namespace

void add_ls(CLI::App& app, Globals& globals) {
  CLI::App& command =
      add_command(app, "ls", "List the buses of a directory",
                  "state: running; stalled (its exchange holds the lock but does not move); stopped.\n\n"
                  "Example:\n  shmtool ls --dir /run/ackring --json");
  auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "One JSON array");
  command.callback([&globals, json] { globals.run = [&globals, json] { return run(globals, *json); }; });
}

}  // namespace ackring::tools
