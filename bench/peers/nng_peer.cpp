// nng over ipc: pairs from one to one, pub and sub to several.
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>

#include <stdexcept>

#include "bench/peers/peer.hpp"

namespace ackring::peers {
namespace {

constexpr int buffered_messages = 8192;  // the most that nng allows

void check(int error, const char* what) {
  if (error != 0) throw std::runtime_error(std::string("nng: ") + what + ": " + nng_strerror(error));
}

class NngSender : public Sender {
 public:
  NngSender(const std::string& address, bool fan_out) {
    check(fan_out ? nng_pub0_open(&socket_) : nng_pair0_open(&socket_), "open");
    nng_socket_set_int(socket_, NNG_OPT_SENDBUF,
                       buffered_messages);  // protocols without it say so: nothing is lost then
    check(nng_listen(socket_, address.c_str(), nullptr, 0), "listen");
  }
  ~NngSender() override { nng_close(socket_); }

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      check(nng_send(socket_, &message_, sizeof message_, 0), "send");
    }
  }

 private:
  nng_socket socket_{};
  Message message_;
};

class NngReceiver : public Receiver {
 public:
  NngReceiver(const std::string& address, bool fan_out, std::size_t take) : take_(take) {
    check(fan_out ? nng_sub0_open(&socket_) : nng_pair0_open(&socket_), "open");
    if (fan_out) check(nng_socket_set(socket_, NNG_OPT_SUB_SUBSCRIBE, "", 0), "subscribe");
    check(nng_socket_set_int(socket_, NNG_OPT_RECVBUF, buffered_messages), "option");
    check(nng_socket_set_ms(socket_, NNG_OPT_RECVTIMEO, 100), "option");
    check(nng_socket_set_ms(socket_, NNG_OPT_RECONNMINT, 1), "option");
    check(nng_socket_set_ms(socket_, NNG_OPT_RECONNMAXT, 10), "option");
    check(nng_dial(socket_, address.c_str(), nullptr, NNG_FLAG_NONBLOCK), "dial");  // the sender comes later
  }
  ~NngReceiver() override { nng_close(socket_); }

  void receive(Arrivals& arrivals) override {
    Message message;
    for (std::size_t i = 0; i < take_; ++i) {
      std::size_t bytes = sizeof message;
      const int error = nng_recv(socket_, &message, &bytes, i == 0 ? 0 : NNG_FLAG_NONBLOCK);
      if (error == NNG_ETIMEDOUT || error == NNG_EAGAIN) return;
      check(error, "recv");
      arrivals.see(message.number);
    }
  }

 private:
  nng_socket socket_{};
  std::size_t take_;
};

class NngSession : public Session {
 public:
  explicit NngSession(const Setting& setting) : setting_(setting) {}
  std::unique_ptr<Sender> sender(unsigned lane) override {
    return std::make_unique<NngSender>(address(lane), fan_out());
  }
  std::unique_ptr<Receiver> receiver(unsigned lane, unsigned) override {
    return std::make_unique<NngReceiver>(address(lane), fan_out(), setting_.take);
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
  facts.name = "nng";
  facts.mode = "blocking";
  facts.version = nng_version();
  facts.settings =
      "ipc; pair0 one to one, pub/sub, which drops, to several; buffers of 8,192 messages; blocking recv, then "
      "what is there without waiting; threads of its own, nothing pinned";
  facts.lossless = false;
  facts.round_trip = facts.stream = Place::anywhere;
  return facts;
}

class NngPeer : public Peer {
 public:
  NngPeer() : Peer(describe()) {}
  std::unique_ptr<Session> open(const Setting& setting) override { return std::make_unique<NngSession>(setting); }
};

}  // namespace

void add_nng(Peers& peers) { peers.push_back(std::make_unique<NngPeer>()); }

}  // namespace ackring::peers
