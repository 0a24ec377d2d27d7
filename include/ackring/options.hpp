// Options of a bus, its publishers and its subscriptions.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ackring/limits.hpp"

namespace ackring {

using Nanoseconds = std::chrono::nanoseconds;

/// Subscriptions that the exchange itself consumes: creating one switches on what it is for, for the topics that its
/// patterns match and within its limits; removing it switches that off. Nobody else can subscribe to them; stat, peek and
/// purge show and empty them as any other.
///
/// `@last` keeps the last event of each topic, for subscriptions that begin with them (StartFrom::last_values). Its
/// max_events and max_bytes are those of what it keeps (the topics that were published to the longest time ago are
/// forgotten first); its files take up to about twice as much.
inline constexpr std::string_view last_values_name = "@last";
/// `@ids` keeps the value of the header `event-id` of each event for its `ttl` (two minutes if that is 0), at most
/// `max_events` of them (1,024 at least), oldest forgotten first: an event with an id that is known, whoever publishes it,
/// is ignored, and counted as a duplicate of its publisher.
inline constexpr std::string_view event_ids_name = "@ids";
inline constexpr std::string_view event_id_header = "event-id";

/// With which events a new subscription begins.
enum class StartFrom {
  now,          ///< with those that are routed after it was made
  last_values,  ///< with the last one of each topic that it matches; needs `@last`, else not_found
};

/// What a delivery promises.
enum class Guarantee {
  at_least_once,  ///< delivered until acked or dead-lettered
  at_most_once,   ///< settled when taken; never delivered twice
};
inline constexpr Guarantee at_least_once = Guarantee::at_least_once;
inline constexpr Guarantee at_most_once = Guarantee::at_most_once;

/// What happens to an event for which a subscription's backlog has no room.
enum class Overflow {
  automatic,    ///< block for at-least-once, drop_oldest for at-most-once
  block,        ///< its publisher waits: publish answers back_pressured once its ring is full
  drop_newest,  ///< the event is not queued, and counted
  drop_oldest,  ///< the oldest event of the backlog makes room, and is counted
  dead_letter,  ///< the event goes to the dead-letter log; where that is full, its publisher waits
};

/// What becomes of events that a subscription holds when it is removed.
enum class Pending {
  refuse,       ///< it is not removed while it holds any (not_empty)
  keep,         ///< it matches nothing any more, and goes when they are gone
  dead_letter,  ///< they become dead letters, and it matches nothing any more and goes when those are gone
  drop,         ///< they go with it
};

/// What an operator wants of a subscription's circuit breakers.
enum class BreakerOrder {
  automatic,  ///< they open and close by themselves
  open,       ///< nothing is handled
  closed,     ///< everything is handled, however often that fails
};

/// How a side that has nothing to do waits.
enum class Wait {
  adaptive,  ///< spin shortly, yield the core for about as long as the last waits took, then sleep until woken
  spin,      ///< never sleep (a core of its own is assumed)
  park,      ///< sleep at once
};

/// Who serves the bus.
enum class ExchangeMode {
  automatic,  ///< attach; where no exchange runs, run one on a thread of this process, and take over when it dies
  require,    ///< attach to a running exchange, or one that starts; without one, throw no_exchange
};

struct BusOptions {
  /// Directory that holds buses; empty: $ACKRING_DIR, or /dev/shm/ackring-<uid>.
  std::string directory = {};
  ExchangeMode exchange = ExchangeMode::automatic;
  /// Name of this client in listings; empty: the program's name.
  std::string client_name = {};
  /// How long open() and requests wait for an answer of the exchange; > 0.
  Nanoseconds timeout = std::chrono::seconds(5);
  /// Where this process may come to serve the bus: whether it then handles SIGBUS, so that no client can end it by cutting
  /// its own files short. Other SIGBUS goes to the handler that was there before, which stays in use for good. The program
  /// ackring-exchange always does this.
  bool guard_bus_errors = false;
};

struct PublisherOptions {
  /// Empty: anonymous. A named publisher keeps its sequence over restarts; one live holder at a time.
  std::string name = {};
  /// Power of two, 4 KiB to 1 GiB.
  std::size_t ring_bytes = limits::default_ring_bytes;
  Wait wait = Wait::adaptive;
};

struct SubscriptionOptions {
  /// Empty: ephemeral, gone with its member. Otherwise attached to if it exists, else created.
  std::string name = {};
  /// AMQP patterns: `*` is one word, `#` zero or more. Empty: attach to an existing subscription as it is.
  std::vector<std::string> patterns = {};
  Guarantee guarantee = Guarantee::at_least_once;
  /// Counts when the subscription is created; later it means nothing.
  StartFrom from = StartFrom::now;
  /// A delivery without verdict for this long is delivered again; >= 1 ms.
  Nanoseconds ack_timeout = std::chrono::seconds(30);
  /// Attempts before an event is given up; 1 to 1,000.
  std::uint32_t max_deliveries = 10;
  /// The delay before the second attempt, >= 0; each further one is `backoff_multiplier` (1 to 1,000) times as long, up
  /// to `backoff_max`; each is spread by +- `jitter` (0 to 1) of itself. nack(delay) overrides it; the deliveries of a
  /// member that died go back at once.
  Nanoseconds backoff_initial = std::chrono::milliseconds(100);
  Nanoseconds backoff_max = std::chrono::seconds(30);
  double backoff_multiplier = 2;
  double jitter = 0.1;
  /// Delays before the second, the third, … attempt, the last one also before all later ones; instead of the back-off,
  /// and without jitter. At most 64, each 0 to 365 days. Empty: the back-off counts.
  std::vector<Nanoseconds> retry_delays = {};
  /// An event that has entered no member's ring this long after it was published, or after its delay was over, expires;
  /// 0: none does. The event's own `ttl` holds too, whichever ends first.
  Nanoseconds ttl{0};
  /// Expired events become dead letters; otherwise they are counted and gone.
  bool dead_letter_expired = false;
  /// A consumer group: any number of members; each event goes to one of them, the one with the most credit left.
  bool group = false;
  /// One delivery at a time: the next event waits until the one before is settled or dead-lettered, retries included.
  bool ordered = false;
  /// Events with the same key go to one member, in order, until it goes; its retries, too. With `ordered`, one delivery
  /// of a key at a time. Keys are hashed into 1,024 slots; events without a key have no order to keep.
  bool ordered_by_key = false;
  /// Unsettled deliveries of a member: its credit; 1 to 1,048,576, rounded up to a power of two.
  std::uint32_t max_in_flight = limits::default_max_in_flight;
  /// Power of two, 4 KiB to 1 GiB.
  std::size_t ring_bytes = limits::default_ring_bytes;
  /// Bounds of the backlog (what waits outside the member's ring).
  std::uint64_t max_events = 10'000'000;
  std::uint64_t max_bytes = 1u << 30;
  Overflow overflow = Overflow::automatic;
  /// Bytes that the dead-letter log may hold. When it is full, deliveries stay where they are until there is room.
  std::uint64_t max_dead_bytes = 1u << 30;
  /// Each event that becomes a dead letter is published to this topic, too, as an event of publisher `@dead-letters` with
  /// the same payload and key, and headers `dead-letter-…` besides its own that say whose dead letter it is, and why.
  /// Empty: to none. A topic by which dead letters could come back to their subscription is refused.
  std::string dead_letter_topic = {};
  Wait wait = Wait::adaptive;
};

}  // namespace ackring
