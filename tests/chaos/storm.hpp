// The driver of a chaos run: starts and restarts the actors and the exchange, kills and stops them, fills their file system,
// and lets everything come to rest at the end of each round.
//
// Thread rules: one thread, because it forks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/chaos/actors.hpp"
#include "tools/common/child.hpp"

namespace ackring::chaos {

struct Settings {
  std::uint64_t seed = 0;
  double kills_per_second = 12;
  std::string directory = {};  // of the bus's parent; a file system of its own where `own_room`
  bool own_room = false;
  std::string exchange = {};  // the programs
  std::string shmtool = {};
};

/// What a round is about.
enum class Kind : std::uint8_t {
  all,       // everybody is killed and stopped
  embedded,  // there is no exchange process: clients host it
  steady,    // the exchange is stopped, but not killed: it has to survive what all others do
};

struct Tally {
  std::map<std::string, std::uint64_t> kills = {};  // by role; of embedded exchanges as `host`, too
  std::uint64_t in_recovery = 0;                    // of the kills of an exchange: within 30 ms of its start
  std::uint64_t stops = 0;
  std::uint64_t full = 0;                   // times that the file system was full
  std::uint64_t descriptors = 0;            // times that the exchange had no descriptors left
  std::vector<std::string> surprises = {};  // who ended by itself, and how

  [[nodiscard]] std::uint64_t all_kills() const;
};

class Storm {
 public:
  Storm(const Settings& settings, SharedNotes& notes, Tally& tally);
  ~Storm();

  void start_exchange();
  /// Actors come, and faults happen, for so long.
  void rage(Kind kind, Nanoseconds duration);
  /// Everything goes on without faults until nothing is left to do, all actors leave. What does not come to an end within
  /// `patience`: who or which subscription. Empty: all did.
  std::string calm();
  /// SIGTERM; its exit status.
  int stop_exchange();
  [[nodiscard]] pid_t exchange_pid() const { return exchange_ ? exchange_->pid() : -1; }
  [[nodiscard]] std::string bus_directory() const { return settings_.directory + "/" + bus_name; }
  [[nodiscard]] std::vector<std::string> shmtool(std::vector<std::string> arguments) const;
  [[nodiscard]] bool room_was_short() const { return room_was_short_; }

 private:
  enum class ActorKind : std::uint8_t { publisher, member, person, visitor, observer };
  struct Actor {
    ActorKind kind;
    std::size_t index = 0;  // of the publisher, member or other
    const Role* role = nullptr;
    std::unique_ptr<tools::Child> child = {};
    std::uint32_t life = 0;
    bool killed = false;
    std::int64_t start_at = 0;  // when it is not there
    bool done = false;
  };

  static const char* role_name(ActorKind kind);
  ActorNotes& notes_of(const Actor& actor);
  void start(Actor& actor);
  void reap(Actor& actor);
  void reap_exchange();
  void look_after_all();
  void at(std::int64_t when, std::function<void()> what);
  void run_due();
  void wait_until(std::int64_t when);
  Actor* any_running(bool observers);
  void strike();
  void kill_actor(Actor& actor);
  void kill_exchange();
  void stop_somebody();
  void fill_room();
  void free_room();
  void take_descriptors();
  std::uint64_t up_to(std::uint64_t most) { return random_() % (most + 1); }
  bool in(std::uint64_t percent) { return random_() % 100 < percent; }
  std::string wait_for(const std::string& what, const std::function<bool()>& done);

  const Settings& settings_;
  SharedNotes& notes_;
  Tally& tally_;
  std::mt19937_64 random_;
  std::vector<Role> roles_ = roles();
  std::vector<Actor> actors_;
  std::unique_ptr<tools::Child> exchange_;
  std::int64_t exchange_started_ = 0;
  std::int64_t exchange_start_at_ = 0;  // when it is not there; 0: it is not to be
  bool exchange_killed_ = false;
  std::multimap<std::int64_t, std::function<void()>> timeline_;
  Kind kind_ = Kind::all;
  bool room_was_short_ = false;
  pid_t without_descriptors_ = -1;  // the exchange that is out of them for a while
  pid_t last_without_descriptors_ = -1;
  int ballast_ = -1;
  std::int64_t ballast_freed_ns_ = 0;
};

}  // namespace ackring::chaos
