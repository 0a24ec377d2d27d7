// Boost.Interprocess message_queue: one for each receiver, in shared memory, under a mutex of processes.
#include <sched.h>
#include <unistd.h>

#include <utility>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>

#include "bench/peers/peer.hpp"

namespace ackring::peers {
namespace {

using boost::interprocess::message_queue;

constexpr std::size_t queue_messages = 1024;

class BoostSender : public Sender {
 public:
  BoostSender(const std::vector<std::string>& names, bool polling) : polling_(polling) {
    for (const std::string& name : names)
      queues_.push_back(std::make_unique<message_queue>(boost::interprocess::open_only, name.c_str()));
  }

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      for (const auto& queue : queues_) {
        if (!polling_) {
          queue->send(&message_, sizeof message_, 0);
        } else {
          while (!queue->try_send(&message_, sizeof message_, 0)) ::sched_yield();
        }
      }
    }
  }

 private:
  bool polling_;
  std::vector<std::unique_ptr<message_queue>> queues_;
  Message message_;
};

class BoostReceiver : public Receiver {
 public:
  BoostReceiver(const std::string& name, bool polling, std::size_t take)
      : queue_(boost::interprocess::open_only, name.c_str()), polling_(polling), take_(take) {}

  void receive(Arrivals& arrivals) override {
    Message message;
    message_queue::size_type bytes = 0;
    unsigned priority = 0;
    std::size_t taken = 0;
    if (!polling_) {
      queue_.receive(&message, sizeof message, bytes, priority);
      arrivals.see(message.number);
      ++taken;
    }
    for (; taken < take_ && queue_.try_receive(&message, sizeof message, bytes, priority); ++taken)
      arrivals.see(message.number);
  }

 private:
  message_queue queue_;
  bool polling_;
  std::size_t take_;
};

// Owns the name of a queue, and so the queue.
class Name {
 public:
  explicit Name(std::string name) : name_(std::move(name)) {
    message_queue(boost::interprocess::create_only, name_.c_str(), queue_messages, sizeof(Message));
  }
  Name(Name&& other) noexcept : name_(std::exchange(other.name_, {})) {}
  Name& operator=(Name&&) = delete;
  ~Name() {
    if (!name_.empty()) message_queue::remove(name_.c_str());
  }
  [[nodiscard]] const std::string& text() const noexcept { return name_; }

 private:
  std::string name_;
};

class BoostSession : public Session {
 public:
  BoostSession(const Setting& setting, bool polling) : setting_(setting), polling_(polling) {
    for (unsigned i = 0; i < setting.lanes * setting.receivers; ++i) {
      names_.emplace_back("ackring-" + setting.name + "-" + std::to_string(::getpid()) + "-" + std::to_string(i));
    }
  }

  std::unique_ptr<Sender> sender(unsigned lane) override {
    std::vector<std::string> names;
    for (unsigned i = 0; i < setting_.receivers; ++i) names.push_back(names_[lane * setting_.receivers + i].text());
    return std::make_unique<BoostSender>(names, polling_);
  }
  std::unique_ptr<Receiver> receiver(unsigned lane, unsigned number) override {
    const std::string& name = names_[lane * setting_.receivers + number].text();
    return std::make_unique<BoostReceiver>(name, polling_, setting_.take);
  }

 private:
  Setting setting_;
  bool polling_;
  std::vector<Name> names_;
};

Facts describe(bool polling) {
  Facts facts;
  facts.name = "boost-mq";
  facts.mode = polling ? "polling" : "blocking";
  facts.version = std::to_string(BOOST_VERSION / 100'000) + "." + std::to_string(BOOST_VERSION / 100 % 1000);
  // Who polls needs the other side to run at the same time; who sleeps is woken sooner on the core that the waker leaves. Streams
  // are fastest where nobody contends for the mutex.
  facts.round_trip = polling ? Place::apart : Place::together;
  facts.stream = Place::together;
  facts.settings = "message_queue of 1,024 messages, one per receiver, all of one priority";
  return facts;
}

class BoostPeer : public Peer {
 public:
  explicit BoostPeer(bool polling) : Peer(describe(polling)), polling_(polling) {}
  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<BoostSession>(setting, polling_);
  }

 private:
  bool polling_;
};

}  // namespace

void add_boost_message_queue(Peers& peers) {
  for (const bool polling : {true, false}) peers.push_back(std::make_unique<BoostPeer>(polling));
}

}  // namespace ackring::peers
