#include "lib/control/socket.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>

#include "ackring/error.hpp"
#include "lib/shm/environment.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::control {
namespace {

constexpr int socket_type = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
constexpr int listen_backlog = 512;
constexpr int refusals_per_accept = 16;  // so that a crowd of refused clients does not keep the exchange from its work
constexpr std::uint64_t second_ns = 1'000'000'000;

using ControlSpace = std::array<char, CMSG_SPACE(sizeof(int) * max_descriptors)>;

shm::UniqueFd new_socket(const std::string& path) {
  shm::UniqueFd fd(::socket(AF_UNIX, socket_type, 0));
  if (!fd) throw shm::system_error(path, "can't make a socket", errno);
  return fd;
}

// The address of a socket file. One that is too long for sun_path is named through a descriptor of its directory, which
// lives as long as this object.
class Address {
 public:
  explicit Address(const std::string& path) {
    address_.sun_family = AF_UNIX;
    if (path.size() < sizeof address_.sun_path) {
      set(path);
      return;
    }
    const std::size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
    folder_ = shm::UniqueFd(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder_) {
      const int error = errno;
      if (error == ENOENT)
        throw Error(ErrorCode::not_found, path, "its directory does not exist", "check the name", error);
      throw shm::system_error(path, "can't open its directory", error);
    }
    const std::string short_path = "/proc/self/fd/" + std::to_string(folder_.get()) + '/' + file;
    if (short_path.size() >= sizeof address_.sun_path) {
      throw Error(ErrorCode::invalid_argument, path, "the name of the socket is too long", "choose a shorter name");
    }
    set(short_path);
  }
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&address_); }
  [[nodiscard]] const char* path() const noexcept { return static_cast<const char*>(address_.sun_path); }
  static constexpr socklen_t bytes = sizeof(sockaddr_un);

 private:
  void set(const std::string& path) noexcept { std::memcpy(address_.sun_path, path.c_str(), path.size() + 1); }

  sockaddr_un address_{};
  shm::UniqueFd folder_;
};

void set_send_timeout(int fd, time_t seconds) noexcept {
  const timeval timeout{seconds, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

// Takes all descriptors that came with a message, so that none can be forgotten.
void collect_descriptors(msghdr& header, std::vector<shm::UniqueFd>& descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
}

enum class HangUp { yes, no, unknown };

// Has the other side closed the connection? `unknown`: the kernel has no memory for an answer.
HangUp hang_up_of(int fd) noexcept {
  pollfd wanted{fd, POLLIN | POLLRDHUP, 0};
  int ready = 0;
  do {
    ready = ::poll(&wanted, 1, 0);
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) return HangUp::unknown;
  return ready > 0 && (wanted.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0 ? HangUp::yes : HangUp::no;
}

// Are objects and arrays nested deeper than allowed? Looks at brackets outside of strings only; where the text is no
// JSON the parser stops before the two could disagree. Done before parsing, so that deep input costs nothing.
bool too_deep(const char* text, std::size_t bytes) noexcept {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < bytes; ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > max_nesting) return true;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return false;
}

// The message's JSON object in `body`, or why it is none.
const char* parse(const char* text, std::size_t bytes, Json& body) {
  // The parser would take a zero byte for the end of its input.
  if (std::memchr(text, 0, bytes) != nullptr) return "the message is not JSON: it has a zero byte";
  if (too_deep(text, bytes)) return "the message is nested deeper than 16";
  body = Json::parse(text, text + bytes, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded()) return "the message is not JSON in UTF-8";
  if (!body.is_object()) return "the message is not a JSON object";
  return nullptr;
}

}  // namespace

std::pair<Socket, Socket> Socket::make_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, socket_type, 0, ends) != 0) {
    throw shm::system_error("control connection", "can't make a pair of sockets", errno);
  }
  return {Socket(shm::UniqueFd(ends[0])), Socket(shm::UniqueFd(ends[1]))};
}

