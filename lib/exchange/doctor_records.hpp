// Records as the doctor reads them: what one says, once it is known to be possible. Private to doctor*.cpp.
//
// Thread rules: plain functions.
#pragma once

#include <cstdint>
#include <string>

#include "lib/exchange/bus_file.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

enum class Place { ring, backlog, retry, dead };

struct RecordLook {
  enum class What { event, padding, segment_end, damaged };
  What what = What::damaged;
  std::string damage;  ///< why
  std::uint32_t bytes = 0;
  shm::RecordHeader header{};  // of an event, as all below
  std::uint32_t later_state = 0;
  bool untaken = false;  ///< the attempt that it stands for has not begun
  bool timed = false;
};

/// Reads the record at `offset` of a file, of which `available` bytes are within its ring or log.
[[nodiscard]] RecordLook look_at_record(BusFile& file, std::uint64_t offset, std::uint64_t available, Place place);

}  // namespace ackring::exchange
