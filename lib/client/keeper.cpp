// The keeper thread of a connection: connects, says hello, resumes endpoints, sends what was posted, hosts an exchange
// where nobody does.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "lib/client/connection.hpp"
#include "lib/client/thread.hpp"
#include "lib/shm/environment.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::client {
namespace {

constexpr int first_pause_ms = 1;
constexpr int longest_pause_ms = 16;  // a look at a socket that nobody serves costs some microseconds
// An endpoint that could not be resumed for lack of something is tried again after this time, as is a post.
constexpr int retry_pause_ms = 100;

void pause_ms(int ms) { ::poll(nullptr, 0, ms); }

}  // namespace

Connection::Connection(std::string name, BusOptions options, std::shared_ptr<shm::Directory> directory,
                       std::string socket_path)
    : name_(std::move(name)),
      options_(std::move(options)),
      directory_(std::move(directory)),
      socket_path_(std::move(socket_path)),
      timeout_ns_(static_cast<std::uint64_t>(options_.timeout.count())) {
  const ForkGuard::Hold held = ForkGuard::hold();
  alarm_ = shm::UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!alarm_) throw shm::system_error("bus '" + name_ + "'", "can't make an eventfd", errno);
  guard_.track(held, 2, alarm_.get());
}

std::shared_ptr<Connection> Connection::open(std::string_view name, BusOptions options) {
  shm::check_name("bus", name);
  if (options.timeout.count() <= 0) {
    throw Error(ErrorCode::invalid_argument, "BusOptions::timeout",
                std::to_string(options.timeout.count()) + " ns is no time", "give more than 0");
  }
  if (options.client_name.empty()) options.client_name = program_invocation_short_name;
  if (options.directory.empty()) options.directory = shm::default_directory();
  const std::string path = options.directory + "/" + std::string(name);
  std::shared_ptr<Connection> connection(
      new Connection(std::string(name), std::move(options), nullptr, path + "/exchange.sock"), UnlessForked{});
  connection->start();
  return connection;
}

std::shared_ptr<Connection> Connection::in_memory() {
  BusOptions options;
  options.client_name = program_invocation_short_name;
  std::shared_ptr<Connection> connection(
      new Connection("memory", std::move(options), std::make_shared<shm::MemoryDirectory>(), {}), UnlessForked{});
  connection->start();
  return connection;
}

void Connection::start() {
  shm::register_membarrier();
  establish(shm::Environment::now_ns() + timeout_ns_);
  keeper_ = start_thread("ackring-keeper", [this] { keep(); });
}

Connection::~Connection() {
  stopping_.store(1, std::memory_order_relaxed);  // relaxed: the alarm wakes the keeper, which looks again
  if (keeper_.joinable()) {
    wake_keeper();
    keeper_.join();
  }
  {
    const ForkGuard::Hold held = ForkGuard::hold();
    guard_.track(held, 0, -1);
    guard_.track(held, 1, -1);
    socket_.close();
    lock_.reset();
  }
  collect_host();
  const ForkGuard::Hold held = ForkGuard::hold();
  guard_.track(held, 2, -1);
  alarm_.reset();
}

void Connection::wake_keeper() noexcept {
  const std::uint64_t one = 1;
  // A counter that is full has woken the keeper already.
  (void)!::write(alarm_.get(), &one, sizeof one);
}

// The first connection, by the thread that opens the bus.
void Connection::establish(std::uint64_t deadline_ns) {
  const bool may_host = options_.exchange == ExchangeMode::automatic || socket_path_.empty();
  while (true) {
    std::string problem;
    try {
      hello(connect_socket(), false, deadline_ns);
      return;
    } catch (const HangUp&) {
      problem = "the exchange closed the connection";
    } catch (const Error& error) {
      if (error.code() != ErrorCode::no_exchange) throw;
      if (!may_host && !is_starting()) {
        throw Error(ErrorCode::no_exchange, "bus '" + name_ + "'", "no exchange serves it (" + error.why() + ")",
                    "start ackring-exchange --bus " + name_);
      }
      problem = error.why();
    }
    if (may_host && !host_) {
      try {
        start_host();
        continue;
      } catch (const Error& error) {
        if (error.code() != ErrorCode::exchange_exists) throw;  // otherwise somebody was faster: connect to that one
        problem = error.what();
      }
    }
    if (shm::Environment::now_ns() >= deadline_ns) {
      throw Error(ErrorCode::timeout, "bus '" + name_ + "'", problem, "see whether its exchange is stopped");
    }
    pause_ms(first_pause_ms);
  }
}

