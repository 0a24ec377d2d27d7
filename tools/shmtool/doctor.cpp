// shmtool doctor: are the files of a bus as they should be?
#include <memory>

#include <fmt/format.h>

#include "lib/exchange/doctor.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

using exchange::DoctorReport;
using exchange::Finding;
using exchange::Gravity;

std::string text_of(const Finding& finding) {
  const std::string kind = finding.gravity == Gravity::violation ? "" : std::string(to_string(finding.gravity)) + ": ";
  const std::string file = finding.file.empty() ? "" : finding.file + ": ";
  return fmt::format("{}{}{}: {}\n", kind, file, finding.check, finding.text);
}

nlohmann::json json_of(const DoctorReport& report, Gravity gravity) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : report.findings) {
    if (finding.gravity != gravity) continue;
    list.push_back({{"file", finding.file}, {"check", finding.check}, {"text", finding.text}});
  }
  return list;
}

std::string plural(std::uint64_t count, const char* what) {
  return fmt::format("{} {}{}", format_count(count), what, count == 1 ? "" : "s");
}

int run(const Globals& globals, const std::string& directory, bool json) {
  const bool given = !directory.empty();
  const std::string path = given ? directory : globals.directory + "/" + globals.bus;
  DoctorReport report;
  try {
    report = exchange::examine(shm::FileDirectory(path, false));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found) throw;
    throw Failure(status_refused, path + ": there is no bus in it: see shmtool ls");
  }
  exchange::examine_surroundings(path, report);
  const std::uint64_t violations = report.count(Gravity::violation);
  if (json) {
    const nlohmann::ordered_json document{{"bus", given ? nlohmann::json(nullptr) : nlohmann::json(globals.bus)},
                                          {"directory", path},
                                          {"state", report.state},
                                          {"files", report.files},
                                          {"publishers", report.publishers},
                                          {"subscriptions", report.subscriptions},
                                          {"events", report.events},
                                          {"violations", json_of(report, Gravity::violation)},
                                          {"warnings", json_of(report, Gravity::warning)},
                                          {"notes", json_of(report, Gravity::note)}};
    // A damaged file may hold any bytes as a name.
    print(document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  } else {
    std::string text;
    for (const Finding& finding : report.findings) text += text_of(finding);
    print(text + fmt::format("{}: exchange {}; {}, {}, {}, {}: {}\n", path, report.state, plural(report.files, "file"),
                             plural(report.publishers, "publisher"), plural(report.subscriptions, "subscription"),
                             plural(report.events, "event"), plural(violations, "violation")));
  }
  if (violations == 0) return status_done;
  throw Failure(status_not_so, fmt::format("{}: {} found: keep a copy of the directory before an exchange starts on it",
                                           path, plural(violations, "violation")));
}

}  // namespace

void add_doctor(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "doctor", "Check every invariant of every file of a bus",
      "Reads only, and looks at a bus with an exchange or without one, or at a copy of its directory. What belongs\n"
      "together in a live bus is read until it has not moved meanwhile, and counts as wrong if it is so in several "
      "looks.\n"
      "A line per violation: FILE: CHECK: what is wrong; exit status 1. Lines that begin with `note:` tell what a "
      "crash\n"
      "has left and the next exchange repairs; `warning:` what else may do harm. Both leave the exit status alone.\n\n"
      "Examples:\n  shmtool doctor --bus orders\n  shmtool doctor --json | jq .violations\n  shmtool doctor "
      "/tmp/copy-of-a-bus");
  auto directory = std::make_shared<std::string>();
  command.add_option("DIRECTORY", *directory, "Directory of a bus, or a copy of one; otherwise that of --bus");
  auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "One JSON object");
  command.callback([&globals, directory, json] {
    globals.run = [&globals, directory, json] { return run(globals, *directory, *json); };
  });
}

}  // namespace ackring::tools
