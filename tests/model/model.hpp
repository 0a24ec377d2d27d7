// The model: what must hold of a subscription, told in maps and plain numbers, one event after the other. It knows
// nothing of rings, logs or transactions. A driver does something to the exchange and tells the model, with what could be
// seen afterwards; the model says what that must have been, or throws a Complaint.
//
// What it takes for granted, because documentation promises it:
//  - verdicts are read by a tick, in the order of deliveries, before anything times out, and that before what is due goes
//    back; a member's leaving reads them too;
//  - the time of a delivery begins with the tick that first sees it taken, and goes on only while there is an exchange: what
//    lies between the last tick of one and the first of the next is nobody's time, nor is more than 20 ms between two ticks
//    (the driver keeps this clock, and holds the exchange's to it);
//  - a queue is first in, first out, whatever it consists of; but what was set aside by a pause comes back in the order
//    of deliveries, and the members of a group share what is in order only at each of them, and only until some of it is
//    taken back from a member;
//  - what a member gives back is queued as if it had not been taken: of what is ordered it is the next one again, else it
//    comes before the backlog, or, with a delay, into the queue when that is over;
//  - an event that may not be delivered yet comes into the queue when it may, and until then stands nowhere in it; what
//    was dead comes back the same way, and never expires;
//  - a key has one member until that leaves; what is ordered has one delivery open at a time.
// Where the exchange has a choice (jitter, what a full queue drops or makes a dead letter, when what is too late goes, whether dead letters have room, who
// gets an event of a group), the model looks at what it chose, and asks whether it was allowed to.
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

/// When an event was published, and when it may be delivered; 0: any time.
struct Times {
  std::uint64_t published_ns = 0;
  std::uint64_t expires_ns = 0;
  std::uint64_t not_before_ns = 0;
};

/// What a member saw of one delivery.
struct Taken {
  Id id;
  std::uint64_t member = 0;
  std::uint64_t entry = 0;
  std::uint64_t delivery = 0;
  std::uint32_t attempt = 0;
  std::vector<std::uint32_t> causes;
  std::string key;
  std::string payload;
};

/// What a record of the retry log or of the dead-letter log says.
struct Kept {
  Id id;
  std::uint64_t delivery = 0;
  std::uint32_t attempt = 0;
  std::vector<std::uint32_t> causes;
  std::uint64_t due_ns = 0;
  bool untaken = false;  // the attempt has not begun
  std::string reason;
};

/// What lies in both logs after a step.
struct Logs {
  std::map<Id, Kept> waiting;
  std::map<Id, Kept> aside;    // in the retry log, too, but queued: they wait for the ring of a member
  std::map<Id, Kept> delayed;  // … or for their time
  std::map<Id, Kept> dead;
  std::uint64_t dead_bytes = 0;
};

/// The counters of `stat` by name; the reasons of `dropped` with "dropped." before them.
using Counters = std::map<std::string, std::uint64_t>;

/// A payload that only this event has.
std::string payload_of(Id id, std::size_t bytes);

/// AMQP's patterns, by plain recursion over words.
bool topic_matches(const std::string& pattern, const std::string& topic);

enum class Word { none, ack, nack, reject, give_back };

class Subscription {
 public:
  explicit Subscription(SubscriptionOptions with) : options(std::move(with)) {}

  SubscriptionOptions options;

  bool paused = false;
  bool burying = false;  // it ends, and what is left in it becomes dead letters

  [[nodiscard]] bool matches(const std::string& topic) const;
  /// Has it more than one queue that a member takes from, or an order that is not that of the queue?
  [[nodiscard]] bool dispatched() const { return options.group || options.ordered || options.ordered_by_key; }
  /// The exchange has routed this event here. What happens in one epoch has no order, but what one publisher sent has.
  void route(Id id, std::size_t bytes, const std::string& key, const Times& times, std::uint64_t epoch);
  /// It is in the ring of a member.
  void enter(Id id, std::uint64_t now_ns);
  /// Until when it has to have entered one, and from when it may have; 0: no such time.
  [[nodiscard]] std::uint64_t deadline(Id id) const;
  [[nodiscard]] std::uint64_t not_before(Id id) const;
  /// Has it a place in the order of events?
  [[nodiscard]] bool in_line(Id id) const { return events_.contains(id) && !events_.at(id).late; }
  /// May events become dead letters without a verdict?
  [[nodiscard]] bool may_bury() const;

  // -- members, each with a number of its own

