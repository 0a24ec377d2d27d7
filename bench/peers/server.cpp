#include "bench/peers/server.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "lib/shm/descriptor.hpp"
#include "tools/common/program.hpp"

namespace ackring::peers {
namespace {

using Clock = std::chrono::steady_clock;
using tools::Failure;

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The end of what a server wrote, as one line.
std::string last_words(const std::string& path) {
  std::string text = content_of(path);
  if (text.size() > 400) text.erase(0, text.size() - 400);
  for (char& character : text) {
    if (character == '\n') character = ' ';
  }
  return text.empty() ? "it wrote nothing" : "it wrote last: " + text;
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

Server::Server(std::string what, const std::vector<std::string>& command, const std::string& log_path,
               const std::vector<std::pair<std::string, std::string>>& variables)
    : what_(std::move(what)), log_path_(log_path) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const shm::UniqueFd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const shm::UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (log.get() < 0 || nothing.get() < 0)
    throw Failure(tools::status_refused, log_path + ": can't write it: " + std::strerror(errno));
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw Failure(tools::status_refused, what_ + ": can't fork: " + std::strerror(errno));
  if (pid_ > 0) {
    ::setpgid(pid_, pid_);  // the child does the same: whoever comes first
    group_ = pid_;
    return;
  }
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::signal(SIGTERM, SIG_DFL);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGPIPE, SIG_DFL);
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  ::dup2(nothing.get(), STDIN_FILENO);
  ::dup2(log.get(), STDOUT_FILENO);
  ::dup2(log.get(), STDERR_FILENO);
  ::execvp(arguments[0], arguments.data());
  std::perror(arguments[0]);
  ::_exit(127);
}

Server::~Server() {
  ::kill(-group_, SIGTERM);
  const auto deadline = Clock::now() + std::chrono::seconds(10);
  while (running() && Clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  // The group outlives its leader while something that it has started still runs.
  ::kill(-group_, SIGKILL);
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

bool Server::running() noexcept {
  if (pid_ <= 0) return false;
  if (::waitpid(pid_, nullptr, WNOHANG) != pid_) return true;
  pid_ = -1;
  return false;
}

void Server::wait_until(const std::function<bool()>& ready, int seconds) {
  const auto deadline = Clock::now() + std::chrono::seconds(seconds);
  while (!ready()) {
    if (tools::stop_requested()) throw Failure(tools::status_not_so, "stopped by a signal: start it again");
    if (!running()) throw Failure(tools::status_refused, what_ + ": it ended at once: " + last_words(log_path_));
    if (Clock::now() > deadline)
      throw Failure(tools::status_refused, what_ + ": not ready in time: " + last_words(log_path_));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

bool Server::has_written(const std::string& text) const {
  return content_of(log_path_).find(text) != std::string::npos;
}

int free_port() {
  const shm::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t bytes = sizeof address;
  if (fd.get() < 0 || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0) {
    throw Failure(tools::status_refused, std::string("127.0.0.1: no free port: ") + std::strerror(errno));
  }
  return ntohs(address.sin_port);
}

bool listening(int port) {
  const shm::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

std::string first_line(const std::string& command) {
  std::string line;
  if (std::FILE* pipe = ::popen(("{ " + command + "; } 2>/dev/null").c_str(), "r"); pipe != nullptr) {
    for (int character = std::fgetc(pipe); character != EOF && character != '\n'; character = std::fgetc(pipe))
      line.push_back(static_cast<char>(character));
    ::pclose(pipe);
  }
  return line.empty() ? "unknown" : line;
}

}  // namespace ackring::peers
