// The books of one round, held by event id: what publishers and members noted of themselves against what the exchange says.
// A round begins and ends with nothing queued anywhere. Pure functions of what is given: books_test.cpp shows that they can
// fail.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/chaos/bus_tools.hpp"
#include "tests/chaos/notes.hpp"
#include "tests/chaos/roles.hpp"

namespace ackring::chaos {

/// A dead letter, as `shmtool dlq show --json` tells of it.
struct Letter {
  std::size_t publisher = 0;
  std::uint64_t sequence = 0;
  std::uint64_t delivery = 0;
  std::string reason = {};
  std::vector<std::string> causes = {};  // of its attempts
  bool large = false;                    // an event near a quarter of its ring has no room for all of them
};
std::vector<Letter> letters_of(const std::string& json);

/// The end of a member's life, by SIGKILL or by leaving: what it had without a verdict may be given to others from then on.
struct Death {
  std::uint32_t slot = 0;
  std::uint32_t life = 0;
  std::int64_t ended_ns = 0;
};

struct Numbers {
  std::uint64_t before = 0;  // the last one of the round before
  std::uint64_t last = 0;
};

/// What holds for all subscriptions in a round.
struct Round {
  std::uint64_t seed = 0;
  std::array<Numbers, publishers> numbers{};
  bool room_was_short = false;        // the file system was full for a time
  std::int64_t first_requeue_ns = 0;  // 0: nothing was requeued
};

struct SubscriptionFacts {
  const Role* role = nullptr;
  std::vector<Note> notes = {};  // of one member after the other, each in order
  std::vector<Death> deaths = {};
  Json before = {};  // rows of stat
  Json after = {};
  std::vector<Letter> letters = {};
};

struct Findings {
  std::uint64_t deliveries = 0;
  std::uint64_t lost = 0;
  std::map<std::string, std::uint64_t> duplicated = {};  // with a cause
  std::uint64_t without_cause = 0;
  std::uint64_t broken = 0;  // all other promises
  std::vector<std::string> lines = {};

  [[nodiscard]] bool clean() const { return lost == 0 && without_cause == 0 && broken == 0; }
  void add(const Findings& other);
  void tell(std::string line);
};

Findings check_subscription(const Round& round, const SubscriptionFacts& facts);
Findings check_publisher(const Round& round, std::size_t number, std::uint64_t repeated, const Json& before,
                         const Json& after);

}  // namespace ackring::chaos
