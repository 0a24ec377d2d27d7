// shmtool plan: what a bus will take of memory, files and descriptors, and whether it fits here.
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bus_plan.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

struct PlanOptions {
  BusShape shape;
  SubscriptionArguments arguments;
  bool json = false;
};

// What this machine has for it.
struct Machine {
  std::string directory;  // --dir, or the part of its path that is there
  std::uint64_t free_bytes = 0;
  std::uint64_t free_files = 0;
  std::uint64_t open_files = 0;  // hard limit: the programs raise the soft one to it
  std::uint64_t mappings = 0;    // 0: not known
};

Machine look_around(const std::string& wanted) {
  Machine machine;
  std::filesystem::path path = std::filesystem::absolute(wanted).lexically_normal();
  std::error_code error;
  while (!std::filesystem::exists(path, error) && path.has_relative_path()) path = path.parent_path();
  machine.directory = path.string();
  struct statvfs room {};
  if (::statvfs(path.c_str(), &room) != 0) {
    throw Failure(status_refused, fmt::format("{}: can't tell its free space: {}: choose another --dir", path.c_str(),
                                              std::strerror(errno)));
  }
  machine.free_bytes = std::uint64_t{room.f_bavail} * room.f_frsize;
  machine.free_files = room.f_files == 0 ? ~std::uint64_t{0} : room.f_favail;  // some file systems have no such limit
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) machine.open_files = files.rlim_max;
  std::ifstream("/proc/sys/vm/max_map_count") >> machine.mappings;
  return machine;
}

// What does not fit, for people.
std::vector<std::string> misfits(const BusPlan& plan, const Machine& machine) {
  std::vector<std::string> found;
  if (plan.total.rest_bytes > machine.free_bytes) {
    found.push_back(fmt::format("it does not fit: {} has {} free, and the bus takes {} before anything waits",
                                machine.directory, format_bytes(machine.free_bytes),
                                format_bytes(plan.total.rest_bytes)));
  } else if (plan.total.most_bytes > machine.free_bytes) {
    found.push_back(fmt::format("it does not fit when all queues are full: {} has {} free, and the bus may take {}",
                                machine.directory, format_bytes(machine.free_bytes),
                                format_bytes(plan.total.most_bytes)));
  }
  if (plan.total.most_files > machine.free_files) {
    found.push_back(fmt::format("{} has room for {} more files, and the bus may have {}", machine.directory,
                                format_count(machine.free_files), format_count(plan.total.most_files)));
  }
  const std::uint64_t descriptors = std::max(plan.exchange_descriptors, plan.client_descriptors);
  if (machine.open_files != 0 && descriptors > machine.open_files) {
    found.push_back(fmt::format("a process may open {} files (ulimit -Hn), and the exchange needs {}",
                                format_count(machine.open_files), format_count(descriptors)));
  }
  if (machine.mappings != 0 && plan.most_mappings > machine.mappings) {
    found.push_back(fmt::format("a process may map {} files (vm.max_map_count), and the exchange may map {}",
                                format_count(machine.mappings), format_count(plan.most_mappings)));
  }
  return found;
}

nlohmann::json document(const BusPlan& plan, const Machine& machine, const std::vector<std::string>& problems) {
  const auto object = [](const PlannedFiles& files) {
    return nlohmann::json{{"kind", files.kind},
                          {"rest_files", files.rest_files},
                          {"rest_bytes", files.rest_bytes},
                          {"most_files", files.most_files},
                          {"most_bytes", files.most_bytes}};
  };
  nlohmann::json files = nlohmann::json::array();
  for (const PlannedFiles& kind : plan.files) files.push_back(object(kind));
  return {
      {"files", files},
      {"total", object(plan.total)},
      {"unlimited", {"retry log"}},
      {"descriptors",
       {{"exchange", plan.exchange_descriptors}, {"client", plan.client_descriptors}, {"limit", machine.open_files}}},
      {"mappings", {{"rest", plan.rest_mappings}, {"most", plan.most_mappings}, {"limit", machine.mappings}}},
      {"file_system", {{"path", machine.directory}, {"free_bytes", machine.free_bytes}}},
      {"fits", problems.empty()},
      {"problems", problems}};
}

