// The model: what must hold of a subscription, told in maps and plain numbers, one event after the other. It knows
// nothing of rings, logs or transactions. A driver does something to the exchange and tells the model, with what could be
// seen afterwards; the model says what that must have been, or throws a Complaint.
//
// What it takes for granted, because documentation promises it:
//  - verdicts are read by a tick, in the order of deliveries, before anything times out, and that before what is due goes
//    back; a member's leaving reads them too;
//  - the time of a delivery begins with the tick that first sees it taken, anew after a restart of the exchange; a gap of
//    more than 20 ms between two ticks is nobody's time;
//  - a queue is first in, first out, whatever it consists of.
// Where the exchange has a choice (jitter, what a full queue drops, whether dead letters have room), the model looks at
// what it chose, and asks whether it was allowed to.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ackring/options.hpp"

namespace ackring::test::model {

struct Complaint : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Id {
  std::uint16_t publisher = 0;
  std::uint64_t sequence = 0;
  auto operator<=>(const Id&) const = default;
};

/// Numbers as they are in records.
enum Cause : std::uint32_t { nacked = 2, timed_out = 3, rejected = 4, member_died = 6 };

enum class Place { queued, in_flight, waiting, dead, acked, dropped, removed };

/// What a member saw of one delivery.
struct Taken {
  Id id;
  std::uint64_t entry = 0;
  std::uint64_t delivery = 0;
  std::uint32_t attempt = 0;
  std::vector<std::uint32_t> causes;
  std::string payload;
};

/// What a record of the retry log or of the dead-letter log says.
struct Kept {
  Id id;
  std::uint64_t delivery = 0;
  std::uint32_t attempt = 0;
  std::vector<std::uint32_t> causes;
  std::uint64_t due_ns = 0;
  std::string reason;
};

/// What lies in both logs after a step.
struct Logs {
  std::map<Id, Kept> waiting;
  std::map<Id, Kept> dead;
  std::uint64_t dead_bytes = 0;
};

/// The counters of `stat` by name; the reasons of `dropped` with "dropped." before them.
using Counters = std::map<std::string, std::uint64_t>;

/// A payload that only this event has.
std::string payload_of(Id id, std::size_t bytes);

/// AMQP's patterns, by plain recursion over words.
bool topic_matches(const std::string& pattern, const std::string& topic);

enum class Word { none, ack, nack, reject };

class Subscription {
 public:
  explicit Subscription(SubscriptionOptions with) : options(std::move(with)) {}

  SubscriptionOptions options;

  [[nodiscard]] bool matches(const std::string& topic) const;
  /// The exchange has routed this event here. What happens in one epoch has no order, but what one publisher sent has.
  void route(Id id, std::size_t bytes, std::uint64_t epoch);

  // -- the member
  void join();
  void take(const Taken& seen, std::uint64_t now_ns);
  /// True if it is the first verdict of this delivery.
  bool verdict(std::uint64_t entry, Word word, std::optional<std::uint64_t> delay_ns, const std::string& reason);
  bool extend(std::uint64_t entry, std::uint64_t ns);
  void ack_through(std::uint64_t entry);
  void release();
  /// Deliveries whose view the member still holds, or that it may give a verdict on without being of the past.
  [[nodiscard]] std::vector<std::uint64_t> open_entries() const;
  [[nodiscard]] bool holds(std::uint64_t entry) const;

  // -- the exchange
  /// `again`: the exchange died somewhere in this tick, and its successor did it once more.
  void tick(std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch, bool again);
  /// The member left between the last tick and now.
  void leave(std::uint64_t last_tick_ns, std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch);
  void restart();
  /// Dead letters that an operator asked for; those of them that went.
  void requeue(const std::vector<Id>& ids, std::uint64_t now_ns, const Logs& logs);
  void purge(const std::vector<Id>& ids, const Logs& logs);

  // -- what must hold
  /// After the exchange did anything: so many events were dropped for want of room in the backlog.
  void drops(std::uint64_t newest, std::uint64_t oldest);
  /// After a tick, nothing having happened since.
  void check(const Counters& seen);
  /// All that can be taken was taken and acked, and the exchange has seen it: every event is somewhere for good.
  void drained();
  /// Is anything in flight or waiting?
  [[nodiscard]] bool undecided() const;

 private:
  struct Event {
    std::size_t bytes = 0;
    Place place = Place::queued;
    std::uint64_t delivery = 0;  // 0: not known yet
    std::uint32_t attempt = 1;   // the current one, or the one that the next take will be
    std::uint32_t budget_from = 0;
    std::vector<std::uint32_t> causes;
    std::string reason;
    std::uint64_t epoch = 0;  // queued: since
    std::uint64_t due_low = 0;
    std::uint64_t due_high = 0;  // waiting: until some time in between
    bool due_known = false;
    std::optional<std::uint64_t> acked_by;  // waiting: an ack of this entry still counts
  };
  /// One delivery that a member took, until the exchange is through with it.
  struct Take {
    Id id;
    bool open = true;  // it is the event's current attempt
    Word word = Word::none;
    std::optional<std::uint64_t> delay_ns;
    std::string reason;
    std::optional<std::uint64_t> mark_ns;  // tick that first saw it taken
    bool mark_passed = false;              // its time was over, but for an extension
    std::uint64_t extensions = 0;
    std::uint64_t extensions_read = 0;
    std::uint64_t extension_ns = 0;
    std::uint64_t deadline_ns = 0;
  };

  [[noreturn]] void complain(Id id, const std::string& what) const;
  [[nodiscard]] Word effective(std::uint64_t entry, const Take& take) const;
  void read_verdicts(std::uint64_t from_ns, std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch);
  void watch_time(std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch, bool again);
  /// False: it was held, for want of room for dead letters.
  bool fail(std::uint64_t entry, Take& take, Cause cause, std::uint64_t from_ns, std::uint64_t now_ns, const Logs& logs,
            std::uint64_t epoch);
  bool bury(Id id, Event& event, Cause cause, const std::string& reason, const Logs& logs);
  void wait(Event& event, std::optional<std::uint64_t> delay_ns, std::uint64_t from_ns, std::uint64_t now_ns) const;
  void compare_logs(const Logs& logs, std::optional<std::uint64_t> released_until, std::uint64_t epoch);
  void compare(Id id, const Event& event, const Kept& kept) const;
  void compare_causes(Id id, const Event& event, const std::vector<std::uint32_t>& seen) const;
  void pass_over(Id id, const Event& event);
  void drop(Id id, Event& event);
  [[nodiscard]] bool may_drop() const;

  std::map<Id, Event> events_;
  std::map<std::uint64_t, Take> takes_;  // by entry
  std::uint64_t through_ = 0;            // entries below are acked, unless they say otherwise
  std::uint64_t released_ = 0;
  std::uint64_t last_entry_ = 0;     // behind the last one taken
  std::uint64_t last_delivery_ = 0;  // of the first deliveries
  std::uint64_t last_tick_ns_ = 0;   // of this exchange
  Counters counters_;
  std::uint64_t dropped_ = 0;  // that must have been
  std::uint64_t dropped_seen_ = 0;
};

}  // namespace ackring::test::model
