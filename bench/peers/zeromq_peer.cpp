// ZeroMQ over ipc: PUSH and PULL from one to one, PUB and SUB to several.
#include <zmq.h>

#include <cerrno>
#include <stdexcept>

#include "bench/peers/peer.hpp"

namespace ackring::peers {
namespace {

constexpr int high_water_mark = 100'000;  // messages, at each end

int check(int result, const char* what) {
  if (result < 0) throw std::runtime_error(std::string("ZeroMQ: ") + what + ": " + zmq_strerror(errno));
  return result;
}

// A context and the one socket that a role needs.
class Socket {
 public:
  explicit Socket(int type) : context_(zmq_ctx_new()), socket_(zmq_socket(context_, type)) {
    set(ZMQ_SNDHWM, high_water_mark);
    set(ZMQ_RCVHWM, high_water_mark);
    set(ZMQ_RCVTIMEO, 100);
    set(ZMQ_RECONNECT_IVL, 1);  // ms; receivers are there before the sender binds
  }
  ~Socket() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  void set(int option, int value) { check(zmq_setsockopt(socket_, option, &value, sizeof value), "option"); }
  [[nodiscard]] void* get() const noexcept { return socket_; }

 private:
  void* context_;
  void* socket_;
};

class ZeromqSender : public Sender {
 public:
  ZeromqSender(const std::string& address, bool fan_out) : socket_(fan_out ? ZMQ_XPUB : ZMQ_PUSH) {
    // A full subscriber holds the publisher back, instead of missing messages.
    if (fan_out) socket_.set(ZMQ_XPUB_NODROP, 1);
    socket_.set(ZMQ_LINGER, 1000);
    check(zmq_bind(socket_.get(), address.c_str()), "bind");
  }

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      check(zmq_send(socket_.get(), &message_, sizeof message_, 0), "send");
    }
  }

 private:
  Socket socket_;
  Message message_;
};

class ZeromqReceiver : public Receiver {
 public:
  ZeromqReceiver(const std::string& address, bool fan_out, std::size_t take)
      : socket_(fan_out ? ZMQ_SUB : ZMQ_PULL), take_(take) {
    socket_.set(ZMQ_LINGER, 0);
    if (fan_out) check(zmq_setsockopt(socket_.get(), ZMQ_SUBSCRIBE, "", 0), "subscribe");
    check(zmq_connect(socket_.get(), address.c_str()), "connect");
  }

  void receive(Arrivals& arrivals) override {
    Message message;
    for (std::size_t i = 0; i < take_; ++i) {
      if (zmq_recv(socket_.get(), &message, sizeof message, i == 0 ? 0 : ZMQ_DONTWAIT) < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        check(-1, "recv");
      }
      arrivals.see(message.number);
    }
  }

 private:
  Socket socket_;
  std::size_t take_;
};

class ZeromqSession : public Session {
 public:
  explicit ZeromqSession(const Setting& setting) : setting_(setting) {}
  std::unique_ptr<Sender> sender(unsigned lane) override {
    return std::make_unique<ZeromqSender>(address(lane), fan_out());
  }
  std::unique_ptr<Receiver> receiver(unsigned lane, unsigned) override {
    return std::make_unique<ZeromqReceiver>(address(lane), fan_out(), setting_.take);
  }

 private:
  [[nodiscard]] bool fan_out() const { return setting_.receivers > 1; }
  [[nodiscard]] std::string address(unsigned lane) const {
    return "ipc://" + setting_.directory + "/lane" + std::to_string(lane);
  }
  Setting setting_;
};

Facts describe() {
  Facts facts;
  facts.name = "zeromq";
  facts.mode = "blocking";
  int major = 0;
  int minor = 0;
  int patch = 0;
  zmq_version(&major, &minor, &patch);
  facts.version = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  facts.settings =
      "ipc; PUSH/PULL one to one, XPUB/SUB with XPUB_NODROP to several; high water marks of 100,000; batching as "
      "it is; blocking recv, then what is there without waiting; I/O threads of its own, nothing pinned";
  facts.round_trip = facts.stream = Place::anywhere;
  return facts;
}

class ZeromqPeer : public Peer {
 public:
  ZeromqPeer() : Peer(describe()) {}
  std::unique_ptr<Session> open(const Setting& setting) override { return std::make_unique<ZeromqSession>(setting); }
};

}  // namespace

void add_zeromq(Peers& peers) { peers.push_back(std::make_unique<ZeromqPeer>()); }

}  // namespace ackring::peers
