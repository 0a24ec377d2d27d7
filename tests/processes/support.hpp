// Actors of these tests: real processes around one bus in a directory of its own. All are children of the test, each is
// killed when the test process dies, and the directory goes with its test.
//
// Thread rules: the test process forks, so it has no threads (and no Bus) while it starts children.
#pragma once

#include <doctest/doctest.h>

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ackring/ackring.hpp"
#include "tools/common/child.hpp"
#include "tools/common/program.hpp"

namespace ackring::test {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using tools::Channel;
using tools::Child;
using tools::TemporaryDirectory;

inline constexpr Nanoseconds patience = 30s;  // how long anything may take on a busy machine before a test fails
inline const char* const bus_name = "test";

inline std::int64_t now_ns() {
  return std::chrono::duration_cast<Nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A program of this build; its path comes from meson.
inline std::string program(const char* variable) {
  const char* path = std::getenv(variable);
  if (path == nullptr)
    throw std::runtime_error(std::string(variable) + " is not set: run this test through meson test");
  return path;
}

/// A number that makes a run smaller or larger.
inline std::uint64_t amount(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// The descriptors that a test needs; false where the system does not give them.
inline bool raise_descriptors(rlim_t needed) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= needed) return true;
  limit.rlim_cur = std::min(limit.rlim_max, std::max<rlim_t>(needed, limit.rlim_cur));
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= needed) return true;
  MESSAGE("skipped: it needs " << needed << " descriptors, and ulimit -Hn is " << limit.rlim_max);
  return false;
}

/// For children, where doctest's checks would go unseen: what is thrown here fails the parent's receive().
inline void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

/// Looks again every millisecond, until the condition holds or patience ends.
template <class Condition>
bool eventually(Condition condition, Nanoseconds longest = patience) {
  const std::int64_t deadline = now_ns() + longest.count();
  while (!condition()) {
    if (now_ns() >= deadline) return false;
    ::poll(nullptr, 0, 1);
  }
  return true;
}

inline BusOptions bus_options(const std::string& directory, ExchangeMode mode = ExchangeMode::require) {
  BusOptions options;
  options.directory = directory;
  options.exchange = mode;
  options.timeout = patience;
  return options;
}

inline Bus open_bus(const std::string& directory) { return Bus::open(bus_name, bus_options(directory)); }

/// Asks again while the name is held by one whose death the exchange has not seen yet.
template <class Make>
auto when_free(Make make) {
  const std::int64_t deadline = now_ns() + patience.count();
  while (true) {
    try {
      return make();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::busy || now_ns() > deadline) throw;
    }
  }
}

/// Reads what a program prints until `end` says that it is enough, or it ends.
template <class End>
std::string read_output(int fd, End end, Nanoseconds longest = patience) {
  std::string text;
  const std::int64_t deadline = now_ns() + longest.count();
  while (!end(text) && now_ns() < deadline) {
    pollfd state{fd, POLLIN, 0};
    if (::poll(&state, 1, 100) <= 0) continue;
    char chunk[4096];
    const ssize_t bytes = ::read(fd, chunk, sizeof chunk);
    if (bytes <= 0) break;
    text.append(chunk, static_cast<std::size_t>(bytes));
  }
  return text;
}

/// An ackring-exchange that serves.
class ExchangeProcess {
 public:
  explicit ExchangeProcess(const std::string& directory, const std::vector<std::string>& options = {})
      : child_(Child::execute(command(directory, options))) {
    const std::string line =
        read_output(child_.output_fd(), [](const std::string& text) { return text.ends_with('\n'); });
    if (!line.starts_with("ready ")) throw std::runtime_error("the exchange is not ready: '" + line + "'");
  }
  [[nodiscard]] pid_t pid() const { return child_.pid(); }
  void signal(int number) const { ::kill(child_.pid(), number); }
  /// SIGKILL, and the wait for the end.
  void kill() {
    signal(SIGKILL);
    child_.wait(patience);
  }
  int stop() { return child_.stop(patience); }

 private:
  static std::vector<std::string> command(const std::string& directory, const std::vector<std::string>& options) {
    std::vector<std::string> words = {program("ACKRING_EXCHANGE"), "--dir", directory, "--bus", bus_name};
    words.insert(words.end(), options.begin(), options.end());
    return words;
  }

  Child child_;
};

struct Ran {
  int status;
  std::string output;
};

/// Runs a program to its end.
inline Ran run(std::vector<std::string> command) {
  Child child = Child::execute(command);
  std::string output = read_output(child.output_fd(), [](const std::string&) { return false; });
  const auto status = child.wait(patience);
  return {status ? *status : -1, std::move(output)};
}

inline Json shm_stat(const std::string& directory) {
  const Ran ran = run({program("ACKRING_SHMTOOL"), "--dir", directory, "--bus", bus_name, "stat", "--json"});
  if (ran.status != 0) throw std::runtime_error("shmtool stat: exit status " + std::to_string(ran.status));
  return Json::parse(ran.output);
}

/// The books of INTERFACES: each matched event is in exactly one place; each committed one too.
inline void check_books(const Json& stat) {
  for (const Json& row : stat.at("subscriptions")) {
    std::uint64_t places = 0;
    for (const char* place :
         {"acked", "queued", "in_flight", "retry_waiting", "dlq_size", "dlq_removed", "expired", "purged"}) {
      places += row.at(place).get<std::uint64_t>();
    }
    for (const auto& [reason, count] : row.at("dropped").items()) places += count.get<std::uint64_t>();
    INFO(row.dump());
    CHECK(row.at("matched") == places);
    CHECK(row.at("last").get<std::uint64_t>() ==
          row.at("committed").get<std::uint64_t>() + row.at("lag").get<std::uint64_t>());
  }
  for (const Json& row : stat.at("publishers")) {
    std::uint64_t places = 0;
    for (const char* place : {"routed", "unroutable", "duplicates", "discarded", "denied", "in_ring"}) {
      places += row.at(place).get<std::uint64_t>();
    }
    INFO(row.dump());
    CHECK(row.at("committed") == places);
  }
}

inline Json row_of(const Json& stat, const char* table, const std::string& name) {
  for (const Json& row : stat.at(table)) {
    if (row.at("name") == name) return row;
  }
  throw std::runtime_error("stat has no " + name + " in " + table);
}

/// The middle one, for figures that are printed.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}
inline double largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

}  // namespace ackring::test
