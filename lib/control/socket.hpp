// Control messages: one JSON object per SOCK_SEQPACKET datagram, descriptors by SCM_RIGHTS, credentials by SO_PEERCRED.
//
// Thread rules: one thread at a time per Socket. A message is at most max_message_bytes; with at most max_descriptors.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/control/access.hpp"
#include "lib/shm/descriptor.hpp"

namespace ackring::control {

inline constexpr std::size_t max_message_bytes = 64u << 10;
inline constexpr std::size_t max_descriptors = 8;
inline constexpr std::size_t max_nesting = 16;  // objects and arrays inside each other, the message itself included

using Json = nlohmann::json;

struct Message {
  Json body;
  std::vector<shm::UniqueFd> descriptors;
};

enum class ReceiveStatus { message, no_room, nothing_yet, closed, malformed };
/// `full`: the peer has not read what it was sent before, or the kernel has no memory just now, which says nothing about
/// its life.
enum class SendStatus { sent, full, closed, too_large };

struct Credentials {
  pid_t pid;
  uid_t uid;
  gid_t gid;
};

class Socket {
 public:
  Socket() noexcept = default;
  explicit Socket(shm::UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// Both ends of a connection without a name.
  static std::pair<Socket, Socket> make_pair();
  /// Connects to `path` (paths longer than sun_path go through /proc/self/fd of the directory). Throws Error:
  /// no_exchange where nothing listens, timeout where connections are not accepted within a second, permission,
  /// no_space (no descriptor left), system.
  static Socket connect(const std::string& path);

  /// Sends without blocking: the whole message or nothing of it. `closed`: the peer is gone, or this process has no room
  /// for the message; `too_large`: it has more than max_message_bytes or max_descriptors. Text that is no UTF-8 (a path,
  /// say) is sent with replacement characters.
  [[nodiscard]] SendStatus send(const Json& body, const std::vector<int>& descriptors = {}) noexcept;
  /// Receives without blocking. `malformed`: not a JSON object, truncated, nested deeper than max_nesting, or with more
  /// than max_descriptors descriptors; `reason` says why, and all descriptors that came with it are closed. `no_room`:
  /// this process has no room for its descriptors, which are lost; the text is there. `message` is empty otherwise.
  ReceiveStatus receive(Message& message, std::string& reason) noexcept;
  /// Waits until readable (a hang-up is readable too); false on timeout.
  [[nodiscard]] bool wait_readable(std::uint64_t timeout_ns) const noexcept;
  /// The same, or until there is room again after a send that found none.
  [[nodiscard]] bool wait_readable_or_room(std::uint64_t timeout_ns) const noexcept;
  /// The other side has closed the connection; what it sent before may still be there to be read.
  [[nodiscard]] bool hung_up() const noexcept;

  /// Of the process that connected (or listened, or made the pair). Throws Error (system).
  [[nodiscard]] Credentials credentials() const;
  /// The same process's user and groups, as they were then. Throws Error (system).
  [[nodiscard]] Identity identity() const;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void close() noexcept { fd_.reset(); }
  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }

 private:
  [[nodiscard]] bool wait(short events, std::uint64_t timeout_ns) const noexcept;

  shm::UniqueFd fd_;
};

class Listener {
 public:
  Listener() noexcept = default;
  /// Listens at `path`, replacing a stale socket (the caller holds the exchange lock, so nobody else serves it).
  /// `mode`: of the socket file; `group`: -1 or a gid that it shall belong to. The file gets its name when owner and
  /// mode are set and connections are taken. Throws Error (permission; system, also where `path` is something else than
  /// a socket).
  Listener(const std::string& path, unsigned mode, int group);
  /// The next connection, if there is one. EMFILE: accepts it with a spare descriptor, tells it why (code no_space) and
  /// closes it, so that a full table never spins the loop (F21).
  std::optional<Socket> accept();
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void close() noexcept { fd_.reset(); }

 private:
  void reopen_spare() noexcept;

  shm::UniqueFd fd_;
  shm::UniqueFd spare_;
};

}  // namespace ackring::control
