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
  std::string reason = {};                  // empty: any; `rejected` also means `rejected: …`
  std::uint64_t from = 0;                   // log positions: where the walk before this one stopped …
  std::uint64_t until = ~std::uint64_t{0};  // … and where it began to be somebody else's
  // In one go, so that nobody else waits for long (F37); the first that matches is within the bounds whatever its size.
  std::uint64_t at_most = 4096;
  std::uint64_t at_most_bytes = 4u << 20;
  std::uint64_t at_most_looked_at = 65'536;

  [[nodiscard]] bool matches(const ring::EventParts& event) const;
};

struct DeadLetterResult {
  std::uint64_t done = 0;
  bool more = false;       // a bound was reached: go on from `next`
  bool no_room = false;    // the retry log has no room; `next` has not been moved
  std::uint64_t next = 0;  // log position
};

}  // namespace ackring::exchange
