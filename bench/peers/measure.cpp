#include "bench/peers/measure.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <vector>

#include "lib/shm/park.hpp"
#include "lib/shm/word.hpp"
#include "tools/common/child.hpp"
#include "tools/common/histogram.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::peers {
namespace {

using tools::Channel;
using tools::Child;
using tools::Failure;
using tools::monotonic_ns;
using tools::monotonic_ns_behind;
using namespace std::chrono_literals;

constexpr std::uint64_t farewell = 1ULL << 62;                  // number that tells an echo to end
constexpr std::uint64_t patience_ns = 10'000'000'000;           // for one round trip
constexpr std::uint64_t stream_patience_ns = 3'000'000'000;     // what is not there so long after the last one is lost
constexpr std::uint64_t greeting_patience_ns = 30'000'000'000;  // servers may have to make queues first

// Waits of who polls: a while on the core, then it yields, since another role may need it.
class Idle {
 public:
  explicit Idle(std::uint32_t spins) : spins_(spins) {}
  void wait() noexcept {
    shm::cpu_relax();
    if (++round_ % spins_ == 0) ::sched_yield();
  }

 private:
  std::uint32_t spins_;
  std::uint32_t round_ = 0;
};

// Spinning on is right only where the other side runs at the same time.
Idle idle_of(const Peer& peer, const Setting& setting) {
  const bool alone = peer.facts().brokered ? setting.place == Place::together : setting.place == Place::apart;
  return Idle(setting.measure == Measure::round_trip && alone ? 16'384 : 64);
}

void go_to(int core) {
  if (core >= 0) tools::pin_to_cpu(core);
}

// Returns when `arrivals` has seen something new.
bool receive_within(Receiver& receiver, Arrivals& arrivals, Idle& idle, std::uint64_t limit_ns) {
  const std::uint64_t seen = arrivals.seen();
  std::uint64_t start = 0;
  for (std::uint32_t looks = 1;; ++looks) {
    receiver.receive(arrivals);
    if (arrivals.seen() != seen) return true;
    idle.wait();
    if (looks % 256 != 0 && start != 0) continue;
    const std::uint64_t now = monotonic_ns();
    if (start == 0) start = now;
    if (now - start > limit_ns) return false;
  }
}

// Sends back what comes, one by one.
void echo(Session& session, Idle idle) {
  const auto receiver = session.receiver(0, 0);
  const auto sender = session.sender(1);
  Arrivals arrivals;
  std::uint64_t sent = 0;
  while (true) {
    if (!receive_within(*receiver, arrivals, idle, 10 * patience_ns))
      throw Failure(tools::status_refused, "echo: nothing came any more: is the other side gone?");
    receiver->ack();
    if (arrivals.last() == farewell) return;
    // A greeting is answered by a greeting, as long as there was nothing else.
    const bool is_new = arrivals.last() != sent;
    sent = arrivals.last();
    if (is_new || sent == 0) sender->send(sent, 1);
  }
}

class RoundTrips {
 public:
  RoundTrips(Session& session, bool brokered, Idle idle)
      : receiver_(session.receiver(brokered ? 0 : 1, 0)), sender_(session.sender(0)), idle_(idle) {}

  void run(const Budget& budget, bool brokered, Channel& channel) {
    greet();
    tools::Histogram warm_up;
    tools::Histogram histogram;
    run_for({budget.seconds / 10, budget.count > 0 ? budget.count / 10 + 1 : 0}, warm_up);
    run_for(budget, histogram);
    if (!brokered) sender_->send(farewell, 1);
    sender_->flush();
    receiver_->flush();
    channel.send({{"count", histogram.count()},
                  {"p50_ns", histogram.percentile(50)},
                  {"p99_ns", histogram.percentile(99)},
                  {"max_ns", histogram.max()}});
  }

 private:
  void greet() {
    for (std::uint64_t start = monotonic_ns(); monotonic_ns() - start < greeting_patience_ns;) {
      sender_->send(0, 1);
      sender_->flush();
      if (!receive_within(*receiver_, arrivals_, idle_, 20'000'000)) continue;
      receiver_->ack();
      return;
    }
    throw Failure(tools::status_refused, "round trip: no greeting came through in 30 s");
  }

  void run_for(const Budget& budget, tools::Histogram& histogram) {
    const std::uint64_t begin = monotonic_ns();
    const auto limit_ns = static_cast<std::uint64_t>(budget.seconds * 1e9);
    for (std::uint64_t done = 0; budget.count > 0 ? done < budget.count : monotonic_ns() - begin < limit_ns; ++done) {
      const std::uint64_t start = monotonic_ns();
      sender_->send(++number_, 1);
      // Late greetings may come first.
      while (arrivals_.last() != number_) {
        if (!receive_within(*receiver_, arrivals_, idle_, patience_ns))
          throw Failure(tools::status_refused, "round trip: a message did not come within 10 s");
      }
      histogram.record(monotonic_ns_behind() - start);
      receiver_->ack();
    }
  }

  std::unique_ptr<Receiver> receiver_;
  std::unique_ptr<Sender> sender_;
  Idle idle_;
  Arrivals arrivals_;
  std::uint64_t number_ = 0;
};

// How many the sender has sent in all: 0 until it knows. On a page that all roles share.
struct alignas(128) Total {
  shm::Word<std::uint64_t> messages;
};

class SharedTotal {
 public:
  SharedTotal() {
    void* memory = ::mmap(nullptr, sizeof(Total), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw Failure(tools::status_refused, "no memory for the benchmark: free some");
    total_ = new (memory) Total;
  }
  ~SharedTotal() { ::munmap(total_, sizeof(Total)); }
  SharedTotal(const SharedTotal&) = delete;
  SharedTotal& operator=(const SharedTotal&) = delete;

  void set(std::uint64_t messages) {
    total_->messages.store(messages, std::memory_order_release);  // release(peers.total): before the last ones are sent
  }
  [[nodiscard]] std::uint64_t get() const {
    return total_->messages.load(std::memory_order_acquire);  // acquire(peers.total): what the last ones are
  }

 private:
  Total* total_ = nullptr;
};

void send_stream(Session& session, const Setting& setting, const Budget& budget, SharedTotal& total, Channel& channel) {
  const auto sender = session.sender(0);
  channel.send("ready");
  while (!channel.receive(2ms)) {  // until every receiver has heard it
    sender->send(0, 1);
    sender->flush();
  }
  const std::uint64_t start = monotonic_ns();
  const auto limit_ns = static_cast<std::uint64_t>(budget.seconds * 1e9);
  std::uint64_t sent = 0;
  for (bool last = false; !last;) {
    std::uint64_t count = setting.batch;
    if (budget.count > 0) {
      count = std::min<std::uint64_t>(count, budget.count - sent);
      last = sent + count == budget.count;
    } else {
      last = monotonic_ns() - start > limit_ns;
    }
    // Told before the last ones go: who has got them must not wait for more.
    if (last) total.set(sent + count);
    sender->send(sent + 1, count);
    sent += count;
  }
  sender->flush();
  channel.send({{"start", start}, {"end", monotonic_ns()}, {"published", sent}});
  channel.expect(1h, "end of the benchmark");  // what is on its way may need this process
}

void receive_stream(Session& session, unsigned number, Idle idle, const SharedTotal& total, Channel& channel) {
  const auto receiver = session.receiver(0, number);
  Arrivals arrivals;
  channel.send("ready");
  if (!receive_within(*receiver, arrivals, idle, greeting_patience_ns))
    throw Failure(tools::status_refused, "no greeting came through in 30 s");
  channel.send("heard");
  std::uint64_t last_arrival = monotonic_ns();
  std::uint64_t known_since = 0;
  for (std::uint64_t seen = 0;;) {
    if (arrivals.seen() != seen) {
      seen = arrivals.seen();
      receiver->ack();
      last_arrival = monotonic_ns();
    } else {
      idle.wait();
    }
    const std::uint64_t messages = total.get();
    if (messages > 0) {
      if (arrivals.last() >= messages) break;
      const std::uint64_t now = monotonic_ns();
      if (known_since == 0) known_since = now;
      if (now - std::max(known_since, last_arrival) > stream_patience_ns) break;
    }
    receiver->receive(arrivals);
  }
  receiver->flush();
  const bool complete = arrivals.last() >= total.get();
  channel.send({{"end", complete ? monotonic_ns() : last_arrival},
                {"received", arrivals.received()},
                {"duplicates", arrivals.duplicates()}});
}

}  // namespace

int core_of(Place place, const Cores& cores, bool sends) noexcept {
  switch (place) {
    case Place::apart:
      return sends ? cores.other : cores.clients;
    case Place::together:
      return cores.clients;
    case Place::anywhere:
      break;
  }
  return -1;
}

nlohmann::json measure_round_trip(Peer& peer, const Setting& setting, const Budget& budget) {
  const bool brokered = peer.facts().brokered;
  const std::unique_ptr<Session> session = peer.open(setting);
  const Idle idle = idle_of(peer, setting);
  std::vector<Child> echoes;
  if (!brokered) {
    echoes.push_back(Child::start("peers-echo", [&](Channel&) {
      go_to(core_of(setting.place, setting.cores, true));
      echo(*session, idle);
    }));
  }
  Child meter = Child::start("peers-meter", [&](Channel& channel) {
    go_to(core_of(setting.place, setting.cores, false));
    RoundTrips(*session, brokered, idle).run(budget, brokered, channel);
  });
  const auto limit = std::chrono::seconds(60 + static_cast<int>(10 * budget.seconds));
  nlohmann::json result = meter.channel().expect(limit, "round trip");
  meter.wait(10s);
  for (Child& child : echoes) child.wait(10s);
  return result;
}

nlohmann::json measure_stream(Peer& peer, const Setting& setting, const Budget& budget) {
  const std::unique_ptr<Session> session = peer.open(setting);
  const Idle idle = idle_of(peer, setting);
  SharedTotal total;
  std::vector<Child> receivers;
  for (unsigned number = 0; number < setting.receivers; ++number) {
    receivers.push_back(Child::start("peers-receiver", [&, number](Channel& channel) {
      go_to(core_of(setting.place, setting.cores, false));
      receive_stream(*session, number, idle, total, channel);
    }));
  }
  for (Child& child : receivers) child.channel().expect(60s, "receiver");
  Child sender = Child::start("peers-sender", [&](Channel& channel) {
    go_to(core_of(setting.place, setting.cores, true));
    send_stream(*session, setting, budget, total, channel);
  });
  sender.channel().expect(60s, "sender");
  for (Child& child : receivers) child.channel().expect(60s, "receiver that waits for a greeting");
  sender.channel().send("go");

  const auto limit = std::chrono::seconds(60 + static_cast<int>(20 * budget.seconds));
  const nlohmann::json sent = sender.channel().expect(limit, "sender");
  const auto start = sent.at("start").get<std::uint64_t>();
  const auto published = sent.at("published").get<std::uint64_t>();
  std::uint64_t end = sent.at("end");
  std::uint64_t delivered = 0;
  std::uint64_t duplicates = 0;
  for (Child& child : receivers) {
    const nlohmann::json report = child.channel().expect(limit, "receiver");
    end = std::max(end, report.at("end").get<std::uint64_t>());
    delivered += report.at("received").get<std::uint64_t>();
    duplicates += report.at("duplicates").get<std::uint64_t>();
  }
  for (Child& child : receivers) child.wait(10s);
  sender.channel().send("end");
  sender.wait(10s);

  const std::uint64_t expected = published * setting.receivers;
  const double seconds = static_cast<double>(end - start) / 1e9;
  return {{"published", published},
          {"delivered", delivered},
          {"lost", expected - delivered},
          {"duplicates", duplicates},
          {"seconds", seconds},
          {"per_s", static_cast<double>(delivered) / seconds},
          {"loss_percent", 100 * static_cast<double>(expected - delivered) / static_cast<double>(expected)}};
}

}  // namespace ackring::peers