  /// `entry`: the first one it will take.
  void join(std::uint64_t member, std::uint64_t entry, std::uint64_t now_ns);
  void take(const Taken& seen, std::uint64_t now_ns);
  /// True if it is the first verdict of this delivery.
  bool verdict(std::uint64_t member, std::uint64_t entry, Word word, std::optional<std::uint64_t> delay_ns,
               const std::string& reason);
  bool extend(std::uint64_t member, std::uint64_t entry, std::uint64_t ns);
  void ack_through(std::uint64_t member, std::uint64_t entry);
  void release(std::uint64_t member);
  /// Deliveries whose view the member still holds, or that it may give a verdict on without being of the past.
  [[nodiscard]] std::vector<std::uint64_t> open_entries(std::uint64_t member) const;
  [[nodiscard]] bool holds(std::uint64_t member, std::uint64_t entry) const;

  /// The member that has this key, 0: none that is known.
  [[nodiscard]] std::uint64_t owner_of(const std::string& key) const;

  // -- the exchange

  /// `served_ns`: how long there has been an exchange. `again`: it died somewhere in this tick, and its successor did it
  /// once more.
  void tick(std::uint64_t now_ns, std::uint64_t served_ns, const Logs& logs, std::uint64_t epoch, bool again);
  /// What is due may have gone back since the last tick.
  void look(const Logs& logs, std::uint64_t last_tick_ns, std::uint64_t epoch);
  /// The member left between the last tick and now.
  void leave(std::uint64_t member, std::uint64_t last_tick_ns, std::uint64_t now_ns, const Logs& logs,
             std::uint64_t epoch);
  /// These were in the ring of a member that is gone, or were taken back from it: they come to another one out of turn.
  void move(const std::vector<Id>& ids);
  /// The exchange took back what a member had not taken, on its own account.
  void take_back(std::uint64_t member, std::uint64_t now_ns) const;
  void pause();
  void resume() { paused = false; }
  /// Right after a tick: all that is not in flight went, `purged` events, of which `released` had just gone back.
  void purge(std::uint64_t purged, std::uint64_t released, std::uint64_t now_ns, const Logs& logs);
  /// Dead letters that an operator asked for; those of them that went.
  void requeue(const std::vector<Id>& ids, std::uint64_t now_ns, const Logs& logs);
  void purge_dead(const std::vector<Id>& ids, const Logs& logs);

  // -- what must hold
  /// After the exchange did anything: so many events were dropped for want of room in the backlog, or were too late.
  void losses(std::uint64_t newest, std::uint64_t oldest, std::uint64_t expired, std::uint64_t now_ns);
  /// After a tick, nothing having happened since.
  void check(const Counters& seen);
  /// All that can be taken was taken and acked, and the exchange has seen it: every event is somewhere for good.
  void drained();
  /// Is anything in flight or waiting?
  [[nodiscard]] bool undecided() const;
  /// The next time at which something is due or times out.
  [[nodiscard]] std::optional<std::uint64_t> next_moment(std::uint64_t now_ns) const;

 private:
  using Entry = std::pair<std::uint64_t, std::uint64_t>;  // member, entry
  struct Event {
    std::size_t bytes = 0;
    std::string key;
    Times times;
    Place place = Place::queued;
    std::uint64_t delivery = 0;  // 0: not known yet
    std::uint32_t attempt = 1;   // the current one, or the one that the next take will be
    std::uint32_t budget_from = 0;
    std::vector<std::uint32_t> causes;
    std::string reason;
    std::uint64_t routed = 0;  // epoch
    std::uint64_t epoch = 0;   // queued: since
    bool moved = false;        // it may come after later ones
    bool loose = false;        // it has no place in the queue that one could know of
    bool late = false;         // it came into the queue when its time had come, or was dead before it was taken
    bool delayed = false;      // it waits for that
    bool entered = false;      // it is in a ring, as far as one can know
    bool given_back = false;   // by the member that had it last, and it was not taken since
    bool had_place = false;    // … and it had a place in the order of events, unlike what was delayed
    bool untaken = false;      // dead: its attempt had not begun
    bool was_dead = false;     // its dead letter was requeued …
    bool requeued = false;     // … and it has not failed since
    std::uint64_t due_low = 0;
    std::uint64_t due_high = 0;  // waiting: until some time in between
    bool due_known = false;
    std::optional<Entry> acked_by;  // waiting: an ack of this one still counts
  };
  /// One delivery that a member took, until the exchange is through with it.
  struct Take {
    Id id;
    bool open = true;  // it is the event's current attempt
    Word word = Word::none;
    std::optional<std::uint64_t> delay_ns;
    std::string reason;
    std::optional<std::uint64_t> mark_ns;  // served time of the tick that first saw it taken
    bool mark_passed = false;              // its time was over, but for an extension
    std::uint64_t extensions = 0;
    std::uint64_t extensions_read = 0;
    std::uint64_t extension_ns = 0;
    std::uint64_t deadline_ns = 0;  // of an extension, in served time
  };
  struct Member {
    std::map<std::uint64_t, Take> takes;  // by entry
    std::uint64_t through = 0;            // entries below are acked, unless they say otherwise
    std::uint64_t released = 0;
    std::uint64_t next_entry = 0;     // behind the last one taken
    std::uint64_t last_delivery = 0;  // of the first deliveries
    std::uint64_t last_taken_ns = 0;
  };
  /// Delivery numbers of what was routed in one epoch.
  struct Numbers {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
  };

