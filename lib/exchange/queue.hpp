// Queue: what X knows of one subscription: its segments, a private copy of every word that X writes, and the positions
// that can be recounted from them. Only X's thread touches it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "ackring/options.hpp"
#include "lib/exchange/key_slots.hpp"
#include "lib/exchange/lane.hpp"
#include "lib/log/segment_log.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

/// A record of the retry log, and when it goes back.
struct Due {
  std::uint64_t due_ns;
  std::uint64_t position;
  friend bool operator>(const Due& left, const Due& right) noexcept {
    return left.due_ns != right.due_ns ? left.due_ns > right.due_ns : left.position > right.position;
  }
};

/// What becomes of an event that is being routed, in the order in which the sinks of a transaction are committed: within
/// one transaction a queue's events go to later and later ones, so that what a crash leaves is a prefix of them.
enum class Stage : std::uint8_t { placed, retry, dead, counted };

/// … of one event, and why.
enum class Fate : std::uint8_t {
  place,     // into the ring, or the backlog
  delay,     // into the retry log, until it may be delivered
  expire,    // it is only counted
  drop,      // … as there is no room to wait for its time
  bury,      // into the dead-letter log, as its time is over
  overflow,  // … as the backlog is full
};

/// Who consumes a subscription.
enum class Role : std::uint8_t { ordinary, last_values, event_ids };

struct Queue {
  static constexpr std::size_t later_segment_bytes = 64u << 10;  // few events fail: small files, until there are many

  Queue(shm::Directory& directory, std::uint64_t number, std::uint64_t generation)
      : id(number),
        backlog(directory, "sub." + std::to_string(number) + ".backlog", generation),
        retry(directory, "sub." + std::to_string(number) + ".retry", generation, later_segment_bytes),
        dead(directory, "sub." + std::to_string(number) + ".dead", generation, later_segment_bytes) {}

  // What routing and delivering an event touches.
  Lane lane{*this};                   // of the member, of a subscription that is not dispatched()
  std::uint64_t largest_record = 0;   // a quarter of the member ring, less room for AttemptInfo
  std::uint64_t touched_n = 0;        // last transaction that wrote into this queue
  std::uint64_t skip_through = 0;     // redo: events of the transaction up to this sequence are in the sinks already
  std::uint64_t counted_through = 0;  // … and those up to this one are in the counters already
  bool to_backlog = true;             // the backlog holds events, so the next one goes behind them
  bool dropping = false;              // this transaction dropped an event of this queue; it drops the later ones too
  Stage stage = Stage::placed;        // that this transaction has come to
  Fate fate = Fate::place;            // of the event that is being routed
  std::uint8_t touched_logs = 0;      // … by this transaction: bits of the kinds below
  static constexpr std::uint8_t backlog_log = 1;
  static constexpr std::uint8_t retry_log = 2;
  static constexpr std::uint8_t dead_log = 4;
  bool is_dispatched = false;

  shm::SubscriptionBlock block{};
  shm::SubscriptionSegment* state = nullptr;
  shm::DeadReasonBlock dead_reasons{};

  // Identity.
  std::uint64_t id = 0;
  std::size_t shard = 0;    // that it belongs to
  std::uint32_t index = 0;  // in Exchange's table, and in the pattern tree
  SubscriptionOptions options;
  Role role = Role::ordinary;
  bool ephemeral = false;
  bool beginning = false;  // it is being made, and gets the last values
  bool paused = false;     // nothing is handed out
  bool ending = false;     // it matches nothing any more, and goes when nothing is left in it
  bool burying = false;    // what is left in it becomes dead letters
  bool active = false;     // on the list of queues that the tick looks at

  std::vector<std::unique_ptr<Lane>> members;  // of a group: one ring each; events reach them through the backlog
  std::size_t turn = 0;                        // of the round robin among them
  std::unique_ptr<KeySlots> keys;              // if it is ordered by key
  bool ring_left =
      false;  // the file of the ring that was retired last, which the system did not remove, is there still
  bool has_orphans = false;  // some ring holds events that were not taken and go to other members

  // Records of the retry log that wait for the ring of a member, by key slot, and turn and delivery: before the backlog.
  std::map<std::uint32_t, std::map<std::uint64_t, std::uint64_t>> parked;
  std::uint64_t parked_events = 0;

  // What failed. `due` may hold records that have left the log.
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due;
  std::uint64_t dead_held = 0;  // times that a delivery could not be dead-lettered for want of room

  log::SegmentLog backlog;
  log::SegmentLog retry;
  log::SegmentLog dead;
  shm::Segment state_segment;

  /// May what waits in the backlog expire?
  [[nodiscard]] bool may_expire() const noexcept {
    return block.backlog_events != 0 && (options.ttl.count() != 0 || block.backlog_expires != 0);
  }
  /// What happens to an event for which the backlog has no room.
  [[nodiscard]] Overflow overflow() const noexcept {
    if (role != Role::ordinary) return role == Role::event_ids ? Overflow::drop_oldest : Overflow::drop_newest;
    if (options.overflow != Overflow::automatic) return options.overflow;
    return at_most_once() ? Overflow::drop_oldest : Overflow::block;
  }
  [[nodiscard]] bool at_most_once() const noexcept { return options.guarantee == Guarantee::at_most_once; }
  /// Do events wait in the backlog until it is decided which member gets them, and when?
  [[nodiscard]] bool dispatched() const noexcept { return is_dispatched; }
  /// What it was created with. Later changes leave alone what decides how its events go.
  void set_options(SubscriptionOptions created) {
    options = std::move(created);
    is_dispatched = options.group || options.ordered || options.ordered_by_key;
  }
  /// Must the next event wait its turn outside the member's ring?
  [[nodiscard]] bool goes_to_backlog() const noexcept {
    return dispatched() || paused || !lane.has_ring || block.backlog_events != 0 || parked_events != 0;
  }
  /// Calls `each` with every lane. It may not add or remove one.
  template <typename Each>
  void each_lane(const Each& each) {
    if (!dispatched()) {
      each(lane);
    } else {
      for (const std::unique_ptr<Lane>& member : members) each(*member);
    }
  }
  template <typename Each>
  void each_lane(const Each& each) const {
    const_cast<Queue*>(this)->each_lane([&each](const Lane& one) { each(one); });
  }
  [[nodiscard]] bool has_member() const noexcept {
    bool any = false;
    each_lane([&any](const Lane& one) { any = any || one.has_member() || one.leaving; });
    return any;
  }
  /// The member of this number; nullptr: there is none.
  [[nodiscard]] Lane* find_member(std::uint64_t number) noexcept {
    for (const std::unique_ptr<Lane>& member : members) {
      if (member->number == number) return member.get();
    }
    return nullptr;
  }
  /// Is there something that a verdict would make room for?
  [[nodiscard]] bool wants_acks(const Lane& one) const noexcept {
    if (paused) return false;
    if (!dispatched()) return to_backlog || one.full_since_ns != 0;
    return block.backlog_events != 0 || has_orphans || parked_events != 0;
  }
  /// The lane whose ring has this incarnation; nullptr: there is none.
  [[nodiscard]] Lane* find_lane(std::uint64_t ring_incarnation) noexcept {
    Lane* found = nullptr;
    each_lane([&](Lane& one) {
      if (one.has_ring && one.ring_incarnation == ring_incarnation) found = &one;
    });
    return found;
  }
};

}  // namespace ackring::exchange
