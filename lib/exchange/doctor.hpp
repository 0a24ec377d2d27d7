// Doctor: holds the files of a bus against every invariant of their format, from their bytes alone.
//
// Nothing is written and nothing is mapped: files are read with pread, sizes come from fstat, and no number that a file holds
// is used before it was checked. So it may look at anything: a live bus, a dead one, a copied directory, damaged files.
// A live bus moves while it is looked at. What belongs together is read between two equal looks at the words that X changes
// with it, and only what is wrong in each of several looks is a finding.
// Thread rules: plain functions; any thread of any process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/shm/directory.hpp"

namespace ackring::exchange {

enum class Gravity {
  violation,  ///< an invariant does not hold
  warning,    ///< something outside of the format may do harm
  note,       ///< what a crash leaves behind, and the next exchange repairs; what could not be looked at
};

struct Finding {
  Gravity gravity = Gravity::violation;
  std::string file;   ///< a name in the directory; empty: the bus as a whole
  std::string check;  ///< which check: a word that scripts may rely on
  std::string text;   ///< what is wrong, in a sentence
};

struct DoctorOptions {
  /// Looks at a live bus until what they have in common is believed; 1 or more.
  unsigned looks = 4;
  /// Between two of them.
  std::uint64_t pause_ns = 30'000'000;
  /// The caller itself holds the lock of the exchange, so that none is there.
  bool locked_by_caller = false;
};

struct DoctorReport {
  std::string state;  ///< of the exchange: running, stalled, stopped; dead: it died without a stop
  std::uint64_t files = 0;
  std::uint64_t publishers = 0;
  std::uint64_t subscriptions = 0;
  std::uint64_t events = 0;  ///< records of events that were walked over
  std::vector<Finding> findings;

  [[nodiscard]] std::uint64_t count(Gravity gravity) const noexcept;
  /// No violation.
  [[nodiscard]] bool sound() const noexcept { return count(Gravity::violation) == 0; }
};

/// Throws Error (not_found: there is no bus in the directory; permission, system: it can't be read at all).
[[nodiscard]] DoctorReport examine(const shm::Directory& directory, const DoctorOptions& options = {});

/// Adds what is amiss around a bus: the mode of its directory (at `path`), its file system, systemd, limits of the system.
void examine_surroundings(const std::string& path, DoctorReport& report);

/// "violation", "warning", "note".
[[nodiscard]] const char* to_string(Gravity gravity) noexcept;

}  // namespace ackring::exchange
