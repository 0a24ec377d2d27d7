// Host: an exchange that serves a bus: holds its kernel lock, listens on its socket, steps the core and waits when there
// is nothing to do. The program ackring-exchange is one Host on the main thread; an embedded exchange is one on a thread
// of a client.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ackring/options.hpp"
#include "lib/control/access.hpp"
#include "lib/control/socket.hpp"
#include "lib/exchange/notice.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::exchange {

class Exchange;

struct HostOptions {
  Wait wait = Wait::adaptive;
  std::size_t shards = 1;      // 1 to shm::max_shards: threads that share the subscriptions
  std::vector<int> cpus = {};  // where the shards run in turn, if there are two at least; the first is the caller's
  unsigned socket_mode = 0600;
  int socket_group = -1;  // gid, -1: leave it
  bool listen = true;     // false: only connect() (in-memory buses)
  bool guard_bus_errors =
      false;  // a client may cut its files short (shm/bus_error_guard.hpp): the process's SIGBUS is ours
  control::AccessRules access = {};
  /// Called on the thread that makes or runs the host, between batches of events: what takes long holds up everybody.
  NoticeSink on_notice = {};
};

class Host {
 public:
  /// Takes the bus's lock, recovers what is there and listens; serves once run() is called. Throws Error:
  /// exchange_exists (names the owner's pid), permission, no_space, damaged, layout_mismatch.
  Host(std::shared_ptr<shm::Directory> directory, std::string bus, HostOptions options = {});
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  /// Serves until stop(); then drains what is committed, says goodbye and lets go of the lock. Throws Error when the
  /// exchange itself can't go on.
  void run();
  /// Any thread; async-signal-safe.
  void stop() noexcept;
  /// A connection without a name, served like any other. Any thread.
  [[nodiscard]] control::Socket connect();
  /// Has the thread in run() do this soon, while all shards are held. What it throws ends run(). Any thread. After run() it
  /// is not done any more.
  void call(std::function<void()> what);
  /// For whoever is in call(), or has not called run() yet.
  [[nodiscard]] Exchange& core() noexcept;

  /// What a child of a fork must not keep: the lock, and what run() waits with. They stay the same until destruction.
  [[nodiscard]] std::array<int, 3> descriptors() const noexcept;
  /// The socket that it listens on, or -1. Before run() ends.
  [[nodiscard]] int listener() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Is some process serving the bus in this directory (by its kernel lock)? Throws Error (no_space, system) where the system
/// can't tell.
[[nodiscard]] bool is_served(const shm::Directory& directory);

}  // namespace ackring::exchange
