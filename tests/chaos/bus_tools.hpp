// The bus as its tools show it, and what lies in its directory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ackring/options.hpp"

namespace ackring::chaos {

using Json = nlohmann::json;

struct Ran {
  int status = -1;  // exit status; -1: a signal, or it did not end in time
  std::string output = {};
};

/// Runs a program to its end, for a minute at most.
Ran run(const std::vector<std::string>& command);

/// What does not balance in a `stat --json`: each matched event is in exactly one place, each committed one too. Empty: all
/// does.
std::string imbalance(const Json& stat);

/// The row of that name in "publishers" or "subscriptions"; null if there is none.
Json row_of(const Json& stat, const char* table, const std::string& name);

/// Sum of the places of a row where something waits for somebody.
std::uint64_t waiting(const Json& row);

/// What an exchange and a bus directory hold.
struct Holdings {
  std::size_t descriptors = 0;  // of the exchange
  std::size_t mappings = 0;     // of files of the bus
  std::uint64_t bytes = 0;      // of all files but segments of logs, as allocated
  std::set<std::string> files = {};
};
Holdings look(const std::string& bus_directory, pid_t exchange);

/// What of `now` should not be there when no client is connected and nothing is queued. `before`: the same bus in the same
/// state, earlier. One line for each.
std::vector<std::string> leaks(const Holdings& before, const Holdings& now);

}  // namespace ackring::chaos
