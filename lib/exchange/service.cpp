#include "lib/exchange/service.hpp"

#include <sys/epoll.h>

#include <algorithm>

#include "ackring/error.hpp"
#include "lib/shm/lock.hpp"

namespace ackring::exchange {

namespace {

epoll_event event_of(std::uint32_t events, std::uint64_t what) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = what;
  return event;
}

void watch(int epoll_fd, int fd, std::uint64_t what) {
  epoll_event event = event_of(EPOLLIN, what);
  if (::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
    throw Error(ErrorCode::no_space, "epoll", "the exchange can't watch one more descriptor", "raise its limits",
                errno);
  }
}

}  // namespace

Service::Service(shm::Directory& directory, Exchange& exchange, std::string bus, int epoll_fd)
    : directory_(directory), exchange_(exchange), bus_(std::move(bus)), epoll_fd_(epoll_fd) {
  // Whoever held something before a restart may be alive: its lock tells, and X waits for it without limit.
  for (const auto& [id, uid] : exchange.holders()) {
    auto client = std::make_unique<Client>();
    client->id = id;
    client->identity.uid = uid;
    if (directory.exists(lock_name(id))) client->lock_file = directory.open(lock_name(id), true);
    away_[id] = std::move(client);
  }
  for (const std::string& name : exchange.client_files()) {
    const std::uint64_t id = std::strtoull(name.c_str() + 7, nullptr, 10);
    if (away_.contains(id) || !directory.exists(name)) continue;
    shm::UniqueFd fd = directory.open(name, true);
    if (!shm::is_locked(fd.get())) {
      directory.remove(name);
      continue;
    }
    // It holds nothing yet, or no more. It lives all the same, and its file has to go when it ends.
    auto client = std::make_unique<Client>();
    client->id = id;
    client->lock_file = std::move(fd);
    away_[id] = std::move(client);
  }
  look_for_deaths();
}

Service::~Service() = default;

std::string Service::lock_name(std::uint64_t client) { return "client." + std::to_string(client) + ".lock"; }

void Service::accept(control::Socket socket) {
  auto client = std::make_unique<Client>();
  const int fd = socket.fd();
  try {
    client->identity = socket.identity();
    client->socket = std::move(socket);
    watch(epoll_fd_, fd, tag(Source::client, static_cast<std::uint64_t>(fd)));
  } catch (const Error&) {
    return;  // the kernel has no room for one more (max_user_watches): this one sees that nobody is there
  }
  connected_[fd] = std::move(client);
}

void Service::serve(int fd) {
  // A bounded number of requests, so that a flood waits for the data path and not the other way round.
  for (int i = 0; i < 16; ++i) {
    const auto at = connected_.find(fd);
    if (at == connected_.end()) return;
    if (at->second->unsent && !answer(fd, *at->second, std::move(*at->second->unsent))) return;
    control::Message message;
    std::string reason;
    switch (at->second->socket.receive(message, reason)) {
      case control::ReceiveStatus::nothing_yet:
        return;
      case control::ReceiveStatus::message:
        handle(fd, *at->second, message);
        break;
      case control::ReceiveStatus::malformed:
        drop(fd, reason);
        return;
      case control::ReceiveStatus::closed:
        drop(fd, {});
        return;
    }
  }
}

// Sends an answer. False: there is no room for it, or nobody, and so none for the next one either.
bool Service::answer(int fd, Client& client, Reply reply) {
  std::vector<int> descriptors;
  for (const shm::UniqueFd& descriptor : reply.descriptors) descriptors.push_back(descriptor.get());
  const control::SendStatus status = client.socket.send(reply.body, descriptors);
  const bool waited = client.unsent.has_value();
  if (status == control::SendStatus::full) {
    client.unsent = std::move(reply);
  } else {
    client.unsent.reset();
  }
  if (client.unsent.has_value() != waited) {
    epoll_event event = event_of(waited ? EPOLLIN : EPOLLOUT, tag(Source::client, static_cast<std::uint64_t>(fd)));
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);
  }
  if (status == control::SendStatus::sent) return true;
  if (status != control::SendStatus::full) drop(fd, {});
  return false;
}

// Ends a connection. Its client is not dead by that: its lock decides.
void Service::drop(int fd, const std::string& why) {
  const auto at = connected_.find(fd);
  if (at == connected_.end()) return;
  std::unique_ptr<Client> client = std::move(at->second);
  connected_.erase(at);
  if (!why.empty()) {
    (void)client->socket.send({{"ok", false},
                               {"code", "protocol"},
                               {"object", "control connection"},
                               {"why", why},
                               {"advice", "see docs/architecture.md for the protocol"},
                               {"errno", 0}});
  }
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  client->socket.close();
  client->unsent.reset();  // it may hold the client's lock
  if (client->id == 0) return;
  const std::uint64_t id = client->id;
  away_[id] = std::move(client);
  look_for_deaths();
}

// The client wants to come back: an earlier connection of it that has been closed, but not looked at yet, goes. What it
// said last still counts.
void Service::let_go_of(std::uint64_t client) {
  const auto earlier = [&] {
    return std::find_if(connected_.begin(), connected_.end(),
                        [client](const auto& entry) { return entry.second->id == client; });
  };
  const auto at = earlier();
  if (at == connected_.end() || !at->second->socket.hung_up()) return;
  const int fd = at->first;
  while (connected_.contains(fd)) serve(fd);
}

void Service::look_for_deaths() {
  for (auto at = away_.begin(); at != away_.end();) {
    Client& client = *at->second;
    if (client.lock_file && shm::is_locked(client.lock_file.get())) {
      ++at;
      continue;
    }
    exchange_.client_gone(client.id);
    directory_.remove(lock_name(client.id));
    at = away_.erase(at);
  }
  for (const auto& ingress : exchange_.publishers()) {
    if (!ingress || !ingress->quarantined || ingress->client == 0) continue;
    for (const auto& [fd, client] : connected_) {
      if (client->id != ingress->client) continue;
      exchange_.detach_publisher(*ingress);
      drop(fd, "the ring of publisher " + ingress->name + " is damaged; it was quarantined");
      break;
    }
  }
}

void Service::rang_publisher(std::uint64_t slot) {
  const auto& ingress = exchange_.publishers()[slot];
  if (!ingress) return;
  if (!ingress->bell.drain() && ingress->has_bell) {
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, ingress->bell.fd(), nullptr);
    ingress->has_bell = false;
  }
  exchange_.heat(*ingress);
}

void Service::rang_queue(std::uint64_t index) {
  if (index >= exchange_.queues().size() || !exchange_.queues()[index]) return;
  Queue& queue = *exchange_.queues()[index];
  queue.each_lane([this](Lane& lane) {
    if (!lane.bell.drain() && lane.bell) ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, lane.bell.fd(), nullptr);
  });
}

void Service::close_all() {
  for (auto& [fd, client] : connected_) client->socket.close();
  connected_.clear();
}

// A new doorbell: one end is watched, the other goes out with the reply.
shm::Bell Service::new_bell(std::uint64_t what, Reply& reply) {
  auto [ours, theirs] = shm::Bell::make_pair();
  watch(epoll_fd_, ours.fd(), what);
  reply.descriptors.emplace_back(theirs.release());
  return std::move(ours);
}

}  // namespace ackring::exchange
