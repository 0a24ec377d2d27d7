#include "lib/exchange/service.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "ackring/error.hpp"
#include "lib/shm/lock.hpp"

namespace ackring::exchange {

namespace {

constexpr std::uint64_t hello_within_ns = 10'000'000'000;
constexpr std::size_t locks_per_tick = 256;  // of clients that are away: a few hundred system calls at most

// Whose client a lock file belongs to, as X wrote it there when it made the file. Nobody else's for one that says nothing: it
// is writable for its client.
uid_t owner_of(int lock_file) {
  std::array<char, 16> text{};
  const ssize_t bytes = ::pread(lock_file, text.data(), text.size(), 0);
  uid_t uid = ::geteuid();
  if (bytes > 0) std::from_chars(text.data(), text.data() + bytes, uid);
  return uid;
}

epoll_event event_of(std::uint32_t events, std::uint64_t what) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = what;
  return event;
}

// Who can't tell takes it for held: the next look may.
bool is_held(const shm::UniqueFd& lock_file) {
  try {
    return lock_file && shm::is_locked(lock_file.get());
  } catch (const Error&) {
    return true;
  }
}

void watch(int epoll_fd, int fd, std::uint64_t what) {
  epoll_event event = event_of(EPOLLIN, what);
  if (::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
    throw Error(ErrorCode::no_space, "epoll", "the exchange can't watch one more descriptor", "raise its limits",
                errno);
  }
}

}  // namespace

Service::Service(shm::Directory& directory, Exchange& exchange, std::string bus, int epoll_fd, NoticeSink sink)
    : directory_(directory), exchange_(exchange), bus_(std::move(bus)), epoll_fd_(epoll_fd), sink_(std::move(sink)) {
  // Whoever was there before a restart may be alive: its lock tells, and X waits for it without limit.
  const auto expect = [this](std::uint64_t id, uid_t uid, shm::UniqueFd lock_file, std::shared_ptr<User> user) {
    auto client = std::make_unique<Client>();
    client->id = id;
    client->identity.uid = uid;
    client->user = std::move(user);
    client->lock_file = std::move(lock_file);
    away_[id] = std::move(client);
    to_look_at_.push_back(id);
  };
  for (const auto& [id, uid] : exchange.holders()) {
    const std::string name = lock_name(id);
    expect(id, uid, directory.exists(name) ? directory.open(name, true) : shm::UniqueFd(), users_.find(uid));
  }
  // Those who hold nothing just now: their files go with them, too. They are on nobody's account: only files of X alone say
  // whose somebody is.
  for (const std::string& name : exchange.client_files()) {
    const std::uint64_t id = std::strtoull(name.c_str() + 7, nullptr, 10);
    if (away_.contains(id) || !directory.exists(name)) continue;
    shm::UniqueFd lock_file = directory.open(name, true);
    if (is_held(lock_file)) {
      const uid_t uid = owner_of(lock_file.get());
      expect(id, uid, std::move(lock_file), nullptr);
    } else {
      directory.remove(name);
    }
  }
  for (std::size_t i = to_look_at_.size(); i != 0; i -= std::min(i, locks_per_tick)) look_for_deaths();
}

Service::~Service() = default;

std::string Service::lock_name(std::uint64_t client) { return "client." + std::to_string(client) + ".lock"; }

void Service::accept(control::Socket socket, std::uint64_t now_ns) {
  auto client = std::make_unique<Client>();
  const int fd = socket.fd();
  client->heard_ns = now_ns;
  try {
    client->identity = socket.identity();
    client->user = users_.find(client->identity.uid);
    client->socket = std::move(socket);
    if (users_.full(client->user) || !users_.may_have(client->user, fd)) {
      tell_turned_away(*client, "its user has as many clients here as one user may have");
      (void)client->socket.send({{"ok", false},
                                 {"code", to_string(ErrorCode::no_space)},
                                 {"object", "user " + std::to_string(client->identity.uid)},
                                 {"why", "it has as many clients here as one user may have"},
                                 {"advice", "close some, or raise the limit of open files of the exchange"},
                                 {"errno", 0}});
      return;
    }
    watch(epoll_fd_, fd, tag(Source::client, static_cast<std::uint64_t>(fd)));
  } catch (const Error&) {
    return;  // the kernel has no room for one more (max_user_watches): this one sees that nobody is there
  }
  connected_[fd] = std::move(client);
  newcomers_.push_back({fd, now_ns + hello_within_ns});
}

