#include "tools/common/program.hpp"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <iostream>

#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

volatile std::sig_atomic_t stop_flag = 0;

// The command that was being parsed when the error came, for "see … --help".
std::string command_path(const std::string& name, const CLI::App& app) {
  std::string path = name;
  for (const CLI::App* command = &app; !command->get_subcommands().empty();) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  return path;
}

int usage_error(const std::string& name, CLI::App& app, const CLI::ParseError& error) {
  const std::string path = command_path(name, app);
  std::string message = error.what();
  if (const auto* missing = dynamic_cast<const CLI::RequiredError*>(&error)) {
    message = std::string("an argument is missing: ") + missing->what();
  } else if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    message = "wrong usage: " + message;
  }
  print_error(name, message + ": see " + path + " --help");
  return status_usage;
}

// Every client, publisher and member takes descriptors, of the exchange and of the program that has many of them. The
// usual soft limit of 1,024 is for programs that use select(), which these do not.
void raise_descriptor_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // where it is refused, the limit is named by whoever hits it
}

}  // namespace

ExitStatus status_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::not_found:
    case ErrorCode::not_empty:
      return status_not_so;
    case ErrorCode::invalid_argument:
    case ErrorCode::option_mismatch:
      return status_usage;
    default:
      return status_refused;
  }
}

int run_program(const std::string& name, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  std::signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  try {
    app.parse(argc, argv);
    return body();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return usage_error(name, app, error);
    return app.exit(error);  // help or version
  } catch (const ClosedPipe&) {
    return status_done;
  } catch (const Failure& failure) {
    print_error(name, failure.what());
    return failure.status();
  } catch (const Error& error) {
    print_error(name, error.what());
    return status_of(error.code());
  } catch (const std::exception& error) {
    print_error(name, std::string("unexpected error: ") + error.what());
    return status_refused;
  }
}

void print_error(const std::string& name, std::string_view message) {
  std::string line = name + ": " + std::string(message);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  line += '\n';
  // One write, so that lines of several processes do not mix. Nothing can be done if stderr is gone.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EPIPE) {
      throw ClosedPipe();
    } else if (errno == EAGAIN) {
      pollfd wait{STDOUT_FILENO, POLLOUT, 0};
      ::poll(&wait, 1, 100);
    } else if (errno != EINTR) {
      throw Failure(status_refused, std::string("stdout: can't write: ") + std::strerror(errno));
    } else if (stop_requested()) {
      throw ClosedPipe();  // a reader that does not read must not keep a program from ending
    }
  }
}

bool stdout_closed() noexcept {
  pollfd state{STDOUT_FILENO, 0, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLNVAL)) != 0;
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_flag = 1; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool stop_requested() noexcept { return stop_flag != 0; }

CLI::Option* add_parsed(CLI::App& app, const std::string& names, const std::string& type,
                        const std::string& description, const std::function<void(const std::string&)>& parse) {
  return app
      .add_option_function<std::string>(
          names,
          [parse, names](const std::string& text) {
            try {
              parse(text);
            } catch (const std::invalid_argument& error) {
              throw CLI::ValidationError(names, error.what());
            }
          },
          description)
      ->type_name(type);
}

CLI::Option* add_duration(CLI::App& app, const std::string& names, Nanoseconds& value, const std::string& description) {
  return add_parsed(app, names, "DURATION", description,
                    [&value](const std::string& text) { value = parse_duration(text); });
}

CLI::Option* add_size(CLI::App& app, const std::string& names, std::uint64_t& value, const std::string& description) {
  return add_parsed(app, names, "SIZE", description, [&value](const std::string& text) { value = parse_size(text); });
}

CLI::Validator above_zero() {
  return {[](std::string& text) {
            double number = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
            const bool good = error == std::errc() && end == text.data() + text.size() && number > 0;
            return good ? std::string() : "'" + text + "' is not a number above 0";
          },
          "POSITIVE", "above_zero"};
}

Wait parse_wait(const std::string& text) {
  if (text == "spin") return Wait::spin;
  if (text == "adaptive") return Wait::adaptive;
  if (text == "park") return Wait::park;
  throw std::invalid_argument("'" + text + "' is not a way to wait: choose spin, adaptive or park");
}

CLI::Option* add_wait(CLI::App& app, Wait& value, const std::string& description) {
  return add_parsed(app, "--wait", "spin|adaptive|park", description,
                    [&value](const std::string& text) { value = parse_wait(text); });
}

}  // namespace ackring::tools
