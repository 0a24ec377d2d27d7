// The doctor in tests: a directory whose bytes are those of a bus, whoever has died just now.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "lib/exchange/doctor.hpp"

namespace ackring::test {

/// All findings of these gravities, a line each.
inline std::string findings_of(const exchange::DoctorReport& report,
                               exchange::Gravity least = exchange::Gravity::violation) {
  std::string lines;
  for (const exchange::Finding& finding : report.findings) {
    if (finding.gravity > least) continue;
    lines += finding.file + ": " + finding.check + ": " + finding.text + "\n";
  }
  return lines;
}

/// No invariant of any file is violated. What a dead exchange has left half done is none.
inline void check_sound(const shm::Directory& directory) { CHECK(findings_of(exchange::examine(directory)) == ""); }

/// The same for one point of `stride` in an enumeration of them; for all of them with ACKRING_DEEP=1.
inline void check_sound_at(const shm::Directory& directory, std::uint64_t point, std::uint64_t stride = 7) {
  if (point % stride == 0 || std::getenv("ACKRING_DEEP") != nullptr) check_sound(directory);
}

}  // namespace ackring::test
