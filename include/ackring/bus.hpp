// A bus: publishers, subscriptions and the exchange between them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "ackring/dead_letter.hpp"
#include "ackring/error.hpp"
#include "ackring/inspect.hpp"
#include "ackring/options.hpp"
#include "ackring/publisher.hpp"
#include "ackring/subscriber.hpp"

namespace ackring {

namespace client {
class Connection;
}

/// A connection to a bus. Copyable (copies share the connection); thread-safe. Reconnects by itself when the exchange
/// restarts; publishers and subscribers made from it stay usable meanwhile. Where the exchange has access rules
/// (docs/access.md), each request may be refused with `permission`.
class Bus {
 public:
  /// Attaches to bus `name` ([A-Za-z0-9_.-], at most 63 bytes). Throws Error.
  [[nodiscard]] static Bus open(std::string_view name, BusOptions options = {});

  /// A private bus for unit tests: anonymous memory, an exchange on a thread of this process, no files.
  [[nodiscard]] static Bus in_memory();

  /// Throws Error: invalid_argument, busy (the name has a live holder), no_space, timeout, …
  [[nodiscard]] Publisher publisher(PublisherOptions options = {});

  /// Joins a subscription, creating it where needed. Throws Error: invalid_argument, busy (it has a member),
  /// option_mismatch (it exists with other options), not_found (no patterns given and no such subscription), …
  [[nodiscard]] Subscriber subscribe(SubscriptionOptions options);

  /// Creates a named subscription without joining it. Throws Error; busy if it exists.
  void create_subscription(const SubscriptionOptions& options);
  /// Gives a subscription these patterns (if not empty) and options, for events routed from now on: take what
  /// subscription() says, change it, and hand it back. Guarantee and sizes of rings can't change. Throws Error.
  void update_subscription(const SubscriptionOptions& options);
  /// Options of an existing subscription. Throws Error: not_found.
  [[nodiscard]] SubscriptionOptions subscription(std::string_view name);
  /// Removes it. Throws Error: not_found, busy (it has a member), not_empty (it holds events or dead letters, and
  /// `pending` is `refuse`), …
  void remove_subscription(std::string_view name, Pending pending = Pending::refuse);
  /// Nothing is delivered any more until resume_subscription(); events queue. What members have taken stays with them,
  /// what they have not taken yet waits at the head of the queue. Lasts over restarts. Throws Error: not_found, …
  void pause_subscription(std::string_view name);
  void resume_subscription(std::string_view name);
  /// Orders the circuit breakers of the subscription's handlers (include/ackring/event_bus.hpp) to be open or closed, until
  /// `automatic` leaves it to them again. Lasts over restarts of theirs and of the exchange; they look every 100 ms at least.
  /// Throws Error: not_found, …
  void order_breaker(std::string_view name, BreakerOrder order);
  /// What is not in flight goes for good: queued events, and those that wait for a retry; not dead letters. Answers how
  /// many events that were. Throws Error: not_found, …
  std::uint64_t purge_subscription(std::string_view name);

  /// Dead letters that match go back to their subscription, at once, with a new budget of attempts; the attempts so far
  /// stay known. Answers how many; those that die during the call are not among them. In bounded steps, so that nobody
  /// else waits for long. Throws Error: not_found, no_space (what was requeued before stays so), …
  std::uint64_t requeue_dead_letters(std::string_view name, const DeadLetterSelection& which = {});
  /// One step of it, of at most `at_most` letters (1 to 4,096), for a caller who sets the pace: until !cursor.more.
  std::uint64_t requeue_dead_letters(std::string_view name, const DeadLetterSelection& which, DeadLetterCursor& cursor,
                                     std::uint64_t at_most);
  /// Dead letters that match go for good. Answers how many. Throws Error: not_found, …
  std::uint64_t purge_dead_letters(std::string_view name, const DeadLetterSelection& which = {});
  /// The next dead letters, oldest first, an object of `shmtool dlq show --json` per line: at most `at_most` of them
  /// (1 to 4,096) and about 4 MiB, perhaps none; the last ones when !cursor.more. Throws Error: not_found, …
  [[nodiscard]] std::string dead_letters_ndjson(std::string_view name, DeadLetterCursor& cursor,
                                                std::uint64_t at_most = 4'096);

  /// The next `n` events that will be handed out, as far as their order is known: what is in the rings of members and not
  /// taken (of several members in turns), what waits for a ring, the backlog from its head on, what is delayed. Not what
  /// waits for a retry. A line of JSON each, like those of `shmtool sub`. Nothing is taken, and nobody waits for it: the
  /// exchange is asked for about 4 MiB at a time, and what moves between two such looks may be missed or come twice.
  /// Throws Error: not_found, no_space (the exchange has no room for the answer), …
  [[nodiscard]] std::string peek_ndjson(std::string_view name, std::uint64_t n = 10);
  /// Where an event of a subscription is, and why: one JSON object. Always there are `subscription`, `state` and `reason`;
  /// the others where they apply. All times are Unix times in nanoseconds.
  ///
  /// `state`: `queued` (`where` is `ring` or `backlog`, `position` the events there that go before it), `in_flight` (at
  /// `member`, since `since_ns`, at most a tick too late; its ack time-out ends at `until_ns`), `retry_waiting` (until
  /// `due_ns`), `parked` (out of its turn, for `reason`), `delayed` (until `due_ns`), `dead` (since `since_ns`), `settled`,
  /// `gone` (dropped, purged or perhaps acked), `not_routed` (still in the ring of its publisher), `unknown` (it may never
  /// have matched). `attempt` is the one that it is at or waits for, `attempts` how those before it ended; `member` is an
  /// object of `client`, `name`, `pid` and, in a group, `number`; `event` one of `topic`, `key`, `headers`, `publisher`,
  /// `sequence`, `published_ns` and, if there is that header, `traceparent`.
  ///
  /// The exchange looks at 65,536 records at a time; an event that moves meanwhile is looked for again. Throws Error:
  /// not_found (no such subscription or publisher, or the number was never given), invalid_argument (neither a delivery
  /// nor an event), …
  [[nodiscard]] std::string explain_json(std::string_view name, const EventSelection& which);

  /// The document of `shmtool stat --json`: one consistent snapshot. Throws Error.
  [[nodiscard]] std::string stat_json();

  [[nodiscard]] const std::string& name() const noexcept;
  /// True while an exchange answers.
  [[nodiscard]] bool connected() const noexcept;

 private:
  explicit Bus(std::shared_ptr<client::Connection> connection) noexcept;
  std::shared_ptr<client::Connection> connection_;
};

}  // namespace ackring
