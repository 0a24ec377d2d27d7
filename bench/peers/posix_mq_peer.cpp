// POSIX message queues: one for each receiver. The kernel has no call for several messages at a time.
#include <mqueue.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "bench/peers/peer.hpp"

namespace ackring::peers {
namespace {

// Longest queue that this user may have: root is bound by its own limit of bytes only, others by a setting of the system.
constexpr long longest_queue = 1024;

[[noreturn]] void refuse(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

class Queue {
 public:
  Queue(const std::string& name, bool polling) {
    mq_attr attributes{};
    attributes.mq_maxmsg = longest_queue;
    attributes.mq_msgsize = sizeof(Message);
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | (polling ? O_NONBLOCK : 0);
    queue_ = ::mq_open(name.c_str(), flags, 0600, &attributes);
    if (queue_ < 0 && (errno == EINVAL || errno == EMFILE)) {
      attributes.mq_maxmsg = 10;
      std::ifstream("/proc/sys/fs/mqueue/msg_max") >> attributes.mq_maxmsg;
      queue_ = ::mq_open(name.c_str(), flags, 0600, &attributes);
    }
    if (queue_ < 0) refuse("mq_open");
    ::mq_unlink(name.c_str());  // the processes of roles have it from this one
  }
  Queue(Queue&& other) noexcept : queue_(std::exchange(other.queue_, -1)) {}
  Queue& operator=(Queue&&) = delete;
  ~Queue() {
    if (queue_ >= 0) ::mq_close(queue_);
  }
  [[nodiscard]] mqd_t get() const noexcept { return queue_; }

 private:
  mqd_t queue_ = -1;
};

class QueueSender : public Sender {
 public:
  explicit QueueSender(std::vector<mqd_t> queues) : queues_(std::move(queues)) {}

  void send(std::uint64_t first, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      message_.number = first + i;
      for (const mqd_t queue : queues_) {
        while (::mq_send(queue, reinterpret_cast<const char*>(&message_), sizeof message_, 0) != 0) {
          if (errno != EAGAIN && errno != EINTR) refuse("mq_send");
          ::sched_yield();
        }
      }
    }
  }

 private:
  std::vector<mqd_t> queues_;
  Message message_;
};

class QueueReceiver : public Receiver {
 public:
  QueueReceiver(mqd_t queue, bool polling, std::size_t take) : queue_(queue), polling_(polling), take_(take) {}

  void receive(Arrivals& arrivals) override {
    // A blocking queue answers one at a time: there is no telling whether another call would wait.
    for (std::size_t i = 0; i < (polling_ ? take_ : 1); ++i) {
      Message message;
      if (::mq_receive(queue_, reinterpret_cast<char*>(&message), sizeof message, nullptr) < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        refuse("mq_receive");
      }
      arrivals.see(message.number);
    }
  }

 private:
  mqd_t queue_;
  bool polling_;
  std::size_t take_;
};

class QueueSession : public Session {
 public:
  QueueSession(const Setting& setting, bool polling) : setting_(setting), polling_(polling) {
    for (unsigned i = 0; i < setting.lanes * setting.receivers; ++i) {
      queues_.emplace_back("/ackring-" + setting.name + "-" + std::to_string(::getpid()) + "-" + std::to_string(i),
                           polling);
    }
  }

  std::unique_ptr<Sender> sender(unsigned lane) override {
    std::vector<mqd_t> queues;
    for (unsigned i = 0; i < setting_.receivers; ++i) queues.push_back(queues_[lane * setting_.receivers + i].get());
    return std::make_unique<QueueSender>(queues);
  }
  std::unique_ptr<Receiver> receiver(unsigned lane, unsigned number) override {
    return std::make_unique<QueueReceiver>(queues_[lane * setting_.receivers + number].get(), polling_, setting_.take);
  }

 private:
  Setting setting_;
  bool polling_;
  std::vector<Queue> queues_;
};

Facts describe(bool polling) {
  Facts facts;
  facts.name = "posix-mq";
  facts.mode = polling ? "polling" : "blocking";
  utsname names{};
  ::uname(&names);
  facts.version = std::string("Linux ") + names.release;
  // Who polls needs the other side to run at the same time; who sleeps is woken sooner on the core that the waker leaves. Streams
  // are fastest where nobody contends for the queue's lock.
  facts.round_trip = polling ? Place::apart : Place::together;
  facts.stream = Place::together;
  facts.settings =
      "mq_send and mq_receive, one queue per receiver, of 1,024 messages (as many as fs.mqueue.msg_max allows without "
      "root)";
  return facts;
}

class QueuePeer : public Peer {
 public:
  explicit QueuePeer(bool polling) : Peer(describe(polling)), polling_(polling) {}
  std::unique_ptr<Session> open(const Setting& setting) override {
    return std::make_unique<QueueSession>(setting, polling_);
  }

 private:
  bool polling_;
};

}  // namespace

void add_posix_message_queue(Peers& peers) {
  for (const bool polling : {true, false}) peers.push_back(std::make_unique<QueuePeer>(polling));
}

}  // namespace ackring::peers
