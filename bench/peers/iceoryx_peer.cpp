// iceoryx: samples in shared memory, a RouDi that connects the processes and is not on the way of a sample.
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <stdexcept>

#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/iceoryx_posh_types.hpp>
#include <iceoryx_posh/popo/publisher.hpp>
#include <iceoryx_posh/popo/subscriber.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <iceoryx_versions.hpp>

#include "bench/peers/peer.hpp"
#include "bench/peers/server.hpp"

namespace ackring::peers {
namespace {

// This process's membership in iceoryx, for as long as a sender or receiver of it lives. RouDi takes it for a fault of its own
// if it can't reach a member when it ends, so members have to leave; but their runtime is a static object, and roles end without
// destroying those (they are copies of the driver's).
class Membership {
 public:
  Membership() {
    if (users_++ > 0) return;
    iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kError,
                                                             iox::log::LogLevelOutput::kHideLogLevel);
    const std::string name = "ackring-peers-" + std::to_string(::getpid());
    iox::runtime::PoshRuntime::initRuntime(iox::RuntimeName_t(iox::cxx::TruncateToCapacity, name));
  }
  ~Membership() {
    if (--users_ == 0) iox::runtime::PoshRuntime::getInstance().~PoshRuntime();
  }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

 private:
  static inline int users_ = 0;
};

iox::capro::ServiceDescription service(const std::string& lane) {
  return {"ackring-peers", iox::capro::IdString_t(iox::cxx::TruncateToCapacity, lane), "messages"};
}

struct Mode {
  const char* name;
  bool polls;
  bool blocks;  ///< the publisher, while a queue is full; else the oldest sample of the queue gives way
};

class IceoryxSender : public Sender {
 public:
  IceoryxSender(const std::string& lane, const Mode& mode) : publisher_(service(lane), options(mode)) {}

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      while (true) {
        auto sample = publisher_.loan();
        if (!sample.has_error()) {
          sample.value()->number = first + i;
          sample.value().publish();  // may wait while a subscriber's queue is full
          break;
        }
        ::sched_yield();  // all chunks are on their way
      }
    }
  }

 private:
  static iox::popo::PublisherOptions options(const Mode& mode) {
    iox::popo::PublisherOptions options;
    if (mode.blocks) options.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
    return options;
  }
  Membership membership_;
  iox::popo::Publisher<Message> publisher_;
};

class IceoryxReceiver : public Receiver {
 public:
  IceoryxReceiver(const std::string& lane, const Mode& mode, std::size_t take)
      : subscriber_(service(lane), options(mode)), take_(take) {
    if (mode.polls) return;
    waiting_.emplace();
    if (waiting_->attachState(subscriber_, iox::popo::SubscriberState::HAS_DATA).has_error())
      throw std::runtime_error("iceoryx: can't attach the subscriber to a WaitSet");
  }
  ~IceoryxReceiver() override {
    if (waiting_) waiting_->detachState(subscriber_, iox::popo::SubscriberState::HAS_DATA);
  }

  void receive(Arrivals& arrivals) override {
    if (take_some(arrivals) > 0 || !waiting_) return;
    static_cast<void>(waiting_->timedWait(iox::units::Duration::fromMilliseconds(100)));
    take_some(arrivals);
  }

 private:
  static iox::popo::SubscriberOptions options(const Mode& mode) {
    iox::popo::SubscriberOptions options;  // the queue is as long as it can be: 256
    if (mode.blocks) options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
    return options;
  }

  std::size_t take_some(Arrivals& arrivals) {
    for (std::size_t i = 0; i < take_; ++i) {
      auto sample = subscriber_.take();
      if (sample.has_error()) return i;
      arrivals.see(sample.value()->number);
    }
    return take_;
  }

  Membership membership_;
  iox::popo::Subscriber<Message> subscriber_;
  std::optional<iox::popo::WaitSet<1>> waiting_;
  std::size_t take_;
};

class IceoryxSession : public Session {
 public:
  IceoryxSession(const Setting& setting, const Mode& mode) : setting_(setting), mode_(mode) {}
  std::unique_ptr<Sender> sender(unsigned lane) override {
    return std::make_unique<IceoryxSender>(lane_name(lane), mode_);
  }
  std::unique_ptr<Receiver> receiver(unsigned lane, unsigned) override {
    return std::make_unique<IceoryxReceiver>(lane_name(lane), mode_, setting_.take);
  }

 private:
  [[nodiscard]] std::string lane_name(unsigned lane) const { return setting_.name + "-" + std::to_string(lane); }
  Setting setting_;
  Mode mode_;
};

Facts describe(const Mode& mode) {
  Facts facts;
  facts.name = "iceoryx";
  facts.mode = mode.name;
  facts.version = ICEORYX_LATEST_RELEASE_VERSION;
  facts.lossless = mode.blocks;
  // Who polls needs the other side to run at the same time; who sleeps is woken sooner on the core that the waker leaves. A full
  // queue is emptied sooner on the core that the publisher gives up, and oftener by who has a core for it.
  facts.round_trip = mode.polls ? Place::apart : Place::together;
  facts.stream = !mode.polls ? Place::anywhere : mode.blocks ? Place::together : Place::apart;
  facts.settings = std::string("queues of 256 samples, ") +
                   (mode.blocks ? "a full one blocks the publisher (WAIT_FOR_CONSUMER, BLOCK_PRODUCER); "
                                : "the oldest of a full one gives way (as it is by default); ") +
                   (mode.polls ? "take() in a loop" : "WaitSet, then take() until nothing is left") +
                   "; RouDi without monitoring";
  return facts;
}

class IceoryxPeer : public Peer {
 public:
  explicit IceoryxPeer(const Mode& mode) : Peer(describe(mode)), mode_(mode) {}

  void start(const std::string& directory, const Cores&) override {
    // The pools of the default take 250 MB of /dev/shm; one kind of message needs one small pool.
    const std::string config = directory + "/roudi.toml";
    std::ofstream(config) << "[general]\nversion = 1\n[[segment]]\n[[segment.mempool]]\nsize = 128\ncount = 10000\n";
    roudi_.emplace("iox-roudi", std::vector<std::string>{"iox-roudi", "-c", config, "-m", "off", "-k", "1"},
                   directory + "/roudi.log");
    roudi_->wait_until([this] { return roudi_->has_written("RouDi is ready"); }, 30);
  }
  void stop() noexcept override { roudi_.reset(); }

  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<IceoryxSession>(setting, mode_);
  }

 private:
  Mode mode_;
  std::optional<Server> roudi_;
};

}  // namespace

void add_iceoryx(Peers& peers) {
  for (const Mode& mode : {Mode{"polling", true, true}, {"polling-drops", true, false}, {"blocking", false, true}})
    peers.push_back(std::make_unique<IceoryxPeer>(mode));
}

}  // namespace ackring::peers