std::string text(const BusPlan& plan, const Machine& machine, bool retries) {
  Table table({"FILES", ">AT REST", ">BYTES", ">AT MOST", ">BYTES"});
  const auto row = [&table](const PlannedFiles& files) {
    table.add({files.kind, format_count(files.rest_files), format_bytes(files.rest_bytes),
               format_count(files.most_files), format_bytes(files.most_bytes)});
  };
  for (const PlannedFiles& kind : plan.files) row(kind);
  row(plan.total);
  std::string text = table.text();
  if (retries) {
    text += "No option limits the retry log: here each member's ring is in it once.\n";
  }
  text += fmt::format("\n{} has {} free.\n", machine.directory, format_bytes(machine.free_bytes));
  text += fmt::format("Descriptors: {} of the exchange, {} of each client; a process may have {}.\n",
                      format_count(plan.exchange_descriptors), format_count(plan.client_descriptors),
                      format_count(machine.open_files));
  text += fmt::format("Mappings of the exchange: {}, at most {}", format_count(plan.rest_mappings),
                      format_count(plan.most_mappings));
  text += machine.mappings == 0 ? ".\n" : fmt::format("; a process may have {}.\n", format_count(machine.mappings));
  return text;
}

int run(const Globals& globals, PlanOptions& options) {
  options.arguments.apply(options.shape.options);
  const BusPlan plan = plan_bus(options.shape);
  const Machine machine = look_around(globals.directory);
  const std::vector<std::string> problems = misfits(plan, machine);
  print(options.json ? document(plan, machine, problems).dump() + "\n"
                     : text(plan, machine, options.shape.options.guarantee == at_least_once));
  if (problems.empty()) return status_done;
  std::string all;
  for (const std::string& problem : problems) all += (all.empty() ? "" : "; ") + problem;
  throw Failure(status_not_so, "plan: " + all + ": plan smaller rings and limits, or raise what is named");
}

}  // namespace

void add_plan(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "plan", "What a bus will take of memory, files and descriptors",
      "At rest: every publisher and member is there, each a process of its own, and nothing waits. At "
      "most: every queue and\n"
      "dead-letter log is full. The other options are those of each subscription, as of subscription "
      "create; --members\n"
      "above 1 means --group. Looks at the file system of --dir and at the limits of this machine; needs "
      "no bus, and makes\n"
      "none. Exit status 1 if it does not fit.\n\n"
      "Examples:\n  shmtool plan --publishers 10 --subscriptions 100 --max-bytes 16MiB --max-dead 1MiB --event 2KiB\n"
      "  shmtool plan --members 8 --ring 64KiB --max-in-flight 1024 --json | jq .total");
  auto options = std::make_shared<PlanOptions>();
  BusShape& shape = options->shape;
  const auto number = [&command](const char* name, std::uint64_t& value, const char* description) {
    command.add_option(name, value, description)->type_name("N")->capture_default_str();
  };
  number("--publishers", shape.publishers, "Publishers");
  number("--subscriptions", shape.subscriptions, "Subscriptions");
  number("--members", shape.members, "Members of each subscription");
  number("--topics", shape.topics, "Topics, of 255 bytes each at most");
  number("--shards", shape.shards, "Threads of the exchange");
  add_size(command, "--publisher-ring", shape.publisher_ring_bytes, "Size of each publisher's ring (4MiB)");
  add_size(command, "--event", shape.event_bytes,
           "Size of the largest event: the smaller, the fewer bytes at the ends of log files stay empty (what the ring "
           "takes)");
  options->arguments.add_to(command);
  command.add_flag("--json", options->json, "JSON instead of tables");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
