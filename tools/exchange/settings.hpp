// Settings of ackring-exchange, from wherever they come: flags and the environment before a file, that before the defaults.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ackring/options.hpp"
#include "lib/control/access.hpp"
#include "lib/shm/directory.hpp"
#include "tools/exchange/log.hpp"

namespace ackring::tools {

struct Settings {
  std::string bus = "default";
  std::string directory = shm::default_directory();
  std::vector<int> cpus;
  std::size_t shards = 1;
  Wait wait = Wait::adaptive;
  int socket_group = -1;
  unsigned socket_mode = 0600;
  std::string access;                                // a file of rules; empty: none
  std::optional<control::AccessRules> access_rules;  // … or the rules themselves, from the file of settings
  std::string metrics;                               // ADDRESS:PORT to serve metrics at; empty: nowhere
  LogSettings log;
};

/// What the command line and the environment say.
struct Arguments {
  Settings settings;
  std::set<std::string> given;  // keys that a file does not change any more
  std::string config;           // the file; empty: there is none
  bool check_config = false;
};

/// Adds the flags to `app`. After it was parsed, call the function that comes back: it fills in `given`.
[[nodiscard]] std::function<void()> add_arguments(CLI::App& app, Arguments& arguments);

// Values as people write them. Each throws std::invalid_argument, which says what is wrong and what to write.
[[nodiscard]] int parse_group(const std::string& text);
[[nodiscard]] unsigned parse_mode(const std::string& text);
[[nodiscard]] std::vector<int> parse_cpus(const std::string& text);
[[nodiscard]] std::size_t parse_shards(const std::string& text);
/// An address and a port, such as 127.0.0.1:9464 or [::1]:9464.
void check_endpoint(const std::string& text);

}  // namespace ackring::tools
