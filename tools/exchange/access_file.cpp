#include "tools/exchange/access_file.hpp"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "lib/control/topic_pattern.hpp"
#include "lib/shm/descriptor.hpp"
#include "tools/common/program.hpp"
#include "tools/exchange/toml_text.hpp"

namespace ackring::tools {
namespace {

constexpr std::size_t most_file_bytes = 1u << 20;
constexpr std::int64_t most_id = std::numeric_limits<std::uint32_t>::max() - 1;  // the one above means nobody

// One file being read: what is wrong with it is said with the line where that stands.
class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  control::AccessRules rules(const toml::table& file) {
    control::AccessRules result;
    result.deny_unnamed = true;
    for (const auto& [key, value] : file) {
      if (key == "default") {
        const auto text = value.value<std::string>();
        if (text != "allow" && text != "deny")
          refuse(value, "default", "it is neither of two words", R"(write "allow" or "deny")");
        result.deny_unnamed = text == "deny";
      } else if (key == "rule") {
        const toml::array* tables = value.as_array();
        if (tables == nullptr) refuse(value, "rule", "it is no list of tables", "begin each rule with a line [[rule]]");
        for (const toml::node& table : *tables) {
          if (!table.is_table()) refuse(table, "rule", "it is no table", "begin each rule with a line [[rule]]");
          result.rules.push_back(rule(*table.as_table()));
        }
      } else {
        refuse(value, key.str(), "there is no such key", "use default and [[rule]]");
      }
    }
    for (const control::AccessRule& one : result.rules) {
      if (!result.deny_unnamed && one.uids.empty() && one.gids.empty()) {
        refuse(*file["default"].node(), "default",
               "it is \"allow\" for those whom no rule names, and a rule without uid and gid names everybody",
               R"(write "deny", or name somebody in that rule)");
      }
    }
    if (publish_bytes_ > control::most_publish_pattern_bytes) {
      refuse(file, "publish",
             fmt::format("the patterns of all rules have {} bytes, more than {}", publish_bytes_,
                         control::most_publish_pattern_bytes),
             "use fewer, wider ones");
    }
    return result;
  }

  [[noreturn]] void refuse(const toml::node& at, std::string_view key, const std::string& why,
                           const std::string& advice) const {
    refuse(at.source().begin.line, key, why, advice);
  }
  [[noreturn]] void refuse(std::size_t line, std::string_view key, const std::string& why,
                           const std::string& advice) const {
    throw Failure(status_usage, fmt::format("{}:{}: {}: {}: {}", name_, line, key, why, advice));
  }

 private:
  control::AccessRule rule(const toml::table& table) {
    control::AccessRule result;
    for (const auto& [key, value] : table) {
      if (key == "uid") {
        result.uids = ids(value, "uid", user_number);
      } else if (key == "gid") {
        result.gids = ids(value, "gid", group_number);
      } else if (key == "publish") {
        result.grants.publish = patterns(value, "publish");
        for (const std::string& pattern : result.grants.publish) publish_bytes_ += pattern.size() + 3;
      } else if (key == "subscribe") {
        result.grants.subscribe = patterns(value, "subscribe");
      } else if (key == "join") {
        result.grants.join = names(value, "join");
      } else if (key == "operate") {
        result.grants.operate = names(value, "operate");
      } else {
        refuse(value, key.str(), "a rule has no such key", "use uid, gid, publish, subscribe, join and operate");
      }
    }
    return result;
  }

  // The entries of a list; one alone may stand without brackets.
  template <class Each>
  void each(const toml::node& value, Each take) const {
    if (const toml::array* list = value.as_array(); list != nullptr) {
      for (const toml::node& entry : *list) take(entry);
    } else {
      take(value);
    }
  }

  static bool user_number(const std::string& name, std::uint32_t& number) {
    const passwd* entry = ::getpwnam(name.c_str());
    if (entry != nullptr) number = entry->pw_uid;
    return entry != nullptr;
  }
  static bool group_number(const std::string& name, std::uint32_t& number) {
    const group* entry = ::getgrnam(name.c_str());
    if (entry != nullptr) number = entry->gr_gid;
    return entry != nullptr;
  }

