#include "lib/client/connection.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>
#include <utility>

#include "lib/shm/environment.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::client {
namespace {

std::uint64_t deadline_after(std::uint64_t timeout_ns) {
  const std::uint64_t now = shm::Environment::now_ns();
  return timeout_ns > std::numeric_limits<std::uint64_t>::max() - now ? std::numeric_limits<std::uint64_t>::max()
                                                                      : now + timeout_ns;
}

// How long the condition variable sleeps at most before it looks at the clock of the bus.
constexpr std::uint64_t longest_wait_ns = 50'000'000;

bool is_protocol_error(const Json& body) {
  const auto code = body.find("code");
  return code != body.end() && code->is_string() && *code == to_string(ErrorCode::protocol);
}

}  // namespace

shm::UniqueFd Reply::take(std::size_t index) {
  if (no_room) throw shm::system_error("reply of the exchange", "can't receive its descriptors", EMFILE);
  if (index >= descriptors.size() || !descriptors[index]) {
    throw Error(ErrorCode::protocol, "reply of the exchange", "a descriptor is missing",
                "use the same version on both sides");
  }
  return std::move(descriptors[index]);
}

void Connection::check_usable() const {
  if (guard_.open()) return;
  throw Error(ErrorCode::closed, "bus '" + name_ + "'", "this handle belongs to the parent of a fork",
              "open the bus again in the child");
}

bool Connection::connected() const noexcept {
  // relaxed: an answer that is out of date at once in any case
  return guard_.open() && connected_word_.load(std::memory_order_relaxed) != 0;
}

std::shared_ptr<const BusView> Connection::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

void Connection::throw_no_answer(std::uint64_t timeout_ns) const {
  const std::lock_guard lock(mutex_);
  const std::string waited = std::to_string(timeout_ns / 1'000'000) + " ms";
  if (!connected_) {
    throw Error(ErrorCode::no_exchange, "bus '" + name_ + "'",
                last_problem_.empty() ? "no exchange has come back within " + waited : last_problem_,
                "start ackring-exchange --bus " + name_);
  }
  throw Error(ErrorCode::timeout, "bus '" + name_ + "'", "the exchange did not answer within " + waited,
              "see whether it is stopped, or raise BusOptions::timeout");
}

Reply Connection::request(Json body) { return request(std::move(body), timeout_ns_); }

Reply Connection::request(Json body, std::uint64_t timeout_ns) {
  check_usable();
  const std::uint64_t deadline = deadline_after(timeout_ns);
  while (true) {
    if (!acquire_socket(deadline)) throw_no_answer(timeout_ns);
    try {
      return call(body, deadline);
    } catch (const HangUp&) {
      // Ask the successor, up to the deadline.
    } catch (const Error& error) {
      if (error.code() == ErrorCode::timeout) throw_no_answer(timeout_ns);
      throw;
    }
  }
}

// With the socket acquired; lets go of it.
Reply Connection::call(Json body, std::uint64_t deadline_ns) {
  std::uint64_t id = 0;
  std::uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    id = next_request_++;
    epoch = epoch_;
  }
  try {
    send_posts(deadline_ns);
    Reply reply = talk(socket_, std::move(body), id, deadline_ns);
    reply.epoch = epoch;
    release_socket(false);
    return reply;
  } catch (const HangUp&) {
    release_socket(true);
    throw;
  } catch (const Error& error) {
    release_socket(error.code() == ErrorCode::protocol);
    throw;
  } catch (...) {
    release_socket(true);
    throw;
  }
}

