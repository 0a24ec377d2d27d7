// shmtool gc: removes what is dead and empty.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "lib/exchange/garbage.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

struct GcOptions {
  bool all = false;
  bool dry_run = false;
  bool json = false;
};

struct Line {
  std::string bus;
  std::string file;  // empty: the whole bus
  bool remove;
  std::string why;
};

// Looks at one bus and, unless it is a dry run, removes what it finds. The lock is held all the while, so that no exchange
// starts meanwhile; a dry run leaves it alone.
void collect(const Globals& globals, const std::string& bus, const GcOptions& options, std::vector<Line>& lines) {
  shm::FileDirectory directory(globals.directory + "/" + bus, false);
  if (!directory.exists("exchange") && !directory.exists("exchange.lock")) {
    throw Error(ErrorCode::not_found, directory.path(), "there is no bus in it", "see shmtool ls");
  }
  std::optional<exchange::BusLock> lock;
  if (!options.dry_run) lock.emplace(directory);
  const exchange::Garbage garbage = exchange::find_garbage(directory, lock.has_value());
  if (options.all && garbage.bus_is_empty) {
    if (!options.dry_run && !exchange::remove_bus(globals.directory, bus)) {
      lines.push_back({bus, "", false, "it could not be removed, or an exchange has begun in it"});
    } else {
      lines.push_back({bus, "", true, "nobody has it open, and it holds no subscription and no event"});
    }
    return;
  }
  for (const exchange::GarbageFile& file : garbage.files) lines.push_back({bus, file.file, file.remove, file.why});
  if (!options.dry_run) exchange::remove_garbage(directory, garbage);
}

std::vector<std::string> directories_in(const std::string& parent) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(parent, error);
  if (error)
    throw Failure(status_refused, parent + ": can't list it: " + error.message() + ": check --dir and its mode");
  for (; entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_directory(ignored) && !entry->is_symlink(ignored)) names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// All buses of the directory. One that is served, or can't be judged, hides no other; the first error counts.
int collect_all(const Globals& globals, const GcOptions& options, std::vector<Line>& lines, std::string& refused) {
  int status = status_done;
  for (const std::string& name : directories_in(globals.directory)) {
    try {
      if (exchange::is_half_removed(name)) {
        if (options.dry_run || exchange::finish_removal(globals.directory, name)) {
          lines.push_back({name, "", true, "a bus that was being removed"});
        }
        continue;
      }
      collect(globals, name, options, lines);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::not_found) continue;  // no bus, or gone meanwhile
      lines.push_back({name, "", false, error.what()});
      if (error.code() == ErrorCode::exchange_exists) continue;
      if (status == status_done) refused = error.what();
      status = error.code() == ErrorCode::damaged ? status_not_so : status_of(error.code());
    }
  }
  return status;
}

void print_lines(const std::vector<Line>& lines, bool json) {
  nlohmann::json list = nlohmann::json::array();
  std::string text;
  for (const Line& line : lines) {
    const std::string name = line.file.empty() ? line.bus : line.bus + "/" + line.file;
    const char* action = line.remove ? "remove" : "keep";
    text += fmt::format("{} {}: {}\n", action, name, line.why);
    list.push_back({{"bus", line.bus},
                    {"file", line.file.empty() ? nlohmann::json(nullptr) : nlohmann::json(line.file)},
                    {"action", action},
                    {"why", line.why}});
  }
  print(json ? list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n" : text);
}

int run(const Globals& globals, const GcOptions& options) {
  std::vector<Line> lines;
  std::string refused;
  int status = status_done;
  if (options.all) {
    status = collect_all(globals, options, lines, refused);
  } else {
    try {
      collect(globals, globals.bus, options, lines);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::damaged) throw Failure(status_not_so, error.what());
      if (error.code() == ErrorCode::not_found) throw Failure(status_refused, error.what());
      throw;
    }
  }
  print_lines(lines, options.json);
  if (status != status_done) throw Failure(static_cast<ExitStatus>(status), refused);
  return status_done;
}

}  // namespace

void add_gc(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "gc", "Remove what is dead and empty",
      "Of a bus without an exchange: what crashes have left and nothing names any more: temporary files, lock files "
      "of\n"
      "clients that are gone, files of incarnations that have ended, rings that are counted, segments of logs that "
      "were\n"
      "read to their end. An exchange that serves does all that itself; gc exits 3 then. Nothing that holds an event "
      "goes,\n"
      "nothing that was set aside as damaged, and nothing at all where shmtool doctor finds a violation (exit 1).\n"
      "With --all: of every bus of --dir, and whole buses that nobody has open and that hold no subscription (but for\n"
      "ephemeral ones of members that are gone), no damaged file and no event that was not routed. The numbers that "
      "named\n"
      "publishers have come to go with them.\n"
      "A line each: `remove BUS/FILE: why`, or `keep …` for what stays though it looks like it.\n\n"
      "Examples:\n  shmtool gc --bus orders --dry-run\n  shmtool gc --all");
  auto options = std::make_shared<GcOptions>();
  command.add_flag("--all", options->all, "Every bus of --dir, and whole buses that are empty");
  command.add_flag("--dry-run", options->dry_run, "Print the same lines, remove nothing");
  command.add_flag("--json", options->json, "One JSON array");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