  template <class Find>
  [[nodiscard]] std::vector<std::uint32_t> ids(const toml::node& value, std::string_view key, Find find) const {
    const bool users = key == "uid";
    std::vector<std::uint32_t> numbers;
    each(value, [&](const toml::node& entry) {
      std::uint32_t number = 0;
      if (entry.is_integer()) {
        const std::int64_t given = entry.as_integer()->get();
        if (given < 0 || given > most_id) {
          refuse(entry, key, fmt::format("{} is out of limits", given), fmt::format("write 0 to {}", most_id));
        }
        number = static_cast<std::uint32_t>(given);
      } else if (entry.is_string()) {
        const std::string& name = entry.as_string()->get();
        if (!find(name, number)) {
          refuse(entry, key, fmt::format("'{}' is no {} here", name, users ? "user" : "group"),
                 users ? "see getent passwd" : "see getent group");
        }
      } else {
        refuse(entry, key, "it is neither a name nor a number", R"(write such as ["trader", 1001])");
      }
      numbers.push_back(number);
    });
    if (numbers.empty()) refuse(value, key, "the list is empty", "name somebody, or leave it out to name everybody");
    return numbers;
  }

  [[nodiscard]] std::vector<std::string> texts(const toml::node& value, std::string_view key,
                                               const std::string& example) const {
    std::vector<std::string> result;
    each(value, [&](const toml::node& entry) {
      if (!entry.is_string()) refuse(entry, key, "it is no text", "write such as [\"" + example + "\"]");
      result.push_back(entry.as_string()->get());
      check(entry, key, result.back());
    });
    return result;
  }
  [[nodiscard]] std::vector<std::string> patterns(const toml::node& value, std::string_view key) const {
    return texts(value, key, "orders.#");
  }
  [[nodiscard]] std::vector<std::string> names(const toml::node& value, std::string_view key) const {
    return texts(value, key, "billing-*");
  }

  void check(const toml::node& at, std::string_view key, const std::string& text) const {
    if (key == "publish" || key == "subscribe") {
      const std::string problem = control::pattern_problem(text);
      if (!problem.empty()) refuse(at, key, "'" + text + "': " + problem, "write such as orders.*.created or orders.#");
      return;
    }
    constexpr std::string_view allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-*";
    const bool reserved = text.starts_with('@');
    if (text.size() == (reserved ? 1 : 0) || text.find_first_not_of(allowed, reserved ? 1 : 0) != std::string::npos) {
      refuse(at, key, "'" + text + "' can be no name of a subscription",
             "use [A-Za-z0-9_.-], and * for any run of these; or @last and @ids");
    }
  }

  const std::string& name_;
  std::size_t publish_bytes_ = 0;
};

}  // namespace

control::AccessRules access_rules_of_table(const toml::table& table, const std::string& name) {
  return Reader(name).rules(table);
}

control::AccessRules parse_access_rules(std::string_view text, const std::string& name) {
  try {
    return access_rules_of_table(toml::parse(text, name), name);
  } catch (const toml::parse_error& error) {
    Reader(name).refuse(error.source().begin.line, "TOML", std::string(error.description()), "see https://toml.io");
  }
}

control::AccessRules read_access_file(const std::string& path) {
  return parse_access_rules(read_own_file(path, "give --access a file of rules", "use fewer, wider rules"), path);
}

std::string read_own_file(const std::string& path, const std::string& advice, const std::string& larger) {
  const auto refused = [&path](const std::string& why, const std::string& what_to_do) {
    return Failure(status_refused, fmt::format("{}: {}: {}", path, why, what_to_do));
  };
  const shm::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    throw refused(std::string("can't open it: ") + std::strerror(errno), advice);
  }
  if (!S_ISREG(status.st_mode)) throw refused("it is no file", advice);
  if ((status.st_uid != 0 && status.st_uid != ::geteuid()) || (status.st_mode & 0022) != 0) {
    throw refused(fmt::format("owner {} and mode {:04o} let others change it", status.st_uid, status.st_mode & 07777),
                  "make it root's or this user's own, and chmod go-w");
  }
  std::string text;
  char part[4096];
  ssize_t got = 0;
  while ((got = ::read(fd.get(), part, sizeof part)) > 0) {
    text.append(part, static_cast<std::size_t>(got));
    if (text.size() > most_file_bytes) throw refused("it has more than 1 MiB", larger);
  }
  if (got < 0) throw refused(std::string("can't read it: ") + std::strerror(errno), "see its file system");
  return text;
}

}  // namespace ackring::tools
