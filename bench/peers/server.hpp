// A server that a peer needs, as a child process with its output in a file, and what it takes to find it.
//
// Thread rules: one thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace ackring::peers {

class Server {
 public:
  /// Runs `command` (a path, or a name to be found in $PATH) with these variables besides the environment's. Its stdin is
  /// empty, its output goes to `log_path`. It is in a process group of its own, and killed when this process dies.
  Server(std::string what, const std::vector<std::string>& command, const std::string& log_path,
         const std::vector<std::pair<std::string, std::string>>& variables = {});
  /// Ends it and what it has started: SIGTERM to the group, SIGKILL where that takes longer than 10 s.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Returns when `ready` answers true, which is asked every few milliseconds. Throws Failure (status_refused) with the last
  /// lines that the server wrote, if it ends or `seconds` pass first.
  void wait_until(const std::function<bool()>& ready, int seconds);
  /// Is this text in what it has written so far?
  [[nodiscard]] bool has_written(const std::string& text) const;

 private:
  [[nodiscard]] bool running() noexcept;
  std::string what_;
  std::string log_path_;
  pid_t pid_ = -1;    // -1 when it has ended
  pid_t group_ = -1;  // stays
};

/// A port of 127.0.0.1 that nobody listens on at this moment.
[[nodiscard]] int free_port();
/// Does somebody listen on this port of 127.0.0.1?
[[nodiscard]] bool listening(int port);
/// First line that `command` prints (a version), or "unknown".
[[nodiscard]] std::string first_line(const std::string& command);

}  // namespace ackring::peers
