// TakenMarks: when the deliveries of one lane were taken, for the watchdog, and for an exchange that comes after this one.
//
// A mark says that everything below an entry had been taken at a time. Times are of X's served time (Exchange::served_at),
// which stands still while no X runs, so that a restart moves no deadline and a mark never has to be shifted. X keeps a
// mark per tick in its memory, and in the ring's page as many as there is room for: the first `kept_exactly` as they are,
// later ones merged, so that all of them span an ack timeout. A merged mark is later than what it replaces: after a
// restart a delivery may time out up to a thirtieth of its ack timeout late, and never early.
//
// Thread rules: X's thread. Crash rules: a slot is written before the count that makes it valid, never the oldest valid
// one; a merge stores the time first. So what a dead X left is always true of what was taken.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "lib/shm/format.hpp"

namespace ackring::exchange {

/// Everything below entry `taken` was taken before `time_ns`, of X's served time.
struct TakenMark {
  std::uint64_t time_ns;
  std::uint64_t taken;
};

class TakenMarks {
 public:
  static constexpr std::uint64_t kept_exactly = shm::taken_marks / 2;

  [[nodiscard]] bool empty() const noexcept { return marks_.empty(); }
  [[nodiscard]] const TakenMark& front() const noexcept { return marks_.front(); }
  [[nodiscard]] const TakenMark& back() const noexcept { return marks_.back(); }
  [[nodiscard]] auto begin() const noexcept { return marks_.begin(); }
  [[nodiscard]] auto end() const noexcept { return marks_.end(); }
  void pop_front() { marks_.pop_front(); }
  /// Of X's memory only.
  void clear() noexcept { marks_.clear(); }

  /// A new member begins, with entry `taken`: nothing in the page counts any more.
  void start(shm::MemberRing& page, std::uint64_t taken);
  /// Adds a mark. `timeout_ns` is the ack timeout; entries below `timed_out_below` need no mark.
  void note(shm::MemberRing& page, const TakenMark& mark, std::uint64_t timeout_ns, std::uint64_t timed_out_below);
  /// Reads what an earlier X left, for entries in [timed_out_below, taken). No mark is later than `served_ns`.
  void adopt(const shm::MemberRing& page, std::uint64_t taken, std::uint64_t timed_out_below, std::uint64_t served_ns);

  /// A time as the page can keep the end of an extension: not before it, and 15 ns behind it at most.
  [[nodiscard]] static constexpr std::uint64_t rounded(std::uint64_t deadline_ns) noexcept {
    return (deadline_ns + 15) & ~std::uint64_t{15};
  }
  /// Keeps the end of an extension, which is rounded, for an X to come: `count` is that of its ack word.
  static void keep_extension(shm::MemberRing& page, std::uint64_t entry, std::uint32_t count,
                             std::uint64_t deadline_ns);
  /// The end of this extension, if an X before this one has seen it, and no other one has taken its slot since.
  [[nodiscard]] static std::optional<std::uint64_t> kept_extension(const shm::MemberRing& page, std::uint64_t entry,
                                                                   std::uint32_t count);

 private:
  void save(shm::MemberRing& page, const TakenMark& mark, std::uint64_t timeout_ns, std::uint64_t timed_out_below);

  std::deque<TakenMark> marks_;
  std::uint64_t first_saved_ = 0;  // number of the oldest mark in the page that is still needed
};

}  // namespace ackring::exchange
