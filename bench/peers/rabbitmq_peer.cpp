// RabbitMQ: a fanout exchange with a classic queue for each receiver, publisher confirms, manual acks of many at a time.
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <stdexcept>

#include "bench/peers/peer.hpp"
#include "bench/peers/server.hpp"

namespace ackring::peers {
namespace {

constexpr std::uint64_t confirms_open = 4096;
constexpr std::uint16_t prefetch = 2048;
constexpr amqp_channel_t channel = 1;

void check(bool good, const std::string& what) {
  if (!good) throw std::runtime_error("RabbitMQ: " + what);
}

amqp_bytes_t bytes_of(const std::string& text) { return {text.size(), const_cast<char*>(text.data())}; }

class Connection {
 public:
  explicit Connection(int port) : state_(amqp_new_connection()) {
    check(amqp_socket_open(amqp_tcp_socket_new(state_), "127.0.0.1", port) == AMQP_STATUS_OK, "can't connect");
    const amqp_rpc_reply_t login = amqp_login(state_, "/", AMQP_DEFAULT_MAX_CHANNELS, AMQP_DEFAULT_FRAME_SIZE, 0,
                                              AMQP_SASL_METHOD_PLAIN, "guest", "guest");
    check(login.reply_type == AMQP_RESPONSE_NORMAL, "can't log in");
    amqp_channel_open(state_, channel);
    check_reply("open a channel");
  }
  ~Connection() { amqp_destroy_connection(state_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Of the last call that waits for an answer.
  void check_reply(const std::string& what) {
    check(amqp_get_rpc_reply(state_).reply_type == AMQP_RESPONSE_NORMAL, what);
  }
  [[nodiscard]] amqp_connection_state_t get() const noexcept { return state_; }

 private:
  amqp_connection_state_t state_;
};

class RabbitmqSender : public Sender {
 public:
  RabbitmqSender(int port, std::string exchange) : connection_(port), exchange_(std::move(exchange)) {
    amqp_confirm_select(connection_.get(), channel);
    connection_.check_reply("confirms");
  }

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      const int status = amqp_basic_publish(connection_.get(), channel, bytes_of(exchange_), amqp_empty_bytes, 0, 0,
                                            nullptr, {sizeof message_, &message_});
      check(status == AMQP_STATUS_OK, std::string("publish: ") + amqp_error_string2(status));
      ++published_;
    }
    while (take_confirm(0)) {
    }
    while (published_ - confirmed_ > confirms_open) check(take_confirm(30), "no confirm in 30 s");
  }

  void flush() override {
    while (confirmed_ < published_) check(take_confirm(30), "no confirm in 30 s");
  }

 private:
  // False: none came in time.
  bool take_confirm(int seconds) {
    timeval patience{seconds, 0};
    amqp_frame_t frame;
    const int status = amqp_simple_wait_frame_noblock(connection_.get(), &frame, &patience);
    if (status == AMQP_STATUS_TIMEOUT) return false;
    check(status == AMQP_STATUS_OK, std::string("confirms: ") + amqp_error_string2(status));
    check(frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_ACK_METHOD,
          "something else than a confirm: it refused messages, or closed the channel");
    const auto* ack = static_cast<const amqp_basic_ack_t*>(frame.payload.method.decoded);
    if (ack->multiple) {
      confirmed_ = std::max(confirmed_, ack->delivery_tag);
      alone_.erase(alone_.begin(), alone_.upper_bound(confirmed_));
    } else {
      alone_.insert(ack->delivery_tag);
    }
    while (!alone_.empty() && *alone_.begin() == confirmed_ + 1) {
      ++confirmed_;
      alone_.erase(alone_.begin());
    }
    amqp_maybe_release_buffers(connection_.get());
    return true;
  }