  [[noreturn]] void complain(Id id, const std::string& what) const;
  [[nodiscard]] static Word effective(const Member& member, std::uint64_t entry, const Take& take);
  void read_verdicts(std::uint64_t number, std::uint64_t from_ns, std::uint64_t now_ns, const Logs& logs,
                     std::uint64_t epoch);
  void watch_time(std::uint64_t number, std::uint64_t now_ns, const Logs& logs, std::uint64_t epoch,
                  std::uint64_t served_ns, bool again);
  /// False: it was held, for want of room for dead letters.
  bool fail(Entry which, Take& take, Cause cause, std::uint64_t from_ns, std::uint64_t now_ns, const Logs& logs,
            std::uint64_t epoch);
  void go_back(Take& take, std::uint64_t from_ns, std::uint64_t now_ns, std::uint64_t epoch);
  bool bury(Id id, Event& event, Cause cause, const std::string& reason, const Logs& logs);
  void wait(Event& event, std::optional<std::uint64_t> delay_ns, std::uint64_t from_ns, std::uint64_t now_ns) const;
  void compare_logs(const Logs& logs, std::optional<std::uint64_t> released_until, std::uint64_t epoch,
                    bool ticked = false);
  void compare_delayed(Id id, Event& event, const Logs& logs, std::optional<std::uint64_t> released_until,
                       std::uint64_t epoch, bool ticked);
  void find_buried(const Logs& logs, std::uint64_t now_ns);
  void buried(Id id, Event& event, const Kept& kept, std::uint64_t now_ns);
  void compare(Id id, const Event& event, const Kept& kept) const;
  /// Its time is over, if it has entered no ring.
  [[nodiscard]] bool too_late(const Event& event, std::uint64_t now_ns) const;
  [[nodiscard]] bool may_have_expired(const Event& event) const;
  [[nodiscard]] bool may_be_held(std::uint64_t until_ns) const;
  [[nodiscard]] std::uint64_t queued() const;
  [[nodiscard]] std::uint64_t lost() const { return dropped_ + expired_ + lost_; }
  void compare_causes(Id id, const Event& event, const std::vector<std::uint32_t>& seen) const;
  void compare_aside(Id id, Event& event, const Logs& logs) const;
  void count_settled(const Counters& seen, std::uint64_t lost) const;
  void keep_order(const Taken& seen, const Event& event, Member& member);
  void one_open(const Taken& seen, const Event& event) const;
  void pass_over(Id id, const Event& event);
  [[nodiscard]] bool same_order(const Event& one, const Event& other) const;
  [[nodiscard]] bool stands_before(Id other, const Event& before, Id id, const Event& event) const;
  void lose(Id id, Event& event);
  [[nodiscard]] bool may_drop() const;

  std::map<Id, Event> events_;
  std::map<std::uint64_t, Member> members_;          // by number
  std::map<std::uint64_t, Numbers> numbers_;         // by epoch
  std::map<std::string, std::uint64_t> owners_;      // of keys: members
  std::map<std::string, std::uint64_t> key_orders_;  // the last first delivery of a key
  std::uint64_t last_delivery_ = 0;                  // of the first deliveries
  std::uint64_t served_ns_ = 0;                      // at the last tick
  Counters counters_;
  // That must have been, for want of room, for want of time, for one of both.
  std::uint64_t dropped_ = 0;
  std::uint64_t expired_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t dropped_seen_ = 0;
  std::uint64_t expired_seen_ = 0;
  std::uint64_t now_ns_ = 0;  // the latest
  std::uint64_t buried_ = 0;  // without a verdict, since the last look at losses
  bool any_late_ = false;     // some event was delayed
  bool in_gaps_ = false;      // what is settled need not be the first ones
};

}  // namespace ackring::test::model