Socket Socket::connect(const std::string& path) {
  const auto nobody = [&](int error) {
    return Error(ErrorCode::no_exchange, path, "no exchange serves this bus", "start ackring-exchange", error);
  };
  try {
    const Address address(path);
    shm::UniqueFd fd = new_socket(path);
    // A listener that does not accept (a stopped exchange) makes a blocking connect wait, a non-blocking one fail at
    // once; a bounded wait is what a client wants.
    const int flags = ::fcntl(fd.get(), F_GETFL);
    ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
    set_send_timeout(fd.get(), 1);
    const std::uint64_t deadline_ns = shm::Environment::now_ns() + second_ns;
    while (::connect(fd.get(), address.get(), Address::bytes) != 0) {
      const int error = errno;
      if (error == EINTR && shm::Environment::now_ns() < deadline_ns) continue;
      if (error == ENOENT || error == ECONNREFUSED || error == ENOTDIR) throw nobody(error);
      if (error == EAGAIN || error == EINTR) {
        throw Error(ErrorCode::timeout, path, "the exchange does not accept connections", "see whether it is stopped",
                    error);
      }
      throw shm::system_error(path, "can't connect to it", error);
    }
    set_send_timeout(fd.get(), 0);
    ::fcntl(fd.get(), F_SETFL, flags);
    return Socket(std::move(fd));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::not_found) throw nobody(error.system_errno());
    throw;
  }
}

SendStatus Socket::send(const Json& body, const std::vector<int>& descriptors) noexcept {
  try {
    if (!fd_) return SendStatus::closed;
    if (descriptors.size() > max_descriptors) return SendStatus::too_large;
    std::string text = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > max_message_bytes) return SendStatus::too_large;
    iovec part{text.data(), text.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) ControlSpace control{};
    if (!descriptors.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
      std::memcpy(CMSG_DATA(rights), descriptors.data(), sizeof(int) * descriptors.size());
    }
    for (;;) {
      if (::sendmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return SendStatus::sent;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return SendStatus::full;
      // Not closed: an answer would be lost with the connection, and what it grants be held by nobody.
      if (errno == ENOMEM || errno == ENOBUFS) return SendStatus::full;
      if (errno != EINTR) return SendStatus::closed;
    }
  } catch (const std::exception&) {  // no memory
    return SendStatus::closed;
  }
}

ReceiveStatus Socket::receive(Message& message, std::string& reason) noexcept {
  std::vector<shm::UniqueFd> descriptors;
  try {
    message.body = nullptr;
    message.descriptors.clear();
    descriptors.reserve(max_descriptors);
    const auto buffer = std::make_unique_for_overwrite<char[]>(max_message_bytes);
    iovec part{buffer.get(), max_message_bytes};
    alignas(cmsghdr) ControlSpace control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t got = 0;
    do {
      got = ::recvmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
      const int error = errno;
      if (error == EAGAIN || error == EWOULDBLOCK) return ReceiveStatus::nothing_yet;
      if (error == ENOMEM || error == ENOBUFS) return ReceiveStatus::nothing_yet;  // it is there still
      reason = std::string("the connection is gone: ") + std::strerror(error);
      return ReceiveStatus::closed;
    }
    collect_descriptors(header, descriptors);
    const char* problem = nullptr;
    const bool cut = (header.msg_flags & MSG_CTRUNC) != 0;
    const bool no_room = cut && descriptors.size() < max_descriptors;  // the kernel fills the space as far as it can
    if ((header.msg_flags & MSG_TRUNC) != 0) {
      problem = "the message is larger than 65536 bytes";
    } else if (cut && !no_room) {
      problem = "the message has more than 8 descriptors";
    } else if (got == 0) {
      if (hang_up_of(fd_.get()) != HangUp::no) {
        reason = "the other side closed the connection";
        return ReceiveStatus::closed;
      }
      problem = "the message is empty";
    } else {
      problem = parse(buffer.get(), static_cast<std::size_t>(got), message.body);
    }
    if (problem != nullptr) {
      message.body = nullptr;
      reason = problem;
      return ReceiveStatus::malformed;
    }
    if (no_room) {
      reason = "this process has no room for the descriptors of the message";
      return ReceiveStatus::no_room;
    }
    message.descriptors = std::move(descriptors);
    return ReceiveStatus::message;
  } catch (const std::exception&) {  // no memory: what was received is lost, so the connection can't go on
    message.body = nullptr;
    reason = "no memory";  // short enough to need none
    return ReceiveStatus::malformed;
  }
}

bool Socket::wait_readable(std::uint64_t timeout_ns) const noexcept { return wait(POLLIN, timeout_ns); }
bool Socket::wait_readable_or_room(std::uint64_t timeout_ns) const noexcept {
  return wait(POLLIN | POLLOUT, timeout_ns);
}

bool Socket::hung_up() const noexcept { return hang_up_of(fd_.get()) == HangUp::yes; }

