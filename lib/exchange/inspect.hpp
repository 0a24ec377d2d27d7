// Inspect: looks at what a subscription holds without changing anything: what is next (peek), and where one event is (find).
//
// Each call looks at a bounded number of records, so that nobody waits long for it, and says where the next one goes on.
// What moves between two calls may be missed or seen twice; one call alone is one consistent look.
// Thread rules: X's thread, between two transactions.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "lib/control/socket.hpp"
#include "lib/exchange/queue.hpp"
#include "lib/ring/record.hpp"

namespace ackring::exchange {

class Exchange;

/// A slot that no publisher has.
inline constexpr std::uint16_t no_publisher = 0xffff;

/// The slot of a publisher that the exchange knows, or no_publisher.
[[nodiscard]] std::uint16_t publisher_slot(const Exchange& exchange, std::string_view name);

/// Where a call goes on. May come from a client: any value is possible, and harms nothing.
struct InspectCursor {
  enum Stage : std::uint32_t { rings, parked, backlog, retry, dead, end };

  std::uint32_t stage = rings;
  std::uint64_t lane = 0;      // rings: index of the lane
  std::uint64_t position = 0;  // an entry, a round, a delivery number, a log position
  std::uint64_t passed = 0;    // find: events before it in the same place
};

/// What one call does at most.
struct InspectBounds {
  std::uint64_t events = 4096;
  std::uint64_t bytes = 4u << 20;  // of records; the first one is within the bounds whatever its size
  std::uint64_t looked_at = 65'536;
};

/// Calls `each` with what will be handed out next, as far as its order is known: what is in the rings and not taken, of
/// several members in turns; what waits for a ring (parked); the backlog from its head on; what is delayed. Not what waits
/// for a retry. The result says where the next call goes on; its stage is `end` if there is no more.
[[nodiscard]] InspectCursor peek(const Queue& queue, const InspectCursor& from, const InspectBounds& bounds,
                                 const std::function<void(const ring::EventParts&)>& each);

/// Which event is looked for: a delivery number, or a publisher's sequence if `delivery` is 0.
struct Wanted {
  std::uint64_t delivery = 0;
  std::uint64_t sequence = 0;
  std::uint16_t publisher = no_publisher;

  [[nodiscard]] bool is(const shm::RecordHeader& record) const noexcept {
    return delivery != 0 ? record.delivery == delivery : record.sequence == sequence && record.publisher == publisher;
  }
};

/// Where an event was found.
struct Found {
  enum class Where { nowhere, ring, backlog, retry, dead };

  Where where = Where::nowhere;  // nowhere with `next.stage` not at the end: not looked everywhere yet
  ring::EventParts event{};
  const Lane* lane = nullptr;  // ring
  std::uint64_t entry = 0;     // … of it
  std::uint64_t before = 0;    // ring, backlog: events there that are handed out before it
  InspectCursor next{};
};

/// Looks for the event where it may be: the rings, the backlog, the retry log, the dead-letter log. What has left one of
/// these for another is not found there; what left it for good and is still to be seen, is.
[[nodiscard]] Found find(const Queue& queue, const Wanted& wanted, const InspectCursor& from,
                         const InspectBounds& bounds);

/// How a record of a retry or dead-letter log left it, if it did.
[[nodiscard]] shm::LaterState later_state_of(const ring::EventParts& event) noexcept;

/// What is to be said of the place where an event was found, as members of a JSON object (include/ackring/bus.hpp); empty
/// if it was not. Times are Unix times in nanoseconds; `now_ns` is the monotonic clock, `served_ns` Exchange::served_at() it.
[[nodiscard]] control::Json explain(const Queue& queue, const Found& found, std::uint64_t now_ns,
                                    std::uint64_t served_ns);
/// The same of a delivery that was looked for everywhere, and is nowhere any more.
[[nodiscard]] control::Json explain_gone(const Queue& queue);

}  // namespace ackring::exchange
