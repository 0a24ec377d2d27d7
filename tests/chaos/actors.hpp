// Who takes part in a chaos run, each in a process of its own that may be killed or stopped at any instant. All of them go
// on where their predecessor of the same place was killed.
#pragma once

#include <poll.h>
#include <signal.h>

#include <cstdint>
#include <random>
#include <string>

#include "tests/chaos/notes.hpp"
#include "tests/chaos/roles.hpp"

namespace ackring::chaos {

inline const char* const bus_name = "chaos";
inline constexpr Nanoseconds patience = 60s;  // how long anything may take that the faults of a storm hold up

/// What each actor knows.
struct Place {
  std::string directory;
  ExchangeMode mode = ExchangeMode::require;
  std::uint64_t seed = 0;        // of the run: what events look like
  std::uint64_t randomness = 0;  // of this life
  std::uint32_t life = 0;
  Notes* notes = nullptr;
};

/// The life of one actor: its random numbers, and the moments at which it may be told to kill itself, which are those
/// between two steps of its work that a kill from outside seldom hits.
class Life {
 public:
  Life(const Place& place, ActorNotes& notes) : random(place.randomness), place_(place), notes_(notes) {}

  void moment() {
    const std::uint64_t left = notes_.moments_left.load(std::memory_order_relaxed);  // relaxed: a wish, not an order
    if (left == 0) return;
    notes_.moments_left.store(left - 1, std::memory_order_relaxed);  // relaxed: as above
    if (left != 1) return;
    end();
    ::raise(SIGKILL);
  }
  /// From now on what it holds may be given to others.
  void end() { notes_.end_life(place_.life); }
  [[nodiscard]] Phase phase() const { return place_.notes->phase.load(std::memory_order_seq_cst); }
  [[nodiscard]] bool in(std::uint32_t thousandths) { return random() % 1'000 < thousandths; }
  std::uint64_t up_to(std::uint64_t most) { return random() % (most + 1); }

  std::mt19937_64 random;

 private:
  const Place& place_;
  ActorNotes& notes_;
};

Bus open_bus(const Place& place);

void be_publisher(const Place& place, std::size_t number);
void be_member(const Place& place, const Role& role, std::size_t slot);
void be_operator(const Place& place, std::size_t other);
/// Somebody who comes for a short time, with an anonymous publisher and an ephemeral subscription.
void be_visitor(const Place& place, std::size_t other);
/// Looks at `stat` again and again, with the program `shmtool`, of the dead bus as well.
void be_observer(const Place& place, std::size_t other, const std::string& shmtool);

/// Asks again while the exchange is away, or has no room, or holds the name for one whose death it has not seen yet.
template <class Make>
auto with_patience(Make make) {
  const std::int64_t deadline = now_ns() + patience.count();
  while (true) {
    try {
      return make();
    } catch (const Error& error) {
      const ErrorCode code = error.code();
      const bool passes = code == ErrorCode::timeout || code == ErrorCode::no_exchange || code == ErrorCode::busy ||
                          code == ErrorCode::no_space || code == ErrorCode::exchange_exists;
      // A full file system may stay so until others have settled what fills it; where that never comes, the driver sees it.
      if (!passes || (code != ErrorCode::no_space && now_ns() > deadline)) throw;
    }
    ::poll(nullptr, 0, 2);
  }
}

}  // namespace ackring::chaos
