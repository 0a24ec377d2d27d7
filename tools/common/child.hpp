// Child processes of benchmarks and of the demo, and the line to each. Made by fork() alone, so the parent must have no
// threads (and so no Bus) when it makes one.
//
// Thread rules: one thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ackring/options.hpp"
#include "lib/shm/descriptor.hpp"

namespace ackring::tools {

/// Messages (JSON, one per line) between parent and child.
class Channel {
 public:
  Channel() noexcept = default;
  explicit Channel(shm::UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// False: the other side is gone.
  bool send(const nlohmann::json& message);
  /// The next message, or nothing within `timeout`. Throws Failure where the other side ended, sent an error, or a
  /// signal asks this process to stop.
  std::optional<nlohmann::json> receive(Nanoseconds timeout);
  /// The next message; Failure (status_refused) if there is none in time. `what` says what it would have told.
  nlohmann::json expect(Nanoseconds timeout, const std::string& what);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  shm::UniqueFd fd_;
  std::string buffer_;
};

class Child {
 public:
  /// Runs `body` in a child process, in a process group of its own (a Ctrl-C is the parent's to handle); killed when the
  /// parent dies. What it throws comes out of the parent's receive().
  static Child start(const std::string& name, const std::function<void(Channel&)>& body);
  /// Runs a program in a child process, its stdout readable at output_fd().
  static Child execute(const std::vector<std::string>& command);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  /// stop().
  ~Child();

  [[nodiscard]] Channel& channel() noexcept { return channel_; }
  [[nodiscard]] int output_fd() const noexcept { return output_.get(); }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// Ends it: SIGTERM, and SIGKILL where that takes longer than `patience`. Returns its exit status, -1 if a signal ended it.
  int stop(Nanoseconds patience = std::chrono::seconds(3)) noexcept;
  /// Waits for its own end; its exit status, or nothing within `timeout`.
  std::optional<int> wait(Nanoseconds timeout) noexcept;

 private:
  Child() noexcept = default;
  pid_t pid_ = -1;
  int status_ = -1;
  Channel channel_;
  shm::UniqueFd output_;
};

/// A directory of its own under /dev/shm (or /tmp), removed with everything in it at the end.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& purpose);
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace ackring::tools
