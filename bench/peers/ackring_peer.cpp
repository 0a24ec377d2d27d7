// ackring itself: the program ackring-exchange, and clients on one core, as `shmtool bench` has it. Only what a user of the
// library has: public headers and the program.
#include <chrono>
#include <cstring>
#include <optional>

#include "ackring/ackring.hpp"
#include "bench/peers/peer.hpp"
#include "bench/peers/server.hpp"
#include "tools/common/program.hpp"

namespace ackring::peers {
namespace {

using namespace std::chrono_literals;

constexpr Nanoseconds patience = 30s;  // on a busy machine, the exchange may have to wait for its core

void check(Outcome outcome, const char* what) {
  if (outcome != Outcome::ok)
    throw tools::Failure(tools::status_refused, std::string("ackring: can't ") + what + ": " + to_string(outcome));
}

struct BusPlace {
  std::string directory;
  std::string topic;
  Wait wait = Wait::adaptive;

  [[nodiscard]] Bus open() const {
    BusOptions options;
    options.directory = directory;
    options.exchange = ExchangeMode::require;
    options.timeout = 30s;
    return Bus::open("peers", options);
  }
};

class AckringSender : public Sender {
 public:
  explicit AckringSender(const BusPlace& where)
      : topic_(where.topic), bus_(where.open()), publisher_(bus_.publisher({.name = {}, .wait = where.wait})) {}

  void send(std::uint64_t first, std::uint64_t count) override {
    if (count == 1) {
      message_.number = first;
      check(publisher_.publish_wait(topic_, bytes(), patience), "publish");
      return;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      Outcome outcome = publisher_.add(topic_, bytes());
      if (outcome == Outcome::back_pressured) [[unlikely]] {
        check(publisher_.commit_batch(), "commit");
        outcome = publisher_.publish_wait(topic_, bytes(), patience);
      }
      check(outcome, "publish");
    }
    check(publisher_.commit_batch(), "commit");
  }

  void flush() override { check(publisher_.flush(patience), "flush"); }

 private:
  [[nodiscard]] Bytes bytes() const noexcept { return std::as_bytes(std::span(&message_, 1)); }

  std::string topic_;
  Bus bus_;
  Publisher publisher_;
  Message message_;
};

class AckringReceiver : public Receiver {
 public:
  AckringReceiver(const BusPlace& where, std::size_t take, Nanoseconds timeout)
      : bus_(where.open()), subscriber_(bus_.subscribe(options(where))), views_(take), timeout_(timeout) {}

  void receive(Arrivals& arrivals) override {
    taken_ = subscriber_.take_batch(views_, timeout_);
    for (std::size_t i = 0; i < taken_; ++i) {
      std::uint64_t number = 0;
      std::memcpy(&number, views_[i].payload().data(), sizeof number);
      arrivals.see(number);
    }
  }

  void ack() override {
    if (taken_ > 0) check(subscriber_.ack_through(views_[taken_ - 1]), "ack");
    taken_ = 0;
  }

  void flush() override { check(subscriber_.flush(patience), "settle the acks"); }

 private:
  static SubscriptionOptions options(const BusPlace& where) {
    SubscriptionOptions options;
    options.patterns = {where.topic};
    options.wait = where.wait;
    // A full ring holds the publisher back; what is compared is flow, not how long a queue can get.
    options.max_events = 1;
    options.overflow = Overflow::block;
    return options;
  }

  Bus bus_;
  Subscriber subscriber_;
  std::vector<DeliveryView> views_;
  Nanoseconds timeout_;
  std::size_t taken_ = 0;
};

class AckringSession : public Session {
 public:
  AckringSession(std::string directory, const Setting& setting, Wait wait)
      : where_{std::move(directory), setting.name, wait},
        take_(setting.take),
        timeout_(setting.measure == Measure::round_trip && wait != Wait::park ? 0ms : 100ms) {}

  std::unique_ptr<Sender> sender(unsigned) override { return std::make_unique<AckringSender>(where_); }
  std::unique_ptr<Receiver> receiver(unsigned, unsigned) override {
    return std::make_unique<AckringReceiver>(where_, take_, timeout_);
  }

 private:
  BusPlace where_;
  std::size_t take_;
  Nanoseconds timeout_;
};

Facts describe(Wait wait) {
  Facts facts;
  facts.name = "ackring";
  facts.mode = wait == Wait::park ? "blocking" : "polling";
  facts.version = ACKRING_VERSION;
  facts.brokered = true;
  facts.acked = true;
  facts.round_trip = facts.stream = Place::together;
  facts.settings =
      std::string("at least once; batches of 64 and 256; a full ring blocks; ") +
      (wait == Wait::park
           ? "all sides sleep at once when there is nothing (Wait::park); clients on one core, exchange anywhere"
           : "exchange and streams Wait::adaptive, round trips poll; clients on one core, exchange on the other");
  return facts;
}

class AckringPeer : public Peer {
 public:
  AckringPeer(Wait wait, std::string program) : Peer(describe(wait)), wait_(wait), program_(std::move(program)) {}

  void start(const std::string& directory, const Cores& cores) override {
    directory_ = directory + "/buses";
    std::vector<std::string> command{program_, "--bus", "peers", "--dir", directory_};
    // Who sleeps is woken sooner where its waker stops, so the system may move an exchange that parks.
    if (wait_ == Wait::park) {
      command.insert(command.end(), {"--wait", "park"});
    } else {
      command.insert(command.end(), {"--cpu", std::to_string(cores.other)});
    }
    server_.emplace("ackring-exchange", command, directory + "/exchange.log");
    server_->wait_until([this] { return server_->has_written("ready "); }, 30);
  }

  void stop() noexcept override { server_.reset(); }

  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<AckringSession>(directory_, setting, wait_);
  }

 private:
  Wait wait_;
  std::string program_;
  std::string directory_;
  std::optional<Server> server_;
};

}  // namespace

void add_ackring(Peers& peers, const Programs& programs) {
  for (const Wait wait : {Wait::adaptive, Wait::park})
    peers.push_back(std::make_unique<AckringPeer>(wait, programs.exchange));
}

}  // namespace ackring::peers
