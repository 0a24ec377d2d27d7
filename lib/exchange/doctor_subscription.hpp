// The doctor's look at one subscription: all its files, the counts that a walk over them gives, and its books. Private to
// doctor*.cpp.
//
// Thread rules: one thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ackring/options.hpp"
#include "lib/exchange/doctor_look.hpp"
#include "lib/exchange/doctor_records.hpp"

namespace ackring::exchange {

class SubscriptionLook {
 public:
  SubscriptionLook(Look& look, std::uint64_t id);
  /// All of it.
  void check();
  [[nodiscard]] const std::string& name() const noexcept { return options_.name; }

 private:
  struct Ring {
    std::uint64_t incarnation = 0;
    bool retired = false;  ///< its totals are in the block
    BusFile file;
    shm::MemberRing page;
    shm::RingBlock block{};
    std::uint64_t slots = 0;
    std::uint64_t end = 0;                  ///< entry number behind the last committed record
    std::uint64_t counted = 0;              ///< … behind the last one that counts: an open transaction's do not yet
    std::vector<std::uint64_t> deliveries;  ///< of the entries from the floor on
    BusFile ack;
  };

  /// A log as its owner's words describe it, and what a walk over it has found.
  struct Log {
    std::string infix;  ///< "backlog", "retry", "dead"
    Place place;
    std::uint64_t head = 0;
    std::uint64_t tail = 0;
    std::uint64_t sink_base = 0;
    std::uint64_t sink_n = 0;
    std::uint64_t of_n = 0;  ///< records of the last transaction that the block knows of
    std::map<std::uint64_t, BusFile> segments = {};
    std::uint64_t seen_of_n = 0;  ///< … that the walk has come by
    std::uint64_t events = 0;
    std::uint64_t bytes = 0;
    std::uint64_t delayed_events = 0;
    std::uint64_t delayed_bytes = 0;
    bool timed = false;
    bool whole = true;  ///< walked to its end
  };

  // doctor_subscription.cpp
  [[nodiscard]] bool read_definition();
  [[nodiscard]] bool open_state();
  void open_rings();
  [[nodiscard]] std::vector<std::uint64_t> stamp() const;
  [[nodiscard]] bool check_what_moves();
  [[nodiscard]] bool dead_letters_stayed() const;
  void check_block();
  void check_slot_owners();
  void compare(const std::string& check, const std::string& counter, std::uint64_t walked, std::uint64_t written);
  void check_counts();
  void check_deliveries();
  void check_books();
  void note_event(const RecordLook& record, const std::string& file);

  // doctor_rings.cpp
  void check_ring(Ring& ring);
  [[nodiscard]] bool walk_ring(Ring& ring);
  void count_entries(Ring& ring);
  void check_ring_words(const Ring& ring);
  void check_acks(Ring& ring);
  void check_ack_words(const Ring& ring, const shm::AckPage& page);
  [[nodiscard]] std::uint8_t moved_state(const Ring& ring, std::uint64_t entry) const noexcept;

  // doctor_logs.cpp
  void open_log(Log& log);
  void walk_log(Log& log);
  void count_record(Log& log, const RecordLook& record, std::uint64_t position);
  [[nodiscard]] bool has_left(const Log& log, const RecordLook& record, std::uint64_t position);

  [[nodiscard]] bool counted() const noexcept { return block_.n == intent_.n; }
  [[nodiscard]] bool dispatched() const noexcept {
    return options_.group || options_.ordered || options_.ordered_by_key;
  }

  Look& look_;
  std::uint64_t id_;
  std::string prefix_;  // "sub.12"
  std::vector<std::string> names_;
  SubscriptionOptions options_;
  bool ephemeral_ = false;
  BusFile state_file_;
  std::unique_ptr<shm::SubscriptionSegment> state_ = std::make_unique<shm::SubscriptionSegment>();
  shm::SubscriptionBlock block_{};
  std::size_t shard_ = 0;  // that it belongs to
  LastIntent intent_;      // … and what that one does, or did last
  std::vector<std::unique_ptr<Ring>> rings_;
  Log backlog_{"backlog", Place::backlog};
  Log retry_{"retry", Place::retry};
  Log dead_{"dead", Place::dead};
  std::vector<std::uint64_t> deliveries_;  // of all events that are somewhere
  std::array<std::uint64_t, shm::delivery_states> totals_{};
  std::uint64_t open_entries_ = 0;
  bool rings_whole_ = true;
  bool open_transaction_ = false;
};

}  // namespace ackring::exchange