  Connection connection_;
  std::string exchange_;
  Message message_;
  std::uint64_t published_ = 0;
  std::uint64_t confirmed_ = 0;    // all up to here are
  std::set<std::uint64_t> alone_;  // and these
};

class RabbitmqReceiver : public Receiver {
 public:
  RabbitmqReceiver(int port, const std::string& queue, std::size_t take) : connection_(port), take_(take) {
    amqp_basic_qos(connection_.get(), channel, 0, prefetch, 0);
    connection_.check_reply("prefetch");
    amqp_basic_consume(connection_.get(), channel, bytes_of(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    connection_.check_reply("consume");
  }

  void receive(Arrivals& arrivals) override {
    for (std::size_t i = 0; i < take_; ++i) {
      amqp_envelope_t envelope;
      amqp_maybe_release_buffers(connection_.get());
      timeval patience{0, i == 0 ? 100'000 : 0};
      const amqp_rpc_reply_t reply = amqp_consume_message(connection_.get(), &envelope, &patience, 0);
      if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT) return;
      check(reply.reply_type == AMQP_RESPONSE_NORMAL, "a message was not one");
      std::uint64_t number = 0;
      std::memcpy(&number, envelope.message.body.bytes, sizeof number);
      arrivals.see(number);
      tag_ = envelope.delivery_tag;
      amqp_destroy_envelope(&envelope);
    }
  }
  void ack() override {
    if (tag_ == 0) return;
    check(amqp_basic_ack(connection_.get(), channel, tag_, 1) == AMQP_STATUS_OK, "can't ack");
    tag_ = 0;
  }

 private:
  Connection connection_;
  std::size_t take_;
  std::uint64_t tag_ = 0;  // not acked yet, as all before it
};

class RabbitmqSession : public Session {
 public:
  RabbitmqSession(const Setting& setting, int port) : setting_(setting), port_(port) {
    Connection maker(port);
    amqp_exchange_declare(maker.get(), channel, bytes_of(setting_.name), amqp_cstring_bytes("fanout"), 0, 0, 0, 0,
                          amqp_empty_table);
    maker.check_reply("declare the exchange");
    for (unsigned number = 0; number < setting.receivers; ++number) {
      const std::string name = queue(number);
      amqp_queue_declare(maker.get(), channel, bytes_of(name), 0, 0, 0, 0, amqp_empty_table);
      maker.check_reply("declare a queue");
      amqp_queue_bind(maker.get(), channel, bytes_of(name), bytes_of(setting_.name), amqp_empty_bytes,
                      amqp_empty_table);
      maker.check_reply("bind a queue");
    }
  }
  std::unique_ptr<Sender> sender(unsigned) override { return std::make_unique<RabbitmqSender>(port_, setting_.name); }
  std::unique_ptr<Receiver> receiver(unsigned, unsigned number) override {
    return std::make_unique<RabbitmqReceiver>(port_, queue(number), setting_.take);
  }

 private:
  [[nodiscard]] std::string queue(unsigned number) const { return setting_.name + "-" + std::to_string(number); }
  Setting setting_;
  int port_;
};

Facts describe() {
  Facts facts;
  facts.name = "rabbitmq";
  facts.mode = "blocking";
  facts.version = first_line("dpkg-query -W -f='${Version}' rabbitmq-server");
  facts.settings =
      "loopback TCP; fanout exchange, a classic queue in memory per receiver; publisher confirms, 4,096 open; "
      "prefetch of 2,048, one ack for up to 256; nothing pinned";
  facts.brokered = true;
  facts.acked = true;
  facts.round_trip = facts.stream = Place::anywhere;
  return facts;
}

class RabbitmqPeer : public Peer {
 public:
  RabbitmqPeer() : Peer(describe()) {}

  void start(const std::string& directory, const Cores&) override {
    // Erlang's port mapper too: the one that a node starts by itself would stay behind, and listen to everybody.
    const std::string mapper_port = std::to_string(free_port());
    mapper_.emplace("epmd", std::vector<std::string>{"epmd", "-address", "127.0.0.1", "-port", mapper_port},
                    directory + "/epmd.log");
    mapper_->wait_until([&mapper_port] { return listening(std::stoi(mapper_port)); }, 30);
    port_ = free_port();
    std::ofstream(directory + "/rabbitmq.conf") << "listeners.tcp.default = 127.0.0.1:" << port_ << "\n";
    std::ofstream(directory + "/plugins") << "[].\n";
    // The script that the package's wrapper starts; the wrapper would change to the system's user and directories.
    server_.emplace("rabbitmq-server", std::vector<std::string>{"/usr/lib/rabbitmq/bin/rabbitmq-server"},
                    directory + "/rabbitmq.log",
                    std::vector<std::pair<std::string, std::string>>{
                        {"detached", "true"},  // the script becomes the server, instead of waiting for it
                        {"HOME", directory},
                        {"ERL_EPMD_PORT", mapper_port},
                        {"ERL_EPMD_ADDRESS", "127.0.0.1"},
                        {"RABBITMQ_NODENAME", "ackring-peers@localhost"},
                        {"RABBITMQ_CONFIG_FILE", directory + "/rabbitmq.conf"},
                        {"RABBITMQ_CONF_ENV_FILE", directory + "/no-environment"},
                        {"RABBITMQ_MNESIA_BASE", directory + "/mnesia"},
                        {"RABBITMQ_LOG_BASE", directory + "/log"},
                        {"RABBITMQ_LOGS", "-"},
                        {"RABBITMQ_PID_FILE", directory + "/pid"},
                        {"RABBITMQ_ENABLED_PLUGINS_FILE", directory + "/plugins"},
                        {"RABBITMQ_DIST_PORT", std::to_string(free_port())},
                        {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}"},
                    });
    server_->wait_until([this] { return server_->has_written("Server startup complete"); }, 120);
  }
  void stop() noexcept override {
    server_.reset();
    mapper_.reset();
  }
  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<RabbitmqSession>(setting, port_);
  }

 private:
  int port_ = 0;
  std::optional<Server> mapper_;
  std::optional<Server> server_;
};

}  // namespace

void add_rabbitmq(Peers& peers) { peers.push_back(std::make_unique<RabbitmqPeer>()); }

}  // namespace ackring::peers
