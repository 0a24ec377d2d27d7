// AF_UNIX SOCK_SEQPACKET: a pair of sockets for each receiver, messages in batches by sendmmsg and recvmmsg.
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "bench/peers/peer.hpp"
#include "lib/shm/descriptor.hpp"

namespace ackring::peers {
namespace {

constexpr int buffer_bytes = 4 << 20;  // the kernel counts about 800 bytes for each message of 64

// Messages and what the system calls want to know of them.
class Batch {
 public:
  explicit Batch(std::size_t size) : messages_(size), parts_(size), headers_(size) {
    for (std::size_t i = 0; i < size; ++i) {
      parts_[i] = {&messages_[i], sizeof(Message)};
      headers_[i].msg_hdr.msg_iov = &parts_[i];
      headers_[i].msg_hdr.msg_iovlen = 1;
    }
  }
  [[nodiscard]] Message& operator[](std::size_t index) { return messages_[index]; }
  [[nodiscard]] mmsghdr* headers(std::size_t from = 0) { return headers_.data() + from; }
  [[nodiscard]] unsigned size() const { return static_cast<unsigned>(headers_.size()); }

 private:
  std::vector<Message> messages_;
  std::vector<iovec> parts_;
  std::vector<mmsghdr> headers_;
};

class SocketSender : public Sender {
 public:
  SocketSender(std::vector<int> fds, bool polling, std::size_t batch)
      : fds_(std::move(fds)), polling_(polling), batch_(batch) {}

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) batch_[i].number = first + i;
    for (const int fd : fds_) {
      for (std::size_t sent = 0; sent < count;) {
        const int done = ::sendmmsg(fd, batch_.headers(sent), static_cast<unsigned>(count - sent),
                                    MSG_NOSIGNAL | (polling_ ? MSG_DONTWAIT : 0));
        if (done > 0) {
          sent += static_cast<std::size_t>(done);
        } else if (errno == EAGAIN) {
          ::sched_yield();
        } else if (errno != EINTR) {
          throw std::system_error(errno, std::generic_category(), "sendmmsg");
        }
      }
    }
  }

 private:
  std::vector<int> fds_;
  bool polling_;
  Batch batch_;
};

class SocketReceiver : public Receiver {
 public:
  SocketReceiver(int fd, bool polling, std::size_t take) : fd_(fd), polling_(polling), batch_(take) {}

  void receive(Arrivals& arrivals) override {
    const int got = ::recvmmsg(fd_, batch_.headers(), batch_.size(), polling_ ? MSG_DONTWAIT : MSG_WAITFORONE, nullptr);
    if (got < 0 && errno != EAGAIN && errno != EINTR)
      throw std::system_error(errno, std::generic_category(), "recvmmsg");
    for (int i = 0; i < got; ++i) arrivals.see(batch_[static_cast<std::size_t>(i)].number);
  }

 private:
  int fd_;
  bool polling_;
  Batch batch_;
};

class SocketSession : public Session {
 public:
  SocketSession(const Setting& setting, bool polling) : setting_(setting), polling_(polling) {
    for (unsigned i = 0; i < setting.lanes * setting.receivers; ++i) {
      int ends[2];
      if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        throw std::system_error(errno, std::generic_category(), "socketpair");
      sending_.emplace_back(ends[0]);
      receiving_.emplace_back(ends[1]);
      // Beyond the system's limit where this user may; else up to it.
      if (::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &buffer_bytes, sizeof buffer_bytes) != 0)
        ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
      const timeval patience{0, 100'000};
      ::setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    }
  }

  std::unique_ptr<Sender> sender(unsigned lane) override {
    std::vector<int> fds;
    for (unsigned i = 0; i < setting_.receivers; ++i) fds.push_back(sending_[lane * setting_.receivers + i].get());
    return std::make_unique<SocketSender>(fds, polling_, setting_.batch);
  }
  std::unique_ptr<Receiver> receiver(unsigned lane, unsigned number) override {
    const int fd = receiving_[lane * setting_.receivers + number].get();
    return std::make_unique<SocketReceiver>(fd, polling_, setting_.take);
  }

 private:
  Setting setting_;
  bool polling_;
  std::vector<shm::UniqueFd> sending_;
  std::vector<shm::UniqueFd> receiving_;
};

Facts describe(bool polling) {
  Facts facts;
  facts.name = "unix-seqpacket";
  facts.mode = polling ? "polling" : "blocking";
  utsname names{};
  ::uname(&names);
  facts.version = std::string("Linux ") + names.release;
  // Who polls needs the other side to run at the same time; who sleeps is woken sooner on the core that the waker leaves. Streams
  // are fastest where pollers do not contend for the socket's lock.
  facts.round_trip = polling ? Place::apart : Place::together;
  facts.stream = polling ? Place::together : Place::anywhere;
  facts.settings =
      "socketpair(AF_UNIX, SOCK_SEQPACKET), one per receiver, send buffer 4 MiB; sendmmsg of 64, recvmmsg of "
      "up to 256";
  return facts;
}

class SocketPeer : public Peer {
 public:
  explicit SocketPeer(bool polling) : Peer(describe(polling)), polling_(polling) {}
  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<SocketSession>(setting, polling_);
  }

 private:
  bool polling_;
};

}  // namespace

void add_unix_socket(Peers& peers) {
  for (const bool polling : {true, false}) peers.push_back(std::make_unique<SocketPeer>(polling));
}

}  // namespace ackring::peers
