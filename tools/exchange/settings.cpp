#include "tools/exchange/settings.hpp"

#include <arpa/inet.h>
#include <grp.h>

#include <array>
#include <charconv>
#include <map>
#include <stdexcept>

#include <fmt/format.h>

#include "lib/shm/format.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

template <class T>
bool is_number(std::string_view text, T& number, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

int parse_group(const std::string& text) {
  int number = 0;
  if (is_number(text, number) && number >= 0) return number;
  const group* entry = ::getgrnam(text.c_str());
  if (entry == nullptr) throw std::invalid_argument("'" + text + "' is no group here: see getent group");
  return static_cast<int>(entry->gr_gid);
}

unsigned parse_mode(const std::string& text) {
  unsigned mode = 0;
  if (!is_number(text, mode, 8) || mode > 0777) {
    throw std::invalid_argument("'" + text + "' is not a mode: write it in octal, such as 0660");
  }
  return mode;
}

std::vector<int> parse_cpus(const std::string& text) {
  std::vector<int> cpus;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    int cpu = 0;
    if (!is_number(std::string_view(text).substr(from, comma - from), cpu) || cpu < 0) {
      throw std::invalid_argument("'" + text + "' is no list of cores: write such as 1 or 0,2");
    }
    cpus.push_back(cpu);
    from = comma + 1;
  }
  return cpus;
}

std::size_t parse_shards(const std::string& text) {
  std::size_t shards = 0;
  if (!is_number(text, shards) || shards < 1 || shards > shm::max_shards) {
    throw std::invalid_argument(fmt::format("'{}' is no number of shards: write 1 to {}", text, shm::max_shards));
  }
  return shards;
}

void check_endpoint(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::uint16_t port = 0;
  bool good = colon != std::string::npos && is_number(std::string_view(text).substr(colon + 1), port) && port != 0;
  if (good) {
    std::string address = text.substr(0, colon);
    const bool brackets = address.size() > 2 && address.front() == '[' && address.back() == ']';
    if (brackets) address = address.substr(1, address.size() - 2);
    std::array<unsigned char, sizeof(in6_addr)> binary{};
    good = ::inet_pton(brackets ? AF_INET6 : AF_INET, address.c_str(), binary.data()) == 1;
  }
  if (!good) {
    throw std::invalid_argument("'" + text + "' is no address with a port: write such as 127.0.0.1:9464 or [::1]:9464");
  }
}

std::function<void()> add_arguments(CLI::App& app, Arguments& arguments) {
  Settings& settings = arguments.settings;
  std::map<std::string, const CLI::Option*> keys;
  app.add_option("--config", arguments.config, "File of settings and subscriptions: docs/configuration.md")
      ->envname("ACKRING_CONFIG")
      ->type_name("FILE.toml");
  app.add_flag("--check-config", arguments.check_config,
               "Say what is wrong with the file, and do nothing else: status 0 if nothing is, 2 otherwise")
      ->needs("--config");
  keys["bus"] = app.add_option("--bus", settings.bus, "Name of the bus")->envname("ACKRING_BUS")->capture_default_str();
  keys["dir"] = app.add_option("--dir", settings.directory, "Directory that holds buses; made if it is missing")
                    ->envname("ACKRING_DIR")
                    ->capture_default_str();
  keys["cpu"] =
      add_parsed(app, "--cpu", "LIST", "Cores to run on: a list, of which the shards take one each in turn (any)",
                 [&settings](const std::string& text) { settings.cpus = parse_cpus(text); });
  keys["shards"] =
      add_parsed(
          app, "--shards", "N",
          "Threads among which subscriptions are shared out, 1 to 4: docs/architecture.md says when more pay (1)",
          [&settings](const std::string& text) { settings.shards = parse_shards(text); })
          ->envname("ACKRING_SHARDS");
  keys["wait"] =
      add_wait(app, settings.wait, "What to do when there is nothing to do (adaptive: spin, then yield, then sleep)");
  keys["socket_group"] =
      add_parsed(app, "--socket-group", "GROUP", "Group of the control socket (name or number)",
                 [&settings](const std::string& text) { settings.socket_group = parse_group(text); });
  keys["socket_mode"] = add_parsed(app, "--socket-mode", "MODE", "Mode of the control socket, octal (0600)",
                                   [&settings](const std::string& text) { settings.socket_mode = parse_mode(text); });
  keys["access"] =
      app.add_option(
             "--access", settings.access,
             "Rules that say which users may publish, subscribe and operate what (all may do all): docs/access.md")
          ->envname("ACKRING_ACCESS")
          ->type_name("FILE.toml");
  keys["metrics"] = add_parsed(app, "--metrics", "ADDRESS:PORT",
                               "Serve metrics there, for Prometheus, at /metrics (nowhere): docs/metrics.md",
                               [&settings](const std::string& text) {
                                 check_endpoint(text);
                                 settings.metrics = text;
                               })
                        ->envname("ACKRING_METRICS");
  keys["log.level"] =
      add_parsed(app, "--log-level", "trace|debug|info|warn|error|off", "The least that is logged (info)",
                 [&settings](const std::string& text) { settings.log.level = parse_log_level(text); })
          ->envname("ACKRING_LOG_LEVEL");
  keys["log.format"] =
      add_parsed(app, "--log-format", "text|json", "Lines for people, or a JSON object each (text)",
                 [&settings](const std::string& text) { settings.log.format = parse_log_format(text); })
          ->envname("ACKRING_LOG_FORMAT");
  keys["log.file"] =
      app.add_option("--log-file", settings.log.file, "Append the log to this file; SIGHUP opens it anew (stderr)")
          ->envname("ACKRING_LOG_FILE")
          ->type_name("FILE");
  return [&arguments, keys] {
    for (const auto& [key, option] : keys) {
      if (option->count() != 0) arguments.given.insert(key);  // on the command line or in the environment
    }
  };
}

}  // namespace ackring::tools
