// Connection: one client of one bus. Its control socket with one request at a time, the kernel lock that says it lives,
// the keeper thread that reconnects and resumes the endpoints, and, where nobody else serves the bus, the exchange
// itself on another thread.
//
// Thread rules: any thread. `mutex_` guards the state of the control socket; the socket itself belongs to whoever set
// `busy_`. `endpoints_mutex_` guards the list, and is taken before `mutex_`, never after it.
// Lifetime: Bus and endpoints share the connection; endpoints take themselves off the list before they go. In the child
// of a fork a Connection is never destroyed (UnlessForked): its threads are not there.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ackring/options.hpp"
#include "lib/client/endpoint.hpp"
#include "lib/client/fork_guard.hpp"
#include "lib/client/reply_error.hpp"
#include "lib/control/access.hpp"
#include "lib/control/socket.hpp"
#include "lib/control/topic_table.hpp"
#include "lib/exchange/host.hpp"
#include "lib/shm/directory.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::client {

/// What every client maps read-only of a bus. Never unmapped while an endpoint uses it.
struct BusView {
  shm::Segment exchange;
  control::TopicReader topics;
  control::Permissions permissions = {};  // of this user, as far as it is about publishing
  [[nodiscard]] const shm::ExchangeSegment& segment() const noexcept {
    return *exchange.as<const shm::ExchangeSegment>();
  }
};

/// A reply that says ok. No fork happens while it holds descriptors that no guard tracks yet.
struct Reply {
  Json body;
  std::vector<shm::UniqueFd> descriptors;
  ForkGuard::Hold no_fork;
  std::uint64_t epoch = 0;
  bool no_room = false;  // this process had none for the descriptors

  /// Takes descriptor `index`; throws Error if it did not come (no_space: for want of room; protocol).
  [[nodiscard]] shm::UniqueFd take(std::size_t index);
};

class Connection {
 public:
  /// See Bus::open and Bus::in_memory.
  [[nodiscard]] static std::shared_ptr<Connection> open(std::string_view name, BusOptions options);
  [[nodiscard]] static std::shared_ptr<Connection> in_memory();
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Asks the exchange, waiting for a reconnection where needed. Throws Error: that of the reply; timeout, no_exchange;
  /// closed in the child of a fork.
  [[nodiscard]] Reply request(Json body);
  [[nodiscard]] Reply request(Json body, std::uint64_t timeout_ns);
  /// Tells the exchange something without waiting, neither for room nor for a reconnection: the keeper thread sends it,
  /// or the next request, before itself. There is no answer. Best effort.
  void post(Json body) noexcept;

  /// Endpoints on the list are resumed after a reconnection.
  void add(Endpoint& endpoint, std::uint64_t epoch);
  void remove(Endpoint& endpoint) noexcept;

  [[nodiscard]] std::shared_ptr<const BusView> view() const;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool connected() const noexcept;
  [[nodiscard]] ForkGuard& guard() noexcept { return guard_; }
  /// Throws Error (closed) in the child of a fork.
  void check_usable() const;

 private:
  struct HangUp {};  // the exchange is gone; a successor may answer

  Connection(std::string name, BusOptions options, std::shared_ptr<shm::Directory> directory, std::string socket_path);
  void start();

  // connection.cpp: requests
  [[nodiscard]] Reply call(Json body, std::uint64_t deadline_ns);
  [[nodiscard]] static Reply talk(control::Socket& socket, Json body, std::uint64_t id, std::uint64_t deadline_ns);
  static void send(control::Socket& socket, const Json& body, std::uint64_t deadline_ns);
  void send_posts(std::uint64_t deadline_ns);
  [[nodiscard]] bool acquire_socket(std::uint64_t deadline_ns);
  void release_socket(bool hung_up) noexcept;
  [[noreturn]] void throw_no_answer(std::uint64_t timeout_ns) const;

  // keeper.cpp: everything that the keeper thread does
  void keep() noexcept;
  void establish(std::uint64_t deadline_ns);
  bool reconnect() noexcept;
  [[nodiscard]] bool is_starting() const;
  [[nodiscard]] control::Socket connect_socket();
  void hello(control::Socket socket, bool resume, std::uint64_t deadline_ns);
  void install(control::Socket socket, Reply reply, bool resume);
  [[nodiscard]] bool resume_endpoints() noexcept;
  [[nodiscard]] bool send_posts_left() noexcept;
  [[nodiscard]] bool resume(Endpoint& endpoint, std::uint64_t epoch);
  void wait_for_hang_up(int timeout_ms, bool or_room) noexcept;
  void start_host();
  void collect_host() noexcept;
  void wake_keeper() noexcept;

  const std::string name_;
  const BusOptions options_;
  const std::shared_ptr<shm::Directory> directory_;  // of the exchange to host; nullptr: never host
  const std::string socket_path_;                    // empty: in memory
  const std::uint64_t timeout_ns_;
  ForkGuard guard_;  // 0: control socket, 1: client lock, 2: keeper's alarm

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  control::Socket socket_;
  bool connected_ = false;
  bool busy_ = false;
  std::uint64_t epoch_ = 0;
  std::uint64_t next_request_ = 1;
  std::shared_ptr<const BusView> view_;
  std::string last_problem_;
  std::deque<Json> posts_;  // not sent yet; only who has acquired the socket takes any off

  std::uint64_t client_ = 0;  // the keeper's, as what follows
  shm::UniqueFd lock_;
  shm::UniqueFd alarm_;  // eventfd
  HostForkGuard host_guard_;
  std::unique_ptr<exchange::Host> host_;
  std::thread host_thread_;
  std::thread keeper_;
  shm::Word32 stopping_{};
  shm::Word32 host_ended_{};
  shm::Word32 connected_word_{};  // connected_, for those who don't want to wait

  std::mutex endpoints_mutex_;
  std::vector<Endpoint*> endpoints_;
};

}  // namespace ackring::client
