#include "tools/shmtool/demo_input.hpp"

#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

constexpr const char* package_log = "/var/log/dpkg.log";

DemoInput read_package_log() {
  DemoInput input;
  input.source = package_log;
  std::ifstream file(package_log);
  for (std::string line; std::getline(file, line);) {
    std::string topic = dpkg_topic(line);
    if (topic.empty()) continue;
    input.events.push_back({std::move(topic), std::move(line), {}, {}});
    line.clear();
  }
  return input;
}

DemoInput read_package_list() {
  DemoInput input;
  input.source = "dpkg-query -W";
  std::FILE* pipe = ::popen("dpkg-query -W 2>/dev/null", "r");
  if (pipe == nullptr) return input;
  std::string output;
  char chunk[4096];
  for (std::size_t bytes = 0; (bytes = std::fread(chunk, 1, sizeof chunk, pipe)) > 0;) output.append(chunk, bytes);
  ::pclose(pipe);
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const std::string package = line.substr(0, line.find_first_of(" \t"));
    if (!package.empty()) input.events.push_back({"dpkg.installed." + topic_word(package), line, {}, {}});
  }
  return input;
}

}  // namespace

std::string topic_word(std::string_view text) {
  std::string word;
  for (const char c : text.substr(0, 64)) {
    const bool kept =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    word += kept ? c : '_';
  }
  return word.empty() ? "_" : word;
}

// Lines are `DATE TIME ACTION …`. After most actions the package follows; after `status` comes the new state first;
// `startup` and `conffile` lines name no package.
std::string dpkg_topic(std::string_view line) {
  std::istringstream words{std::string(line)};
  std::string date;
  std::string time;
  std::string action;
  std::string package;
  words >> date >> time >> action >> package;
  if (action == "status") words >> package;
  if (package.empty() || action == "startup" || action == "conffile") return {};
  return "dpkg." + topic_word(action) + "." + topic_word(package);
}

DemoInput read_packages() {
  DemoInput input = read_package_log();
  if (input.events.empty()) input = read_package_list();
  if (input.events.empty()) {
    throw Failure(status_not_so, std::string("demo: ") + package_log +
                                     " is empty and dpkg-query lists nothing: give events with --ndjson FILE");
  }
  return input;
}

DemoInput read_ndjson(const std::string& path) {
  DemoInput input;
  input.source = path;
  LineReader reader(path, 1);
  for (std::string line; reader.next(line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      Event event;
      parse_event(line, {}, event);
      input.events.push_back(std::move(event));
    } catch (const std::invalid_argument& error) {
      throw Failure(status_usage, reader.where() + ": " + error.what());
    }
  }
  if (input.events.empty()) throw Failure(status_usage, path + ": it holds no events: write one object per line");
  return input;
}

}  // namespace ackring::tools
