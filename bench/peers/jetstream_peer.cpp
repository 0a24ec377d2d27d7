// NATS JetStream: a stream in the server's memory, asynchronous publishing, a push consumer for each receiver whose acks hold
// for all before them.
#include <nats/nats.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "bench/peers/peer.hpp"
#include "bench/peers/server.hpp"
#include "tools/common/child.hpp"

namespace ackring::peers {
namespace {

constexpr int publishes_open = 4096;
constexpr int acks_open = 20'000;

void check(natsStatus status, const char* what) {
  if (status != NATS_OK) throw std::runtime_error(std::string("NATS: ") + what + ": " + natsStatus_GetText(status));
}

// A connection, which has threads of its own, and its JetStream context.
class Connection {
 public:
  /// `at_once`: what is sent goes out at once, not when a thread of the library comes to it.
  Connection(const std::string& url, bool at_once) {
    natsOptions* options = nullptr;
    check(natsOptions_Create(&options), "options");
    natsOptions_SetURL(options, url.c_str());
    natsOptions_SetSendAsap(options, at_once);
    const natsStatus status = natsConnection_Connect(&connection_, options);
    natsOptions_Destroy(options);
    check(status, "connect");
    jsOptions stream_options;
    jsOptions_Init(&stream_options);
    stream_options.Wait = 30'000;
    stream_options.PublishAsync.MaxPending = publishes_open;
    stream_options.PublishAsync.StallWait = 30'000;
    check(natsConnection_JetStream(&stream_, connection_, &stream_options), "JetStream");
  }
  ~Connection() {
    jsCtx_Destroy(stream_);
    natsConnection_Destroy(connection_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  [[nodiscard]] jsCtx* stream() const noexcept { return stream_; }
  void flush() { check(natsConnection_FlushTimeout(connection_, 30'000), "flush"); }

 private:
  natsConnection* connection_ = nullptr;
  jsCtx* stream_ = nullptr;
};

class JetstreamSender : public Sender {
 public:
  JetstreamSender(const std::string& url, std::string subject, bool at_once)
      : connection_(url, at_once), subject_(std::move(subject)) {}

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      check(js_PublishAsync(connection_.stream(), subject_.c_str(), &message_, sizeof message_, nullptr), "publish");
    }
  }
  void flush() override {
    jsPubOptions options;
    jsPubOptions_Init(&options);
    options.MaxWait = 60'000;
    check(js_PublishAsyncComplete(connection_.stream(), &options), "confirmations");
  }

 private:
  Connection connection_;
  std::string subject_;
  Message message_;
};

class JetstreamReceiver : public Receiver {
 public:
  JetstreamReceiver(const std::string& url, const std::string& name, bool at_once, std::size_t take)
      : connection_(url, at_once), take_(take) {
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Stream = name.c_str();
    options.ManualAck = true;
    options.Config.AckPolicy = js_AckAll;
    options.Config.MaxAckPending = acks_open;
    check(js_SubscribeSync(&subscription_, connection_.stream(), name.c_str(), nullptr, &options, nullptr),
          "subscribe");
    check(natsSubscription_SetPendingLimits(subscription_, -1, -1), "limits");
  }
  ~JetstreamReceiver() override {
    natsMsg_Destroy(last_);
    natsSubscription_Destroy(subscription_);
  }

  void receive(Arrivals& arrivals) override {
    for (std::size_t i = 0; i < take_; ++i) {
      natsMsg* message = nullptr;
      const natsStatus status = natsSubscription_NextMsg(&message, subscription_, i == 0 ? 100 : 0);
      if (status == NATS_TIMEOUT) return;
      check(status, "next message");
      std::uint64_t number = 0;
      std::memcpy(&number, natsMsg_GetData(message), sizeof number);
      arrivals.see(number);
      natsMsg_Destroy(last_);
      last_ = message;
    }
  }
  void ack() override {
    if (last_ == nullptr) return;
    check(natsMsg_Ack(last_, nullptr), "ack");
    natsMsg_Destroy(last_);
    last_ = nullptr;
  }
  void flush() override { connection_.flush(); }

 private:
  Connection connection_;
  natsSubscription* subscription_ = nullptr;
  natsMsg* last_ = nullptr;  // its ack holds for all before it
  std::size_t take_;
};

class JetstreamSession : public Session {
 public:
  JetstreamSession(const Setting& setting, std::string url) : setting_(setting), url_(std::move(url)) {
    // Elsewhere: a connection has threads, and this process is to fork.
    tools::Child maker = tools::Child::start("peers-maker", [this](tools::Channel& channel) {
      const Connection connection(url_, true);
      const char* subject = setting_.name.c_str();
      jsStreamConfig config;
      jsStreamConfig_Init(&config);
      config.Name = subject;
      config.Subjects = &subject;
      config.SubjectsLen = 1;
      config.Storage = js_MemoryStorage;
      check(js_AddStream(nullptr, connection.stream(), &config, nullptr, nullptr), "add stream");
      channel.send("done");
    });
    maker.channel().expect(std::chrono::seconds(30), "NATS: stream");
  }
  std::unique_ptr<Sender> sender(unsigned) override {
    return std::make_unique<JetstreamSender>(url_, setting_.name, at_once());
  }
  std::unique_ptr<Receiver> receiver(unsigned, unsigned) override {
    return std::make_unique<JetstreamReceiver>(url_, setting_.name, at_once(), setting_.take);
  }

 private:
  [[nodiscard]] bool at_once() const { return setting_.measure == Measure::round_trip; }
  Setting setting_;
  std::string url_;
};

Facts describe() {
  Facts facts;
  facts.name = "nats-jetstream";
  facts.mode = "blocking";
  facts.version = first_line("nats-server --version | sed 's/.* v//'");
  facts.settings =
      "loopback TCP, stream in memory; asynchronous publishing, 4,096 open; push consumer, AckAll once per 256 or "
      "fewer, 20,000 open; SendAsap in round trips only; nothing pinned";
  facts.brokered = true;
  facts.acked = true;
  facts.round_trip = facts.stream = Place::anywhere;
  return facts;
}

class JetstreamPeer : public Peer {
 public:
  JetstreamPeer() : Peer(describe()) {}

  void start(const std::string& directory, const Cores&) override {
    const int port = free_port();
    url_ = "nats://127.0.0.1:" + std::to_string(port);
    server_.emplace("nats-server",
                    std::vector<std::string>{"nats-server", "-a", "127.0.0.1", "-p", std::to_string(port), "-js", "-sd",
                                             directory + "/jetstream"},
                    directory + "/nats.log");
    server_->wait_until([port] { return listening(port); }, 30);
  }
  void stop() noexcept override { server_.reset(); }
  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<JetstreamSession>(setting, url_);
  }

 private:
  std::string url_;
  std::optional<Server> server_;
};

}  // namespace

void add_jetstream(Peers& peers) { peers.push_back(std::make_unique<JetstreamPeer>()); }

}  // namespace ackring::peers