void Service::serve(int fd) {
  std::uint64_t begin_ns = shm::Environment::now_ns();
  // A bounded number of requests, so that a flood waits for the data path and not the other way round.
  for (int i = 0; i < 16; ++i) {
    const auto at = connected_.find(fd);
    if (at == connected_.end()) return;
    const std::shared_ptr<User> user = at->second->user;
    if (user && begin_ns < flowing_until_ns_ && user->account.overdrawn(begin_ns)) {
      at->second->held = true;
      held_.push_back(fd);
      ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
      return;
    }
    if (at->second->unsent && !answer(fd, *at->second, std::move(*at->second->unsent))) return;
    control::Message message;
    std::string reason;
    switch (at->second->socket.receive(message, reason)) {
      case control::ReceiveStatus::nothing_yet:
        return;
      case control::ReceiveStatus::message: {
        at->second->heard_ns = begin_ns;
        handle(fd, *at->second, message);
        const std::uint64_t end_ns = shm::Environment::now_ns();
        if (user) user->account.charge(end_ns - begin_ns, end_ns);
        begin_ns = end_ns;
        break;
      }
      case control::ReceiveStatus::malformed:
      case control::ReceiveStatus::no_room:  // no request has descriptors
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
    tell_dropped(*client, why);
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
  if (!look_at(id)) to_look_at_.push_back(id);
}

// Whose accounts allow it again, or whose requests hold up nobody any more.
void Service::watch_again() {
  const std::uint64_t now_ns = shm::Environment::now_ns();
  std::erase_if(held_, [&](int fd) {
    const auto at = connected_.find(fd);
    if (at == connected_.end() || !at->second->held) return true;  // gone; the number may be another's by now
    Client& client = *at->second;
    if (now_ns < flowing_until_ns_ && client.user->account.overdrawn(now_ns)) return false;
    epoll_event event =
        event_of(client.unsent ? EPOLLOUT : EPOLLIN, tag(Source::client, static_cast<std::uint64_t>(fd)));
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) return false;  // no memory: the next tick tries again
    client.held = false;
    return true;
  });
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

void Service::tick(std::uint64_t now_ns) {
  look_for_deaths();
  close_offenders();
  close_silent(now_ns);
  if (!held_.empty()) watch_again();
}

// A bounded number: who leaves locks behind without end (in children, say) makes X look at them more seldom, not longer.
void Service::look_for_deaths() {
  for (std::size_t i = std::min(to_look_at_.size(), locks_per_tick); i != 0; --i) {
    const std::uint64_t id = to_look_at_.front();
    to_look_at_.pop_front();
    if (!look_at(id)) to_look_at_.push_back(id);
  }
}

// False: it is away, and alive.
bool Service::look_at(std::uint64_t id) {
  const auto at = away_.find(id);
  if (at == away_.end()) return true;  // it has come back
  const Client& client = *at->second;
  if (is_held(client.lock_file)) return false;
  {
    const ShardHold held(exchange_.peers());
    tell_gone(client);
    exchange_.client_gone(id);
  }
  directory_.remove(lock_name(id));
  away_.erase(at);
  return true;
}

// Half a connection takes a descriptor, and says nothing.
void Service::close_silent(std::uint64_t now_ns) {
  while (!newcomers_.empty() && now_ns >= newcomers_.front().until_ns) {
    const Newcomer newcomer = newcomers_.front();
    newcomers_.pop_front();
    const auto at = connected_.find(newcomer.fd);
    if (at == connected_.end() || at->second->id != 0) continue;
    const std::uint64_t until_ns = at->second->heard_ns + hello_within_ns;
    if (now_ns < until_ns) {
      newcomers_.push_back(
          {newcomer.fd, until_ns});  // it asks for something now and then; or the number is another's by now
    } else {
      drop(newcomer.fd, "nothing came for 10 s, and no hello");
    }
  }
}

void Service::close_offenders() {
  for (const Offence& offence : exchange_.take_offences()) {
    const auto at = std::find_if(connected_.begin(), connected_.end(),
                                 [&offence](const auto& entry) { return entry.second->id == offence.client; });
    if (at != connected_.end()) drop(at->first, offence.why);
  }
  for (const auto& ingress : exchange_.publishers()) {
    if (!ingress || !ingress->quarantined || ingress->client == 0) continue;
    for (const auto& [fd, client] : connected_) {
      if (client->id != ingress->client) continue;
      {
        const ShardHold held(exchange_.peers());
        exchange_.detach_publisher(*ingress);
      }
      drop(fd, "the ring of publisher " + ingress->name + " is damaged; it was quarantined");
      break;
    }
  }
}

void Service::rang_publisher(std::uint64_t slot) {
  const auto& ingress = exchange_.publishers()[slot];
  if (!ingress) return;
  const bool broken = !ingress->bell.drain() && ingress->has_bell;
  // relaxed: bits of this process; whoever sets one after this has yet to look at the ring
  const bool others =
      ingress->cursor_page != nullptr && ingress->first().not_polled.load(std::memory_order_relaxed) > 1;
  std::optional<ShardHold> held;  // who sleeps wakes when it is let go
  if (broken || others) held.emplace(exchange_.peers());
  if (broken) {
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, ingress->bell.fd(), nullptr);
    ingress->has_bell = false;
  }
  exchange_.heat(*ingress);
  if (!others) return;
  for (Exchange* shard : exchange_.shards()) {
    if (shard != nullptr) shard->heat(*shard->publishers()[slot]);
  }
}

// One bell, not those of all members: a bell may be rung without end, and its queue may have thousands of members (F46).
void Service::rang_queue(std::uint64_t index, std::uint64_t member) {
  if (index >= exchange_.queues().size() || !exchange_.queues()[index]) return;
  Queue& queue = *exchange_.queues()[index];
  std::optional<ShardHold> held;  // as above
  if (queue.shard != 0) held.emplace(exchange_.peers());
  Lane* const lane = queue.dispatched() ? queue.find_member(member) : &queue.lane;
  if (lane == nullptr || !lane->bell) return;
  if (!lane->bell.drain()) ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, lane->bell.fd(), nullptr);
}

void Service::close_all() {
  for (auto& [fd, client] : connected_) client->socket.close();
  connected_.clear();
}

// A new doorbell: one end is watched, the other goes out with the reply.
shm::Bell Service::new_bell(std::uint64_t what, const std::shared_ptr<User>& user, Reply& reply) {
  auto [ours, theirs] = shm::Bell::make_pair();
  if (!users_.may_have(user, theirs.fd())) {
    throw Error(ErrorCode::no_space, "user " + std::to_string(user->uid),
                "the last quarter of the exchange's descriptors is not for other users than its own",
                "close some, or raise the limit of open files of the exchange");
  }
  watch(epoll_fd_, ours.fd(), what);
  reply.descriptors.emplace_back(theirs.release());
  return std::move(ours);
}

}  // namespace ackring::exchange
