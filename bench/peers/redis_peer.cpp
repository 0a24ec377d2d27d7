// Redis Streams over a Unix socket: XADD, XREADGROUP and XACK, pipelined; a group for each receiver.
//
// A receiver has its next XREADGROUP on its way while it handles what the last one brought, right behind the XACK of that.
#include <hiredis/hiredis.h>

#include <cstring>
#include <optional>
#include <stdexcept>

#include "bench/peers/peer.hpp"
#include "bench/peers/server.hpp"

namespace ackring::peers {
namespace {

constexpr std::size_t publish_batch = 64;  // commands that go together

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class Client {
 public:
  explicit Client(const std::string& socket) : context_(redisConnectUnix(socket.c_str())) {
    if (context_ == nullptr || context_->err != 0)
      throw std::runtime_error(std::string("Redis: can't connect: ") + (context_ ? context_->errstr : "no memory"));
  }
  ~Client() { redisFree(context_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void append(const std::vector<std::string_view>& words) {
    pointers_.clear();
    lengths_.clear();
    for (const std::string_view word : words) {
      pointers_.push_back(word.data());
      lengths_.push_back(word.size());
    }
    redisAppendCommandArgv(context_, static_cast<int>(words.size()), pointers_.data(), lengths_.data());
  }
  /// Writes what was appended.
  void write() {
    for (int done = 0; done == 0;) {
      if (redisBufferWrite(context_, &done) != REDIS_OK) refuse();
    }
  }
  /// The reply of the oldest command that has none yet.
  Reply reply() {
    void* reply = nullptr;
    if (redisGetReply(context_, &reply) != REDIS_OK) refuse();
    Reply result(static_cast<redisReply*>(reply));
    if (result->type == REDIS_REPLY_ERROR) throw std::runtime_error(std::string("Redis: ") + result->str);
    return result;
  }

 private:
  [[noreturn]] void refuse() const { throw std::runtime_error(std::string("Redis: ") + context_->errstr); }
  redisContext* context_;
  std::vector<const char*> pointers_;
  std::vector<std::size_t> lengths_;
};

class RedisSender : public Sender {
 public:
  RedisSender(const std::string& socket, std::string stream) : client_(socket), stream_(std::move(stream)) {}

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      words_ = {"XADD", stream_, "*", "m", {reinterpret_cast<const char*>(&message_), sizeof message_}};
      client_.append(words_);
    }
    client_.write();
    open_ += count;
    // One batch is always on its way.
    while (open_ > publish_batch) take_reply();
  }

  void flush() override {
    while (open_ > 0) take_reply();
  }

 private:
  void take_reply() {
    client_.reply();
    --open_;
  }
  Client client_;
  std::string stream_;
  Message message_;
  std::vector<std::string_view> words_;
  std::uint64_t open_ = 0;
};

class RedisReceiver : public Receiver {
 public:
  RedisReceiver(const std::string& socket, std::string stream, std::string group, std::size_t take)
      : client_(socket), stream_(std::move(stream)), group_(std::move(group)), take_(std::to_string(take)) {
    ask();
    client_.write();
  }

  void receive(Arrivals& arrivals) override {
    if (acks_open_) take_ack();
    if (!asked_) {
      ask();
      client_.write();
    }
    const Reply reply = client_.reply();
    asked_ = false;
    if (reply->type != REDIS_REPLY_ARRAY) return;  // nothing within the time
    // [[stream, [[id, [field, value]], …]]]
    const redisReply* entries = reply->element[0]->element[1];
    for (std::size_t i = 0; i < entries->elements; ++i) {
      const redisReply* entry = entries->element[i];
      const redisReply* value = entry->element[1]->element[1];
      if (value->len != sizeof(Message)) throw std::runtime_error("Redis: a message of another size");
      std::uint64_t number = 0;
      std::memcpy(&number, value->str, sizeof number);
      arrivals.see(number);
      ids_.emplace_back(entry->element[0]->str, entry->element[0]->len);
    }
  }

  void ack() override {
    if (ids_.empty()) return;
    std::vector<std::string_view> words{"XACK", stream_, group_};
    words.insert(words.end(), ids_.begin(), ids_.end());
    client_.append(words);
    acks_open_ = true;
    acked_ = static_cast<long long>(ids_.size());
    ask();
    client_.write();
    ids_.clear();
  }

  void flush() override {
    if (acks_open_) take_ack();
  }

 private:
  void ask() {
    client_.append({"XREADGROUP", "GROUP", group_, "c", "COUNT", take_, "BLOCK", "100", "STREAMS", stream_, ">"});
    asked_ = true;
  }
  void take_ack() {
    if (client_.reply()->integer != acked_) throw std::runtime_error("Redis: an ack was refused");
    acks_open_ = false;
  }
  Client client_;
  std::string stream_;
  std::string group_;
  std::string take_;
  std::vector<std::string> ids_;
  long long acked_ = 0;
  bool asked_ = false;
  bool acks_open_ = false;
};

class RedisSession : public Session {
 public:
  RedisSession(const Setting& setting, std::string socket) : setting_(setting), socket_(std::move(socket)) {
    Client client(socket_);
    for (unsigned number = 0; number < setting.receivers; ++number) {
      client.append({"XGROUP", "CREATE", setting_.name, group(number), "0", "MKSTREAM"});
      client.write();
      client.reply();
    }
  }
  std::unique_ptr<Sender> sender(unsigned) override { return std::make_unique<RedisSender>(socket_, setting_.name); }
  std::unique_ptr<Receiver> receiver(unsigned, unsigned number) override {
    return std::make_unique<RedisReceiver>(socket_, setting_.name, group(number), setting_.take);
  }

 private:
  static std::string group(unsigned number) { return "g" + std::to_string(number); }
  Setting setting_;
  std::string socket_;
};

Facts describe() {
  Facts facts;
  facts.name = "redis-streams";
  facts.mode = "blocking";
  facts.version = first_line("redis-server --version | sed -n 's/.* v=\\([^ ]*\\).*/\\1/p'");
  facts.settings =
      "Unix socket, no persistence; XADD in pipelines of 64, two on their way; XREADGROUP COUNT 256 BLOCK, asked "
      "for ahead, with the XACK of what came before; nothing pinned";
  facts.brokered = true;
  facts.acked = true;
  facts.round_trip = facts.stream = Place::anywhere;
  return facts;
}

class RedisPeer : public Peer {
 public:
  RedisPeer() : Peer(describe()) {}

  void start(const std::string& directory, const Cores&) override {
    socket_ = directory + "/redis";
    server_.emplace("redis-server",
                    std::vector<std::string>{"redis-server", "--port", "0", "--unixsocket", socket_, "--save", "",
                                             "--appendonly", "no", "--daemonize", "no", "--dir", directory},
                    directory + "/redis.log");
    server_->wait_until(
        [this] {
          return server_->has_written("Ready to accept connections") ||
                 server_->has_written("ready to accept connections");
        },
        30);
  }
  void stop() noexcept override { server_.reset(); }
  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<RedisSession>(setting, socket_);
  }

 private:
  std::string socket_;
  std::optional<Server> server_;
};

}  // namespace

void add_redis(Peers& peers) { peers.push_back(std::make_unique<RedisPeer>()); }

}  // namespace ackring::peers