// A full buffer is no hang-up: the exchange has not read yet. It may be waiting for the same thing, so what it sent is
// read meanwhile; nobody waits for that any more.
void Connection::send(control::Socket& socket, const Json& body, std::uint64_t deadline_ns) {
  while (true) {
    switch (socket.send(body)) {
      case control::SendStatus::sent:
        return;
      case control::SendStatus::closed:
        throw HangUp{};
      case control::SendStatus::too_large:
        throw Error(ErrorCode::invalid_argument, "request", "it is larger than 65,536 bytes",
                    "give fewer or shorter patterns");
      case control::SendStatus::full:
        break;
    }
    control::Message message;
    std::string reason;
    {
      const ForkGuard::Hold no_fork = ForkGuard::hold();
      control::ReceiveStatus status = control::ReceiveStatus::message;
      while (status == control::ReceiveStatus::message || status == control::ReceiveStatus::no_room) {
        status = socket.receive(message, reason);
      }
      message = {};
    }
    const std::uint64_t now = shm::Environment::now_ns();
    if (now >= deadline_ns || !socket.wait_readable_or_room(deadline_ns - now)) {
      throw Error(ErrorCode::timeout, "exchange", "it did not read in time");
    }
  }
}

// With the socket acquired: requests come behind what was posted before them.
void Connection::send_posts(std::uint64_t deadline_ns) {
  std::unique_lock lock(mutex_);
  while (!posts_.empty()) {
    const Json body = posts_.front();
    lock.unlock();
    send(socket_, body, deadline_ns);
    lock.lock();
    posts_.pop_front();
  }
}

Reply Connection::talk(control::Socket& socket, Json body, std::uint64_t id, std::uint64_t deadline_ns) {
  body["id"] = id;
  send(socket, body, deadline_ns);
  while (true) {
    control::Message message;
    std::string reason;
    ForkGuard::Hold no_fork = ForkGuard::hold();
    const control::ReceiveStatus status = socket.receive(message, reason);
    if (status == control::ReceiveStatus::closed) throw HangUp{};
    if (status == control::ReceiveStatus::malformed) {
      throw Error(ErrorCode::protocol, "reply of the exchange", reason, "use the same version on both sides");
    }
    if (status == control::ReceiveStatus::nothing_yet) {
      no_fork.unlock();
      const std::uint64_t now = shm::Environment::now_ns();
      if (now >= deadline_ns || !socket.wait_readable(deadline_ns - now)) {
        throw Error(ErrorCode::timeout, "exchange", "it did not answer in time");
      }
      continue;
    }
    const auto answered = message.body.find("id");
    const bool mine = answered != message.body.end() && answered->is_number_integer() && *answered == id;
    // A reply to a request that nobody waits for any more is dropped; the reason of a hang-up has no id to go by.
    if (!mine && !is_protocol_error(message.body)) continue;
    if (!reply_field<bool>(message.body, "ok")) throw error_of_reply(message.body);
    const bool no_room = status == control::ReceiveStatus::no_room;
    return Reply{std::move(message.body), std::move(message.descriptors), std::move(no_fork), 0, no_room};
  }
}

bool Connection::acquire_socket(std::uint64_t deadline_ns) {
  std::unique_lock lock(mutex_);
  while (busy_ || !connected_) {
    const std::uint64_t now = shm::Environment::now_ns();
    if (now >= deadline_ns) return false;
    changed_.wait_for(lock, std::chrono::nanoseconds(std::min(deadline_ns - now, longest_wait_ns)));
  }
  busy_ = true;
  return true;
}

void Connection::release_socket(bool hung_up) noexcept {
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    if (hung_up) {
      connected_ = false;
      connected_word_.store(0, std::memory_order_relaxed);  // relaxed: a hint, written under the mutex
    }
  }
  changed_.notify_all();
  if (hung_up) wake_keeper();
}

void Connection::post(Json body) noexcept {
  try {
    if (!guard_.open()) return;
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = posts_.empty();
      posts_.push_back(std::move(body));
    }
    if (first) wake_keeper();
  } catch (...) {
    // No memory. The exchange finds out by the client's kernel lock.
  }
}

void Connection::add(Endpoint& endpoint, std::uint64_t epoch) {
  {
    const std::lock_guard lock(endpoints_mutex_);
    endpoint.epoch = epoch;
    endpoints_.push_back(&endpoint);
  }
  wake_keeper();  // the exchange may have changed since it answered
}

void Connection::remove(Endpoint& endpoint) noexcept {
  const std::lock_guard lock(endpoints_mutex_);
  std::erase(endpoints_, &endpoint);
}

}  // namespace ackring::client
