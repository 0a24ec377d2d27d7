#include "tests/chaos/bus_tools.hpp"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>

#include "tests/chaos/notes.hpp"
#include "tools/common/child.hpp"

namespace ackring::chaos {

Ran run(const std::vector<std::string>& command) {
  tools::Child child = tools::Child::execute(command);
  Ran ran;
  const std::int64_t deadline = now_ns() + Nanoseconds(60s).count();
  while (now_ns() < deadline) {
    pollfd state{child.output_fd(), POLLIN, 0};
    if (::poll(&state, 1, 100) <= 0) continue;
    char chunk[65536];
    const ssize_t bytes = ::read(child.output_fd(), chunk, sizeof chunk);
    if (bytes <= 0) break;
    ran.output.append(chunk, static_cast<std::size_t>(bytes));
  }
  const auto status = child.wait(5s);
  ran.status = status ? *status : -1;
  return ran;
}

std::string imbalance(const Json& stat) {
  for (const Json& row : stat.at("subscriptions")) {
    std::uint64_t places = 0;
    for (const char* place :
         {"acked", "queued", "in_flight", "retry_waiting", "dlq_size", "dlq_removed", "expired", "purged"}) {
      places += row.at(place).get<std::uint64_t>();
    }
    for (const auto& [reason, count] : row.at("dropped").items()) places += count.get<std::uint64_t>();
    if (row.at("matched") != places) {
      return "matched is not the sum of its places (" + std::to_string(places) + "): " + row.dump();
    }
  }
  for (const Json& row : stat.at("publishers")) {
    std::uint64_t places = 0;
    for (const char* place : {"routed", "unroutable", "duplicates", "discarded", "in_ring"}) {
      places += row.at(place).get<std::uint64_t>();
    }
    if (row.at("committed") != places) {
      return "committed is not the sum of its places (" + std::to_string(places) + "): " + row.dump();
    }
    if (row.at("discarded") != 0) return "events were discarded as damaged: " + row.dump();
  }
  return {};
}

Json row_of(const Json& stat, const char* table, const std::string& name) {
  for (const Json& row : stat.at(table)) {
    if (row.at("name") == name) return row;
  }
  return nullptr;
}

std::uint64_t waiting(const Json& row) {
  std::uint64_t events = 0;
  for (const char* place : {"queued", "in_flight", "retry_waiting"}) events += row.at(place).get<std::uint64_t>();
  return events;
}

namespace {
const std::regex log_segment(R"(sub\.\d+\.(backlog|retry|dead)\.\d{8})");
// What a bus without clients may hold: the totals of publishers, and named subscriptions without a member. Rings of
// subscriptions stay only where something is in them.
const std::regex at_rest(R"(exchange(\.lock|\.sock)?|topics|pub\.\d+\.cursor\.\d+|sub\.\d+\.(json|state))");
// The totals of anonymous publishers are kept for the next one who is anonymous. There are as many as ever were there at
// once, and a visitor who was killed is there until the exchange has noticed: two visitors, up to four times each.
constexpr std::uint64_t most_publishers = publishers + 8;
constexpr std::uint64_t cursor_bytes = 8192;
}  // namespace

Holdings look(const std::string& bus_directory, pid_t exchange) {
  Holdings holdings;
  std::error_code gone;
  const std::string process = "/proc/" + std::to_string(exchange);
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(process + "/fd", gone)) {
    ++holdings.descriptors;
  }
  // Each thread beside the first has one to be woken by, and each shard maps the rings of publishers for itself. How many
  // there are is another number with each exchange.
  for (const auto& entry : std::filesystem::directory_iterator(process + "/task", gone)) {
    if (entry.path().filename() != std::to_string(exchange) && holdings.descriptors != 0) --holdings.descriptors;
  }
  std::set<std::string> rings;
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::size_t at = line.find(bus_directory);
    if (at == std::string::npos) continue;
    const std::string file = line.substr(at + bus_directory.size());
    const bool ring = file.find("/pub.") == 0 && file.find(".ring.") != std::string::npos;
    if (!ring || rings.insert(file).second) ++holdings.mappings;
  }
  for (const auto& entry : std::filesystem::directory_iterator(bus_directory, gone)) {
    struct stat status {};
    if (::stat(entry.path().c_str(), &status) != 0) continue;
    const std::string name = entry.path().filename();
    holdings.files.insert(name);
    if (!std::regex_match(name, log_segment)) holdings.bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  return holdings;
}

std::vector<std::string> leaks(const Holdings& before, const Holdings& now) {
  std::vector<std::string> lines;
  std::map<std::string, int> segments;
  std::size_t logs = 0;
  for (const std::string& file : now.files) {
    if (std::regex_match(file, log_segment)) {
      ++logs;
      if (++segments[file.substr(0, file.size() - 8)] > 1) lines.push_back("a log that is empty keeps " + file);
    } else if (!std::regex_match(file, at_rest)) {
      lines.push_back("file " + file);
    } else if (!file.starts_with("pub.") && !before.files.empty() && !before.files.contains(file)) {
      lines.push_back("file " + file + ", which was not there before");
    }
  }
  const auto more = [&lines](const char* what, std::uint64_t then, std::uint64_t is) {
    if (is > then) lines.push_back(std::string(what) + ": " + std::to_string(is) + ", before " + std::to_string(then));
  };
  if (before.files.empty()) return lines;
  const auto count_publishers = [](const Holdings& holdings) {
    return static_cast<std::uint64_t>(std::count_if(holdings.files.begin(), holdings.files.end(),
                                                    [](const std::string& file) { return file.starts_with("pub."); }));
  };
  const std::uint64_t had = count_publishers(before);
  const std::uint64_t has = count_publishers(now);
  if (has > had) more("files of publishers", most_publishers, has);
  const std::uint64_t added = has - std::min(had, has);
  more("descriptors", before.descriptors + added, now.descriptors);
  std::size_t logs_before = 0;
  for (const std::string& file : before.files) logs_before += std::regex_match(file, log_segment) ? 1 : 0;
  more("mappings beside those of logs", before.mappings - std::min(before.mappings, logs_before) + added,
       now.mappings - std::min(now.mappings, logs));
  more("bytes beside those of logs", before.bytes + added * cursor_bytes, now.bytes);
  return lines;
}

}  // namespace ackring::chaos
