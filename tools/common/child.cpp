#include "tools/common/child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;

Failure system_failure(const char* what) {
  return {status_refused,
          std::string(what) + ": " + std::strerror(errno) + ": check the limits of this user (ulimit -a)"};
}

// What every child does first. A signal that arrives between fork and here has the parent's handler: a flag only.
void become_child(pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // the parent died before it could be noticed
  ::signal(SIGTERM, SIG_DFL);
  ::signal(SIGINT, SIG_IGN);
}

}  // namespace

bool Channel::send(const nlohmann::json& message) {
  const std::string line = message.dump() + "\n";
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t sent = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return false;
    if (sent > 0) rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

std::optional<nlohmann::json> Channel::receive(Nanoseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (true) {
    if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      nlohmann::json message = nlohmann::json::parse(buffer_.substr(0, end));
      buffer_.erase(0, end + 1);
      if (message.contains("error"))
        throw Failure(message.at("status").get<ExitStatus>(), message.at("error").get<std::string>());
      return message;
    }
    if (stop_requested()) throw Failure(status_not_so, "stopped by a signal: there is no result: start it again");
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd state{fd_.get(), POLLIN, 0};
    const int ready = ::poll(&state, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 100)));
    if (ready > 0) {
      char chunk[16384];
      const ssize_t bytes = ::recv(fd_.get(), chunk, sizeof chunk, 0);
      if (bytes == 0 || (bytes < 0 && errno != EINTR))
        throw Failure(status_refused, "a child process ended too early: there is no result: see its message");
      if (bytes > 0) buffer_.append(chunk, static_cast<std::size_t>(bytes));
    } else if (left <= 0) {
      return std::nullopt;
    }
  }
}

nlohmann::json Channel::expect(Nanoseconds timeout, const std::string& what) {
  auto message = receive(timeout);
  if (!message)
    throw Failure(status_refused, what + ": no answer of the child process in time: is the machine overloaded?");
  return std::move(*message);
}

Child Child::start(const std::string& name, const std::function<void(Channel&)>& body) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw system_failure("socketpair");
  shm::UniqueFd parent_end(ends[0]);
  shm::UniqueFd child_end(ends[1]);
  const pid_t parent = ::getpid();
  Child child;
  child.pid_ = ::fork();
  if (child.pid_ < 0) throw system_failure("fork");
  if (child.pid_ > 0) {
    child.channel_ = Channel(std::move(parent_end));
    return child;
  }
  become_child(parent);
  ::prctl(PR_SET_NAME, name.c_str());
  parent_end.reset();
  int status = 0;
  Channel channel(std::move(child_end));
  const auto report = [&channel, &status](ExitStatus exit_status, const char* what) {
    status = exit_status;
    channel.send({{"error", what}, {"status", exit_status}});
  };
  try {
    body(channel);
  } catch (const Failure& failure) {
    report(failure.status(), failure.what());
  } catch (const Error& error) {
    report(status_of(error.code()), error.what());
  } catch (const std::exception& error) {
    report(status_refused, error.what());
  }
  ::_exit(status);  // the parent's objects are not this process's to destroy
}

Child Child::execute(const std::vector<std::string>& command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw system_failure("pipe");
  shm::UniqueFd read_end(ends[0]);
  const shm::UniqueFd write_end(ends[1]);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  Child child;
  child.pid_ = ::fork();
  if (child.pid_ < 0) throw system_failure("fork");
  if (child.pid_ == 0) {
    become_child(parent);
    ::dup2(write_end.get(), STDOUT_FILENO);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  child.output_ = std::move(read_end);
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      status_(other.status_),
      channel_(std::move(other.channel_)),
      output_(std::move(other.output_)) {}

Child::~Child() { stop(); }

std::optional<int> Child::wait(Nanoseconds timeout) noexcept {
  const auto deadline = Clock::now() + timeout;
  while (pid_ > 0) {
    int status = 0;
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended == pid_ || (ended < 0 && errno == ECHILD)) {
      pid_ = -1;
      status_ = ended > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    } else if (Clock::now() >= deadline) {
      return std::nullopt;
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  }
  return status_;
}

int Child::stop(Nanoseconds patience) noexcept {
  if (pid_ > 0) {
    ::kill(pid_, SIGTERM);
    if (!wait(patience)) {
      ::kill(pid_, SIGKILL);
      wait(std::chrono::seconds(10));
    }
  }
  return status_;
}

TemporaryDirectory::TemporaryDirectory(const std::string& purpose) {
  for (const char* parent : {"/dev/shm", "/tmp"}) {
    std::string path = std::string(parent) + "/ackring-" + purpose + "-XXXXXX";
    if (::mkdtemp(path.data()) != nullptr) {
      path_ = path;
      return;
    }
  }
  throw system_failure("/dev/shm: can't make a temporary directory");
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace ackring::tools
