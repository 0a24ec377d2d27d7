// What the driver asks of a peer: another way to move messages between processes, or ackring itself. A peer makes
// sessions; in each, one process has the sender of a lane and others have its receivers.
//
// Thread rules: the driver's process has no threads, since it forks. Whatever starts threads of its own (client libraries)
// is made in the role's process: in Session::sender() and Session::receiver(), never in a constructor of a Session.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ackring::peers {

/// What travels: its number, from 1; 0 is a greeting, by which both ends know that they are connected.
struct Message {
  std::uint64_t number = 0;
  std::array<std::uint64_t, 7> filling{};
};
static_assert(sizeof(Message) == 64);

/// Counts what a receiver got from one sender, which numbers its messages 1, 2, 3, …
class Arrivals {
 public:
  void see(std::uint64_t number) noexcept {
    ++seen_;
    if (number == last_ + 1) [[likely]] {
      last_ = number;
      ++received_;
    } else if (number > last_) {
      last_ = number;
      ++received_;
    } else if (number != 0) {
      ++duplicates_;
    }
  }
  /// Everything, greetings and duplicates too.
  [[nodiscard]] std::uint64_t seen() const noexcept { return seen_; }
  /// Distinct messages.
  [[nodiscard]] std::uint64_t received() const noexcept { return received_; }
  /// The highest number so far.
  [[nodiscard]] std::uint64_t last() const noexcept { return last_; }
  /// What came again, or after a higher number.
  [[nodiscard]] std::uint64_t duplicates() const noexcept { return duplicates_; }

 private:
  std::uint64_t seen_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t last_ = 0;
  std::uint64_t duplicates_ = 0;
};

/// The sending end of a lane. Calls are per batch, so that what they cost is not the peer's.
class Sender {
 public:
  Sender() = default;
  virtual ~Sender() = default;
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  /// Sends the messages first … first + count - 1 to every receiver of the lane, and waits for room where the peer knows
  /// back-pressure. In a round trip, the message is on its way when this returns. Throws std::exception.
  virtual void send(std::uint64_t first, std::uint64_t count) = 0;
  /// Waits until the peer has all of it: nothing is held back, everything is confirmed where the peer confirms.
  virtual void flush() {}
};

/// One receiving end of a lane.
class Receiver {
 public:
  Receiver() = default;
  virtual ~Receiver() = default;
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  /// Tells `arrivals` of what is there, at most Setting::take messages or so. If nothing is: a polling peer returns at once,
  /// a blocking one waits until there is something or, where it can, about 100 ms have passed.
  virtual void receive(Arrivals& arrivals) = 0;
  /// Acks all that receive() told of.
  virtual void ack() {}
  /// Waits until the peer has settled the acks, where it can tell.
  virtual void flush() {}
};

/// What is measured.
enum class Measure { round_trip, throughput, fan_out };

/// Cores that are measured: clients' and, of a peer whose server has a core of its own, that one's.
struct Cores {
  int clients = 0;
  int other = 0;
};

/// Where the processes of roles run.
enum class Place {
  apart,     ///< sender and receivers on different cores
  together,  ///< all on one core (the other one is a server's, or nobody's)
  anywhere,  ///< where the system puts them
};

struct Setting {
  Measure measure = Measure::throughput;
  Place place = Place::apart;
  unsigned lanes = 1;
  unsigned receivers = 1;  ///< of each lane
  std::size_t batch = 64;  ///< largest `count` of Sender::send()
  std::size_t take = 256;  ///< of one Receiver::receive()
  Cores cores;
  std::string directory;  ///< empty, for sockets and the like; gone after the session
  std::string name;       ///< [a-z0-9-], of no other session
};

/// The queues of one measurement. Made and destroyed by the driver, used in the processes of roles.
class Session {
 public:
  Session() = default;
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] virtual std::unique_ptr<Sender> sender(unsigned lane) = 0;
  [[nodiscard]] virtual std::unique_ptr<Receiver> receiver(unsigned lane, unsigned number) = 0;
};

/// What a row of the table says.
struct Facts {
  std::string name;
  std::string mode;       ///< "polling" or "blocking": what a receiver does when there is nothing
  std::string version;    ///< of the library or, of a server, the server's
  std::string settings;   ///< one sentence
  bool brokered = false;  ///< another process passes the messages on: "round trip" is one way through it
  bool acked = false;
  bool lossless = true;             ///< it promises that nothing is lost, in throughput and in fan-out
  Place round_trip = Place::apart;  ///< what suits it best
  Place stream = Place::apart;      ///< the same, throughput and fan-out

  /// "ackring:polling"
  [[nodiscard]] std::string id() const { return name + ":" + mode; }
};

class Peer {
 public:
  explicit Peer(Facts facts) : facts_(std::move(facts)) {}
  virtual ~Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  [[nodiscard]] const Facts& facts() const noexcept { return facts_; }
  /// Starts what serves the sessions, in `directory`, which is empty and stays until stop(). Throws std::exception.
  virtual void start(const std::string& /*directory*/, const Cores& /*cores*/) {}
  virtual void stop() noexcept {}
  /// Throws std::exception.
  [[nodiscard]] virtual std::unique_ptr<Session> open(const Setting& setting) = 0;

 private:
  Facts facts_;
};

using Peers = std::vector<std::unique_ptr<Peer>>;

/// Programs that the driver was told of.
struct Programs {
  std::string exchange;  ///< ackring-exchange
};

// Each adds its rows, one per mode. Those of libraries that the build did not find are not there.
void add_ackring(Peers& peers, const Programs& programs);
void add_boost_message_queue(Peers& peers);
void add_posix_message_queue(Peers& peers);
void add_unix_socket(Peers& peers);
void add_iceoryx(Peers& peers);
void add_zeromq(Peers& peers);
void add_nng(Peers& peers);
void add_redis(Peers& peers);
void add_jetstream(Peers& peers);
void add_rabbitmq(Peers& peers);

/// All that were built.
[[nodiscard]] Peers all_peers(const Programs& programs);

}  // namespace ackring::peers
