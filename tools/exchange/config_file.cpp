#include "tools/exchange/config_file.hpp"

#include <unistd.h>

#include <charconv>
#include <map>
#include <stdexcept>

#include <fmt/format.h>

#include "lib/shm/directory.hpp"
#include "tools/common/program.hpp"
#include "tools/exchange/access_file.hpp"
#include "tools/exchange/config_reader.hpp"
#include "tools/exchange/toml_text.hpp"

namespace ackring::tools {
namespace {

using Set = std::function<void(Settings&)>;

template <class T, class Parse>
Set set_parsed(T Settings::*field, Parse parse, const std::string& text) {
  return [field, value = parse(text)](Settings& settings) { settings.*field = value; };
}

// What sets a key to this text. Throws std::invalid_argument.
const std::map<std::string, std::function<Set(const std::string&)>>& parsers() {
  static const std::map<std::string, std::function<Set(const std::string&)>> table{
      {"bus",
       [](const std::string& text) -> Set {
         shm::check_name("bus", text);
         return [text](Settings& settings) { settings.bus = text; };
       }},
      {"dir",
       [](const std::string& text) -> Set {
         if (text.empty()) throw std::invalid_argument("it is empty: write a path, or leave it out");
         return [text](Settings& settings) { settings.directory = text; };
       }},
      {"cpu", [](const std::string& text) { return set_parsed(&Settings::cpus, parse_cpus, text); }},
      {"shards", [](const std::string& text) { return set_parsed(&Settings::shards, parse_shards, text); }},
      {"wait", [](const std::string& text) { return set_parsed(&Settings::wait, parse_wait, text); }},
      {"socket_group", [](const std::string& text) { return set_parsed(&Settings::socket_group, parse_group, text); }},
      {"socket_mode", [](const std::string& text) { return set_parsed(&Settings::socket_mode, parse_mode, text); }},
      {"access",
       [](const std::string& text) -> Set {
         return [text](Settings& settings) {
           settings.access = text;
           settings.access_rules.reset();
         };
       }},
      {"metrics",
       [](const std::string& text) -> Set {
         check_endpoint(text);
         return [text](Settings& settings) { settings.metrics = text; };
       }},
      {"log.level",
       [](const std::string& text) -> Set {
         return [level = parse_log_level(text)](Settings& settings) { settings.log.level = level; };
       }},
      {"log.format",
       [](const std::string& text) -> Set {
         return [format = parse_log_format(text)](Settings& settings) { settings.log.format = format; };
       }},
      {"log.file",
       [](const std::string& text) -> Set { return [text](Settings& settings) { settings.log.file = text; }; }},
  };
  return table;
}

class FileReader : public ConfigReader {
 public:
  using ConfigReader::ConfigReader;

  void read(const toml::table& file) {
    for (const auto& [key, value] : file) {
      const std::string name = plain(key.str());
      if (name == "subscription") {
        read_subscriptions(value);
      } else if (name == "log" && value.is_table()) {
        for (const auto& [inner, setting] : *value.as_table()) {
          read_setting("log." + plain(inner.str()), setting, "level, format and file");
        }
      } else if (name == "access" && value.is_table()) {
        read_access(*value.as_table());
      } else {
        read_setting(name, value,
                     "bus, dir, cpu, shards, wait, socket_group, socket_mode, access, metrics, [log] and "
                     "[[subscription]]");
      }
    }
  }

 private:
  void read_setting(const std::string& key, const toml::node& value, const std::string& all) {
    const auto at = parsers().find(key);
    if (at == parsers().end()) return refuse(value, key, "there is no such key", "use " + all);
    std::optional<std::string> text = text_of(value);
    if (const toml::array* list = value.as_array(); list != nullptr && key == "cpu") {
      std::vector<std::string> cpus;
      for (const toml::node& cpu : *list) cpus.push_back(cpu.is_integer() ? *text_of(cpu) : "?");
      text = fmt::format("{}", fmt::join(cpus, ","));
    }
    const bool number = key == "cpu" || key == "shards";
    const bool fits = value.is_string() || (number && (value.is_integer() || value.is_array()));
    if (!text || !fits) {
      return refuse(value, key, number ? "it is neither a number nor a text" : "it is no text",
                    number ? "write such as 1" : "write it in quotes");
    }
    attempt(value, key, [&] { result.settings.emplace_back(key, at->second(*text)); });
  }

  void read_access(const toml::table& table) {
    try {
      result.settings.emplace_back("access", [rules = access_rules_of_table(table, name())](Settings& settings) {
        settings.access.clear();
        settings.access_rules = rules;
      });
    } catch (const Failure& failure) {
      add_access_error(table, failure.what());
    }
  }

  // Only the first one, which says `FILE:LINE: key: why: what to do`.
  void add_access_error(const toml::table& table, std::string_view message) {
    std::size_t line = table.source().begin.line;
    message.remove_prefix(name().size() + 1);
    const std::size_t colon = message.find(": ");
    std::from_chars(message.data(), message.data() + colon, line);
    const std::size_t key = message.find(": ", colon + 2);
    add_error(line, fmt::format("key 'access.{}'{}", message.substr(colon + 2, key - colon - 2), message.substr(key)));
  }
};

}  // namespace

ConfigFile parse_config(std::string_view text, const std::string& name) {
  FileReader reader(name);
  try {
    reader.read(toml::parse(text, name));
  } catch (const toml::parse_error& error) {
    reader.add_error(error.source().begin.line, fmt::format("no TOML: {}: see https://toml.io", error.description()));
  }
  return reader.take();
}

ConfigFile read_config_file(const std::string& path) {
  return parse_config(read_own_file(path, "give --config a file of settings", "split it"), path);
}

Settings settings_of(const Arguments& arguments, const ConfigFile& file) {
  Settings settings = arguments.settings;
  for (const auto& [key, set] : file.settings) {
    if (!arguments.given.contains(key)) set(settings);
  }
  return settings;
}

control::AccessRules access_rules_of(const Settings& settings) {
  if (settings.access_rules) return *settings.access_rules;
  return settings.access.empty() ? control::AccessRules{} : read_access_file(settings.access);
}

ConfigFile read_config(const Arguments& arguments) {
  if (arguments.config.empty()) return {};
  ConfigFile file = read_config_file(arguments.config);
  if (file.errors.empty()) return file;
  const std::size_t more = file.errors.size() - 1;
  throw Failure(status_usage,
                more == 0 ? file.errors[0] : fmt::format("{} ({} more: see --check-config)", file.errors[0], more));
}

int check_config(const Arguments& arguments) {
  ConfigFile file = read_config_file(arguments.config);
  if (file.errors.empty()) {
    try {
      (void)access_rules_of(settings_of(arguments, file));
    } catch (const Failure& failure) {
      file.errors.emplace_back(failure.what());
    }
  }
  for (const std::string& error : file.errors) print_error("ackring-exchange", error);
  if (!file.errors.empty()) return status_usage;
  print(arguments.config + ": ok\n");
  return status_done;
}

}  // namespace ackring::tools
