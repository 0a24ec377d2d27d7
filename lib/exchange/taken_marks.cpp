#include "lib/exchange/taken_marks.hpp"

#include <algorithm>

namespace ackring::exchange {

namespace {

// Merged marks lie so far apart that the slots which are not kept exactly span the ack timeout: two neighbours of a mark
// are at least this apart, so half as many of these make up the time-out.
constexpr std::uint64_t merged_per_timeout = 30;
static_assert(shm::taken_marks - 1 - TakenMarks::kept_exactly >= 2 * merged_per_timeout + 2);

constexpr std::uint64_t count_mask = 0xf;

bool is_below(std::uint64_t entry, std::uint64_t other) { return static_cast<std::int64_t>(entry - other) < 0; }

}  // namespace

void TakenMarks::start(shm::MemberRing& page, std::uint64_t taken) {
  marks_.clear();
  first_saved_ = 0;
  page.marks_end.store(0, std::memory_order_relaxed);  // relaxed: the page has no member yet; ack_page publishes it
  page.timed_out_below.store(taken, std::memory_order_relaxed);  // relaxed: as above
}

void TakenMarks::note(shm::MemberRing& page, const TakenMark& mark, std::uint64_t timeout_ns,
                      std::uint64_t timed_out_below) {
  marks_.push_back(mark);
  save(page, mark, timeout_ns, timed_out_below);
}

void TakenMarks::save(shm::MemberRing& page, const TakenMark& mark, std::uint64_t timeout_ns,
                      std::uint64_t timed_out_below) {
  const auto slot = [&page](std::uint64_t number) -> shm::TakenMark& { return page.marks[number % shm::taken_marks]; };
  // relaxed, here and below: X's thread is the only writer
  const std::uint64_t end = page.marks_end.load(std::memory_order_relaxed);
  while (first_saved_ != end && !is_below(timed_out_below, slot(first_saved_).taken.load(std::memory_order_relaxed))) {
    ++first_saved_;
  }
  const std::uint64_t live = end - first_saved_;
  bool merge = live >= shm::taken_marks - 1;
  if (!merge && live >= kept_exactly) {
    const std::uint64_t before = slot(end - 2).time_ns.load(std::memory_order_relaxed);
    merge = mark.time_ns - before < timeout_ns / merged_per_timeout;
  }
  shm::TakenMark& at = slot(merge ? end - 1 : end);
  at.time_ns.store(mark.time_ns, std::memory_order_relaxed);  // before `taken`: in between, the mark is only later
  at.taken.store(mark.taken, std::memory_order_relaxed);

  // release(ring.marks): the slot below it
  if (!merge) page.marks_end.store(end + 1, std::memory_order_release);
}

void TakenMarks::adopt(const shm::MemberRing& page, std::uint64_t taken, std::uint64_t timed_out_below,
                       std::uint64_t served_ns) {
  // acquire(ring.marks): the slots below it
  const std::uint64_t end = page.marks_end.load(std::memory_order_acquire);
  first_saved_ = end - std::min<std::uint64_t>(end, shm::taken_marks - 1);
  for (std::uint64_t number = first_saved_; number != end; ++number) {
    const shm::TakenMark& slot = page.marks[number % shm::taken_marks];
    // relaxed: published by marks_end; what was merged since was written by a process that is dead
    const std::uint64_t time_ns = std::min(slot.time_ns.load(std::memory_order_relaxed), served_ns);
    const std::uint64_t below = slot.taken.load(std::memory_order_relaxed);
    const std::uint64_t last = marks_.empty() ? timed_out_below : marks_.back().taken;
    if (below - last > taken - last) continue;  // over already, or nothing that X has written of this member
    if (below != last) marks_.push_back({time_ns, below});
  }
}

void TakenMarks::keep_extension(shm::MemberRing& page, std::uint64_t entry, std::uint32_t count,
                                std::uint64_t deadline_ns) {
  shm::ExtensionMark& slot = page.extensions[entry % shm::extension_marks];
  // relaxed: X is the only writer, and its successor reads it only when it is dead; the entry comes last, plus one, so
  // that a slot half written is of no entry and zero means none
  slot.entry.store(0, std::memory_order_relaxed);
  slot.deadline_ns.store((deadline_ns & ~count_mask) | (count & count_mask), std::memory_order_relaxed);
  slot.entry.store(entry + 1, std::memory_order_relaxed);
}

std::optional<std::uint64_t> TakenMarks::kept_extension(const shm::MemberRing& page, std::uint64_t entry,
                                                        std::uint32_t count) {
  const shm::ExtensionMark& slot = page.extensions[entry % shm::extension_marks];
  // relaxed: as above
  if (slot.entry.load(std::memory_order_relaxed) != entry + 1) return std::nullopt;
  const std::uint64_t deadline = slot.deadline_ns.load(std::memory_order_relaxed);
  if ((deadline & count_mask) != (count & count_mask)) return std::nullopt;
  return deadline & ~count_mask;
}

}  // namespace ackring::exchange