// Has an exchange the bus that does not listen yet, because it recovers? Only who may read the bus's files can see that.
bool Connection::is_starting() const {
  try {
    return exchange::is_served(shm::FileDirectory(socket_path_.substr(0, socket_path_.rfind('/')), false));
  } catch (const Error&) {
    return false;
  }
}

control::Socket Connection::connect_socket() {
  if (!socket_path_.empty()) return control::Socket::connect(socket_path_);
  if (!host_) throw Error(ErrorCode::no_exchange, "bus '" + name_ + "'", "its exchange has ended");
  return host_->connect();
}

void Connection::hello(control::Socket socket, bool resume, std::uint64_t deadline_ns) {
  Json body{{"op", "hello"},
            {"layout", shm::layout_version},
            {"version", ACKRING_VERSION},
            {"name", options_.client_name},
            {"membarrier", shm::register_membarrier()}};
  if (resume) body["client"] = client_;
  Reply reply = talk(socket, std::move(body), 0, deadline_ns);
  install(std::move(socket), std::move(reply), resume);
}

void Connection::install(control::Socket socket, Reply reply, bool resume) {
  auto view = std::make_shared<BusView>();
  view->exchange = shm::Segment::attach(reply.take(0), "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  view->topics = control::TopicReader(shm::Segment::attach(reply.take(1), "topics", shm::SegmentKind::topics,
                                                           shm::Access::read_only, control::topics_reserve_bytes));
  if (reply.body.contains("publish")) {
    view->permissions.everything = false;
    view->permissions.publish = reply_field<std::vector<std::string>>(reply.body, "publish");
  }
  const auto client = reply_field<std::uint64_t>(reply.body, "client");
  shm::UniqueFd lock = resume ? shm::UniqueFd() : reply.take(2);

  std::unique_lock state(mutex_);
  guard_.track(reply.no_fork, 0, socket.fd());
  if (!resume) guard_.track(reply.no_fork, 1, lock.get());
  socket_ = std::move(socket);
  if (!resume) lock_ = std::move(lock);
  client_ = client;
  view_ = std::move(view);
  ++epoch_;
  connected_ = true;
  connected_word_.store(1, std::memory_order_relaxed);  // relaxed: a hint, written under the mutex
  last_problem_.clear();
  state.unlock();
  changed_.notify_all();
}

void Connection::keep() noexcept {
  int pause = first_pause_ms;
  // relaxed: the alarm that comes with it makes the thread look again
  while (stopping_.load(std::memory_order_relaxed) == 0) {
    if (connected()) {
      pause = first_pause_ms;
      const bool resumed = resume_endpoints();
      const bool sent = send_posts_left();
      wait_for_hang_up(resumed && sent ? -1 : retry_pause_ms, !sent);
    } else if (!reconnect()) {
      wait_for_hang_up(pause, false);
      pause = std::min(2 * pause, longest_pause_ms);
    }
  }
  if (connected()) (void)send_posts_left();  // such as the farewells of endpoints
}

// Sleeps until the exchange hangs up (where connected) or, if asked, has room for more, the alarm is rung, or the time
// is over. Messages are the requesters' to read.
void Connection::wait_for_hang_up(int timeout_ms, bool or_room) noexcept {
  const bool watch = connected();
  const short events = or_room ? POLLRDHUP | POLLOUT : POLLRDHUP;
  std::array<pollfd, 2> entries{pollfd{alarm_.get(), POLLIN, 0}, pollfd{watch ? socket_.fd() : -1, events, 0}};
  if (::poll(entries.data(), entries.size(), timeout_ms) <= 0) return;
  if ((entries[0].revents & POLLIN) != 0) {
    std::uint64_t rings = 0;
    (void)!::read(alarm_.get(), &rings, sizeof rings);
  }
  if (watch && (entries[1].revents & ~POLLOUT) != 0) {
    const std::lock_guard lock(mutex_);
    connected_ = false;
    connected_word_.store(0, std::memory_order_relaxed);  // relaxed: a hint, written under the mutex
  }
}

