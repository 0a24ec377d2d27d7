// Which dead letters an operator means, and what became of them.
//
// Thread rules: plain values.
#pragma once

#include <cstdint>
#include <string>

#include "lib/ring/record.hpp"

namespace ackring::exchange {

struct DeadLetterFilter {
  std::uint64_t delivery = 0;  // 0: any
  std::uint64_t sequence = 0;  // 0: any; else the event `publisher`/`sequence`
  std::uint16_t publisher = 0;
  std::string reason = {};       // empty: any; `rejected` also means `rejected: …`
  std::uint64_t at_most = 4096;  // in one go, so that nobody else waits for long (F37)

  [[nodiscard]] bool matches(const ring::EventParts& event) const;
};

struct DeadLetterResult {
  std::uint64_t done = 0;
  bool more = false;     // there are more that match: ask again
  bool no_room = false;  // the retry log has no room
};

}  // namespace ackring::exchange