bool Socket::wait(short events, std::uint64_t timeout_ns) const noexcept {
  const std::uint64_t begin_ns = shm::Environment::now_ns();
  std::uint64_t left_ns = timeout_ns;
  for (;;) {
    constexpr std::uint64_t most_seconds = std::numeric_limits<int>::max();
    const timespec timeout{static_cast<time_t>(std::min(left_ns / second_ns, most_seconds)),
                           static_cast<long>(left_ns % second_ns)};
    pollfd wanted{fd_.get(), events, 0};
    const int ready = ::ppoll(&wanted, 1, &timeout, nullptr);
    if (ready > 0) return true;
    if (ready == 0 || left_ns == 0 || (errno != EINTR && errno != ENOMEM)) return false;
    const std::uint64_t waited_ns = shm::Environment::now_ns() - begin_ns;
    left_ns = timeout_ns > waited_ns ? timeout_ns - waited_ns : 0;
  }
}

Credentials Socket::credentials() const {
  ucred peer{};
  socklen_t bytes = sizeof peer;
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) {
    throw shm::system_error("control connection", "can't tell who the other side is", errno);
  }
  return {peer.pid, peer.uid, peer.gid};
}

Identity Socket::identity() const {
  const Credentials peer = credentials();
  Identity identity{peer.uid, peer.gid, {}};
  socklen_t bytes = 0;
  // Kernels before 4.13 do not know the option: then the primary group is all that counts.
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERGROUPS, nullptr, &bytes) == 0 || errno != ERANGE) return identity;
  identity.groups.resize(bytes / sizeof(gid_t));
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERGROUPS, identity.groups.data(), &bytes) != 0) {
    throw shm::system_error("control connection", "can't tell the groups of the other side", errno);
  }
  identity.groups.resize(std::min(bytes / sizeof(gid_t), shm::max_peer_groups));
  return identity;
}

Listener::Listener(const std::string& path, unsigned mode, int group) {
  const auto refused = [&](const char* action) { return shm::system_error(path, action, errno); };
  struct stat existing {};
  const Address address(path);
  if (::lstat(address.path(), &existing) == 0 && !S_ISSOCK(existing.st_mode)) {
    throw Error(ErrorCode::system, path, "something that is no socket has this name", "remove it or move it away",
                EEXIST);
  }
  // Made under another name: nobody finds it before its owner and mode are set and it takes connections.
  const Address temporary(path + ".new");
  if (::unlink(temporary.path()) != 0 && errno != ENOENT) throw refused("can't remove a stale socket");
  fd_ = new_socket(path);
  if (::bind(fd_.get(), temporary.get(), Address::bytes) != 0) throw refused("can't make the socket");
  try {
    if (group >= 0 && ::lchown(temporary.path(), static_cast<uid_t>(-1), static_cast<gid_t>(group)) != 0) {
      throw refused("can't give it to its group");
    }
    if (::chmod(temporary.path(), mode & 0777u) != 0) throw refused("can't set its mode");
    if (::listen(fd_.get(), listen_backlog) != 0) throw refused("can't listen");
    if (::rename(temporary.path(), address.path()) != 0) throw refused("can't give the socket its name");
  } catch (...) {
    ::unlink(temporary.path());
    throw;
  }
  reopen_spare();
}

void Listener::reopen_spare() noexcept { spare_ = shm::UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

std::optional<Socket> Listener::accept() {
  for (int refused = 0; refused < refusals_per_accept;) {
    if (!spare_) reopen_spare();
    shm::UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) return Socket(std::move(fd));
    const int error = errno;
    if (error == EINTR || error == ECONNABORTED || error == EPROTO) continue;
    if ((error != EMFILE && error != ENFILE) || !spare_) return std::nullopt;
    spare_.reset();
    Socket client(shm::UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
    const bool somebody =
        static_cast<bool>(client);  // a full table is reported before it is known whether anybody waits
    if (somebody) {
      (void)client.send({{"ok", false},
                         {"code", to_string(ErrorCode::no_space)},
                         {"object", "exchange"},
                         {"why", "it has no file descriptors left"},
                         {"advice", "close other clients, or raise the limit of open files of its process"},
                         {"errno", error}});
    }
    client.close();
    reopen_spare();
    if (!somebody) return std::nullopt;
    ++refused;
  }
  return std::nullopt;
}

}  // namespace ackring::control
