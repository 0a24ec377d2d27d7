// What every program does alike: exit status, one-line errors, output that ends cleanly, signals.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>

#include "ackring/error.hpp"
#include "ackring/options.hpp"

namespace ackring::tools {

enum ExitStatus : int {
  status_done = 0,
  status_not_so = 1,   ///< what was asked is not so: no such subscription, a check failed, not reached in time
  status_usage = 2,    ///< wrong usage
  status_refused = 3,  ///< the system refused: no exchange, busy, permission
};

/// Ends the program with `status` and `PROGRAM: message` on stderr. `message` is "what: why: what to do".
class Failure : public std::runtime_error {
 public:
  Failure(ExitStatus status, const std::string& message) : std::runtime_error(message), status_(status) {}
  [[nodiscard]] ExitStatus status() const noexcept { return status_; }

 private:
  ExitStatus status_;
};

/// Nobody reads stdout any more: the program ends with status 0.
struct ClosedPipe {};

[[nodiscard]] ExitStatus status_of(ErrorCode code) noexcept;

/// Parses the command line, then calls `body`. Prints help and version (status 0), maps wrong usage to status 2, and
/// Failure, Error and ClosedPipe to their status, each error as one line. Ignores SIGPIPE, and raises the soft limit of
/// open files to the hard one.
int run_program(const std::string& name, CLI::App& app, int argc, char** argv, const std::function<int()>& body);

/// `name: message` on stderr, as one line.
void print_error(const std::string& name, std::string_view message);

/// Writes all of `text` to stdout. Throws ClosedPipe, or Failure (status_refused) if it can't be written.
void print(std::string_view text);

/// True if stdout is a pipe or socket that nobody reads any more.
[[nodiscard]] bool stdout_closed() noexcept;

/// From now on SIGINT and SIGTERM only set what stop_requested() answers.
void catch_stop_signals();
[[nodiscard]] bool stop_requested() noexcept;

/// Options with values that CLI11 does not know. They answer a wrong value with an error that names the option.
CLI::Option* add_duration(CLI::App& app, const std::string& names, Nanoseconds& value, const std::string& description);
CLI::Option* add_size(CLI::App& app, const std::string& names, std::uint64_t& value, const std::string& description);
/// Throws std::invalid_argument.
[[nodiscard]] Wait parse_wait(const std::string& text);
CLI::Option* add_wait(CLI::App& app, Wait& value, const std::string& description);
/// Checks that a value is a number above 0. (The error of CLI::PositiveNumber spells out the range of a double.)
[[nodiscard]] CLI::Validator above_zero();

/// One option whose text `parse` turns into a value; a std::invalid_argument that it throws becomes a usage error.
CLI::Option* add_parsed(CLI::App& app, const std::string& names, const std::string& type,
                        const std::string& description, const std::function<void(const std::string&)>& parse);

}  // namespace ackring::tools
