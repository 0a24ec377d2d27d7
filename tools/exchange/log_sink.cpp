#include "tools/exchange/log_sink.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

constexpr int patience_ms = 100;  // of the log's own thread, with a reader that is slow for the first time

}  // namespace

LogSink::LogSink(std::function<std::string(std::uint64_t)> lost_line, std::function<std::uint64_t()> overrun)
    : lost_line_(std::move(lost_line)), overrun_(std::move(overrun)) {}

void LogSink::open(const std::string& path) {
  shm::UniqueFd file;
  if (!path.empty()) {
    // Not to wait for a reader where it is a named pipe.
    file = shm::UniqueFd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640));
    if (!file) {
      throw Failure(status_refused, path + ": can't write the log to it: " + std::strerror(errno) +
                                        ": give --log-file a path that this user may write");
    }
  }
  const std::lock_guard guard(mutex_);
  file_ = std::move(file);
  stalled_ = false;
}

void LogSink::log(const spdlog::details::log_msg& message) {
  const std::lock_guard guard(mutex_);
  const std::uint64_t overrun = overrun_();
  dropped_ += overrun - std::exchange(told_overrun_, overrun);
  if (dropped_ != 0) {
    if (!write_line(lost_line_(dropped_))) {
      ++dropped_;
      return;
    }
    dropped_ = 0;
  }
  if (!write_line(std::string_view(message.payload.data(), message.payload.size()))) ++dropped_;
}

// One write, so that lines of several processes do not mix; a pipe that has room at all has it for a line.
bool LogSink::write_line(std::string_view line) {
  const int fd = file_ ? file_.get() : STDERR_FILENO;
  pollfd out{fd, POLLOUT, 0};
  const bool room = ::poll(&out, 1, stalled_ ? 0 : patience_ms) == 1 && (out.revents & POLLOUT) != 0;
  stalled_ = !room;
  if (!room) return false;
  const std::string text = std::string(line) + "\n";
  ssize_t written = ::send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (written < 0 && errno == ENOTSOCK) written = ::write(fd, text.data(), text.size());
  return written == static_cast<ssize_t>(text.size());
}

}  // namespace ackring::tools
