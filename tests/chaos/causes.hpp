// Why a delivery came again: the cause that its member's notes give, and the one that the exchange wrote into the record.
#pragma once

#include <cstdint>
#include <string>

#include "tests/chaos/books.hpp"

namespace ackring::chaos {

std::string describe(const Note& note);

/// Was its verdict given for sure before it can have timed out?
bool settled_in_time(const Role& role, const Note& note);

class Causes {
 public:
  Causes(const Round& round, const SubscriptionFacts& facts, Findings& findings)
      : round_(round), facts_(facts), role_(*facts.role), findings_(findings) {}

  /// `previous`: the note of the same delivery with the next lower attempt that is known; nullptr: there is none.
  void explain(const Note* previous, const Note& note);
  /// When all is explained: are there more attempts that nobody noted than members were killed?
  void finish();

 private:
  void without_cause(const Note& note, const std::string& why);
  void broken(const Note& note, const std::string& why);
  [[nodiscard]] std::string cause(const Note& previous, const Note& note) const;
  void check_recorded(const Note& previous, const Note& note);
  void check_due(const Note& previous, const Note& note);
  [[nodiscard]] bool died_before(const Note& holder, std::int64_t at_ns) const;

  const Round& round_;
  const SubscriptionFacts& facts_;
  const Role& role_;
  Findings& findings_;
  std::uint64_t not_noted_ = 0;
};

}  // namespace ackring::chaos