bool Connection::reconnect() noexcept {
  std::string problem;
  try {
    const std::uint64_t deadline = shm::Environment::now_ns() + timeout_ns_;
    {
      // Whoever still waits on the old socket finds it closed. Nobody new comes before there is another one.
      std::unique_lock state(mutex_);
      changed_.wait(state, [this] { return !busy_; });
    }
    {
      // The exchange lets this client come back only when its earlier connection is gone.
      const ForkGuard::Hold held = ForkGuard::hold();
      guard_.track(held, 0, -1);
      socket_.close();
    }
    // relaxed: it is looked at again at the next attempt; joining the thread orders everything else
    if (host_ended_.load(std::memory_order_relaxed) != 0) collect_host();
    bool resume = true;
    bool hosted = false;
    while (true) {
      bool reached = false;
      try {
        control::Socket socket = connect_socket();
        reached = true;
        hello(std::move(socket), resume, deadline);
        return true;
      } catch (const Error& error) {
        const bool may_host = options_.exchange == ExchangeMode::automatic || socket_path_.empty();
        if (reached && resume && (error.code() == ErrorCode::not_found || error.code() == ErrorCode::permission)) {
          // The bus was made anew: it knows neither this client nor its endpoints. Or this process has become another
          // user's, who may not go on with what the one before had.
          resume = false;
        } else if (error.code() == ErrorCode::no_exchange && may_host && !hosted && !host_) {
          start_host();  // its socket is there as soon as this returns
          hosted = true;
        } else {
          throw;
        }
      }
    }
  } catch (const HangUp&) {
    problem = "the exchange closed the connection";
  } catch (const std::exception& error) {
    problem = error.what();
  }
  const std::lock_guard lock(mutex_);
  last_problem_ = std::move(problem);
  return false;
}

// False: some endpoint could not be resumed now, though it might be later.
bool Connection::resume_endpoints() noexcept {
  const std::lock_guard list(endpoints_mutex_);
  std::uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    epoch = epoch_;
  }
  bool all = true;
  for (Endpoint* endpoint : endpoints_) {
    if (endpoint->epoch == epoch) continue;
    try {
      all = resume(*endpoint, epoch) && all;
    } catch (...) {
      all = false;  // no memory, or a hang-up: the next round tries again
    }
    if (!connected()) return true;
  }
  return all;
}

// False: some of what was posted is left, because the exchange does not read or somebody else talks to it.
bool Connection::send_posts_left() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (posts_.empty()) return true;
  }
  const std::uint64_t now = shm::Environment::now_ns();
  if (!acquire_socket(now + std::uint64_t{retry_pause_ms} * 1'000'000)) return false;
  bool sent = false;
  bool hung_up = false;
  try {
    send_posts(now);  // as far as there is room
    sent = true;
  } catch (const HangUp&) {
    hung_up = true;
  } catch (...) {
    // No room, or no memory: the next round tries again.
  }
  release_socket(hung_up);
  return sent;
}

bool Connection::resume(Endpoint& endpoint, std::uint64_t epoch) {
  if (!endpoint.guard().open()) return true;
  if (!acquire_socket(shm::Environment::now_ns() + timeout_ns_)) return false;
  try {
    Reply reply = call(endpoint.resume_request(), shm::Environment::now_ns() + timeout_ns_);
    endpoint.resumed(reply.take(0));
  } catch (const Error& error) {
    switch (error.code()) {
      case ErrorCode::no_space:
      case ErrorCode::system:
      case ErrorCode::timeout:
      case ErrorCode::protocol:
        return false;
      default:
        endpoint.refused();
    }
  } catch (const HangUp&) {
    return false;
  }
  endpoint.epoch = epoch;
  return true;
}

void Connection::start_host() {
  auto directory = directory_;
  if (!directory) {
    directory = std::make_shared<shm::FileDirectory>(options_.directory + "/" + name_, true);
  }
  exchange::HostOptions options;
  options.listen = !socket_path_.empty();
  options.guard_bus_errors = options_.guard_bus_errors;
  // A child of a fork must not have its lock, so no fork happens until the guard knows it; a large bus takes a while.
  ForkGuard::Hold no_fork = ForkGuard::hold();
  auto host = std::make_unique<exchange::Host>(std::move(directory), name_, options);
  host_guard_.track(no_fork, host->descriptors(), host->listener());
  no_fork.unlock();
  host_ended_.store(0, std::memory_order_relaxed);  // relaxed: the thread that will set it is not there yet
  host_thread_ = start_thread("ackring-x", [this, serving = host.get()] {
    try {
      serving->run();
    } catch (const std::exception& error) {
      const std::lock_guard lock(mutex_);
      last_problem_ = error.what();
    }
    host_ended_.store(1, std::memory_order_relaxed);  // relaxed: the alarm makes the keeper look
    wake_keeper();
  });
  host_ = std::move(host);
}

void Connection::collect_host() noexcept {
  if (!host_) return;
  host_->stop();
  if (host_thread_.joinable()) host_thread_.join();
  const ForkGuard::Hold no_fork = ForkGuard::hold();
  host_guard_.forget(no_fork);
  host_.reset();
}

}  // namespace ackring::client
