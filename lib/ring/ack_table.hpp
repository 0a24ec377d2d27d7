// The sequence-number ack table: one word per delivery, written by the member only, read by X.
//
// Every record that X puts into a member ring is one entry, numbered 0, 1, 2, … over the life of the ring. Entry e has
// the ack word e mod slots; the word carries the lap e / slots, so that a word left over from an earlier lap, or forged,
// means nothing. `acked_through` acks many entries with one store. X reading a word is the moment that counts.
//
// Ack word: bits 0-3 verdict (0: none), 4-7 count of extensions, 8-31 delay in ms (of a nack; delay_default: the
// subscription's back-off; of an extension: its duration; of a reject or a nack_reason: where the reason is), 32-63 low half of the lap.
//
// An extension is no verdict: any number may come before it, none after it. An extended entry that `acked_through`
// passes is acked, like one without a word.
//
// Thread rules: AckWriter: take side one thread; verdicts from any thread, one at a time per entry; extensions from any
// thread at any time. AckReader: X's thread.
// Invariants: 1. taken, released, acked_through and refused only grow (in signed differences, so whoever makes a page
// starts all four at its first entry). 2. A verdict other than ack is in its word, and `refused` is beyond it, before
// `acked_through` can pass it; so X looks at `acked_through` first, then at `refused`, then at words. So it is with an
// extension, which X needs to see only while `acked_through` has not passed it: in bulk X passes it rightly. 3. No word
// is older than 2^31 laps, so that a lap's low half never means two laps (see `forget_old_laps`). 4. A word is never
// replaced by one of an earlier lap, nor a verdict by an extension.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/ring/reject_reason.hpp"
#include "lib/shm/format.hpp"

namespace ackring::ring {

/// returned: X had taken the delivery back before it was taken. give_back: it was taken, and is X's again as if it had not
/// been. nack_reason: a nack whose delay field says where its reason is, as that of a reject does.
enum class Verdict : std::uint32_t {
  none = 0,
  ack = 1,
  nack = 2,
  reject = 3,
  extend = 4,
  returned = 5,
  give_back = 6,
  nack_reason = 7
};
inline constexpr Verdict last_verdict = Verdict::nack_reason;

inline constexpr std::uint32_t delay_default = 0xffffff;
inline constexpr std::uint32_t max_delay_ms = 0xfffffe;  // 4 h 39 min

/// Does it settle the delivery?
constexpr bool is_final(Verdict verdict) noexcept { return verdict != Verdict::none && verdict != Verdict::extend; }

struct AckWord {
  static constexpr std::uint64_t make(std::uint64_t lap, Verdict verdict, std::uint32_t delay_ms = delay_default,
                                      std::uint32_t count = 0) noexcept {
    return lap << 32 | std::uint64_t{delay_ms & 0xffffff} << 8 | std::uint64_t{count & 0xf} << 4 |
           static_cast<std::uint64_t>(verdict);
  }
  static constexpr Verdict verdict(std::uint64_t word) noexcept { return static_cast<Verdict>(word & 0xf); }
  static constexpr std::uint32_t count(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 4) & 0xf;
  }
  static constexpr std::uint32_t delay(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 8) & 0xffffff;
  }
  static constexpr bool of_lap(std::uint64_t word, std::uint64_t lap) noexcept {
    return (word >> 32) == (lap & 0xffffffff);
  }
  /// May a word of lap `lap` not replace `word`? It may not if that one is a verdict of this lap, or of a later one.
  static constexpr bool keeps(std::uint64_t word, std::uint64_t lap) noexcept {
    const auto newer =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(word >> 32) - static_cast<std::uint32_t>(lap));
    if (newer < 0) [[likely]]
      return false;
    return newer == 0 ? is_final(verdict(word)) : word != 0;
  }
};

/// What X reads of a word, at once.
struct AckSeen {
  Verdict verdict = Verdict::none;
  std::uint32_t delay = 0;  // ms of a nack or an extension; of a reject: what reason() wants
  std::uint32_t count = 0;  // of extensions, modulo 16: another one than at the last look is a new extension
  bool undefined = false;   // the word is of this lap, but nobody gives such a verdict
};

/// The four counts of a page, read in the order that keeps them comparable: none can be seen ahead of `taken`.
struct AckMarks {
  std::uint64_t through = 0;
  std::uint64_t refused = 0;
  std::uint64_t released = 0;
  std::uint64_t taken = 0;
};

/// Can a page whose counts were `before` have these now, if `entries` is behind the last entry of its ring? Null: yes.
/// Otherwise what is wrong with them.
constexpr const char* impossible(const AckMarks& before, const AckMarks& now, std::uint64_t entries) noexcept {
  const auto behind = [](std::uint64_t a, std::uint64_t b) { return static_cast<std::int64_t>(a - b) < 0; };
  if (behind(now.taken, before.taken) || behind(entries, now.taken)) return "taken is not a possible count";
  if (behind(now.through, before.through) || behind(now.taken, now.through))
    return "acked_through is not a possible count";
  if (behind(now.refused, before.refused) || behind(now.taken, now.refused)) return "refused is not a possible count";
  if (behind(now.released, before.released) || behind(now.taken, now.released))
    return "released is not a possible count";
  return nullptr;
}

/// Bytes of the file of an ack page with `slots` (power of two) words.
constexpr std::size_t ack_page_bytes(std::uint64_t slots) noexcept {
  constexpr std::size_t reasons = shm::reject_reasons * sizeof(shm::RejectReason);
  static_assert(reasons % shm::page_bytes == 0);
  return reasons_offset(slots) + reasons + sizeof(shm::MemberLatency);
}

/// Where what the member measures begins in that file.
constexpr std::size_t latency_offset(std::uint64_t slots) noexcept {
  return ack_page_bytes(slots) - sizeof(shm::MemberLatency);
}

/// The member's side.
class AckWriter {
 public:
  AckWriter() noexcept = default;
  explicit AckWriter(shm::AckPage* page) noexcept
      : page_(page),
        words_(reinterpret_cast<shm::Word64*>(reinterpret_cast<std::byte*>(page) + shm::page_bytes)),
        reasons_(
            reinterpret_cast<shm::RejectReason*>(reinterpret_cast<std::byte*>(page) + reasons_offset(page->slots))),
        mask_(page->slots - 1),
        shift_(static_cast<std::uint32_t>(std::countr_zero(page->slots))),
        next_forget_(page->taken.load(std::memory_order_relaxed) +  // relaxed: only this process writes it
                     (forget_laps << shift_)) {}

  /// Entries below `entry` are in user code's hands. Before the view is handed out.
  void taken(std::uint64_t entry) {
    if (static_cast<std::int64_t>(entry - next_forget_) >= 0) [[unlikely]] {
      forget_old_laps(entry);
    }
    shm::Environment::at(shm::CrashPoint::take_taken);
    page_->taken.store(entry, std::memory_order_release);  // release(ack.taken): X may charge an attempt for them
  }
  /// Views below `entry` are not used any more.
  void released(std::uint64_t entry) {
    shm::Environment::at(shm::CrashPoint::verdict_released);
    page_->released.store(entry, std::memory_order_release);  // release(ack.released): the reads of the views are over
  }
  /// Gives a final verdict. False: this entry has one already, or its word belongs to a later entry.
  bool verdict(std::uint64_t entry, Verdict verdict, std::uint32_t delay_ms = delay_default) {
    shm::Word64& word = words_[entry & mask_];
    const std::uint64_t lap = entry >> shift_;
    const std::uint64_t old = word.load(std::memory_order_relaxed);  // relaxed: only this process writes the word
    if (AckWord::keeps(old, lap)) return false;
    shm::Environment::at(shm::CrashPoint::verdict_word);
    word.store(AckWord::make(lap, verdict, delay_ms),
               std::memory_order_release);  // release(ack.word): views are let go
    if (verdict != Verdict::ack) {
      page_->refused.raise(entry + 1, std::memory_order_release);  // release(ack.refused): the word before it
    }
    return true;
  }
  /// The verdict `reject`, with a reason that X can read (see reject_reason.hpp). False as above.
  bool reject(std::uint64_t entry, std::string_view reason) {
    if (decided(entry)) return false;  // a slot less in use
    shm::Environment::at(shm::CrashPoint::verdict_reason);
    const std::uint32_t where = write_reason(*page_, reasons_, entry, reason);
    return verdict(entry, Verdict::reject, where);  // release(ack.word): the reason as well
  }
  /// A nack with a reason; it waits as long as the subscription's back-off says. False as above.
  bool nack(std::uint64_t entry, std::string_view reason) {
    if (decided(entry)) return false;
    shm::Environment::at(shm::CrashPoint::verdict_reason);
    const std::uint32_t where = write_reason(*page_, reasons_, entry, reason);
    return verdict(entry, Verdict::nack_reason, where);  // release(ack.word): the reason as well
  }
  /// The entry is being worked on: not final. `duration_ms` counts from X's look at the word, 1 to max_delay_ms (what is
  /// outside is moved to the nearer end). False as above. X can't tell 16 extensions between two looks from none.
  bool extend(std::uint64_t entry, std::uint32_t duration_ms) {
    shm::Word64& word = words_[entry & mask_];
    const std::uint64_t lap = entry >> shift_;
    shm::Environment::at(shm::CrashPoint::verdict_extend);
    const std::uint32_t delay = std::clamp<std::uint32_t>(duration_ms, 1, max_delay_ms);
    while (true) {
      const std::uint64_t old = word.load(std::memory_order_relaxed);  // relaxed: only this process writes the word
      if (AckWord::keeps(old, lap)) return false;
      const bool again = AckWord::of_lap(old, lap) && AckWord::verdict(old) == Verdict::extend;
      const std::uint32_t count = again ? AckWord::count(old) + 1 : 1;
      // relaxed: it lets go of nothing. An exchange, so that a verdict which another thread stores meanwhile stays.
      if (word.compare_exchange(old, AckWord::make(lap, Verdict::extend, delay, count), std::memory_order_relaxed))
        break;
    }
    page_->refused.raise(entry + 1, std::memory_order_release);  // release(ack.refused): the word before it
    return true;
  }
  /// Acks every entry below `entry` that has no verdict of its own. Any thread.
  void ack_through(std::uint64_t entry) {
    shm::Environment::at(shm::CrashPoint::verdict_through);
    page_->acked_through.raise(entry, std::memory_order_release);  // release(ack.through): views are let go
  }
  [[nodiscard]] std::uint64_t acked_through() const noexcept {
    return page_->acked_through.load(std::memory_order_relaxed);  // relaxed: only this process writes it
  }
  /// Has the entry a final verdict of its own?
  [[nodiscard]] bool decided(std::uint64_t entry) const noexcept {
    const std::uint64_t word = words_[entry & mask_].load(std::memory_order_relaxed);  // relaxed: own process's word
    return AckWord::keeps(word, entry >> shift_);
  }
  [[nodiscard]] shm::Word32& parked() noexcept { return page_->parked; }
  [[nodiscard]] shm::MemberLatency& latency() noexcept {
    return *reinterpret_cast<shm::MemberLatency*>(reinterpret_cast<std::byte*>(page_) + latency_offset(page_->slots));
  }

 private:
  static constexpr std::uint64_t forget_laps = std::uint64_t{1} << 30;

  /// Clears the words of laps long gone. A slot whose entries are all acked by ack_through keeps its last word for
  /// ever, and after 2^32 laps it would be a verdict again, on an entry that nobody has looked at.
  [[gnu::noinline]] void forget_old_laps(std::uint64_t entry) {
    const std::uint64_t lap = (entry >> shift_) & 0xffffffff;
    for (std::uint64_t slot = 0; slot <= mask_; ++slot) {
      const std::uint64_t old = words_[slot].load(std::memory_order_relaxed);  // relaxed: own process's word
      // The entries in flight are of this lap and the one before; the others' words are only compared by lap.
      const std::uint64_t age = (lap - (old >> 32)) & 0xffffffff;
      // relaxed: a cleared word publishes nothing. A verdict that another thread stores meanwhile stays.
      if (old != 0 && age > 1) (void)words_[slot].compare_exchange(old, 0, std::memory_order_relaxed);
    }
    next_forget_ = entry + (forget_laps << shift_);
  }

  shm::AckPage* page_ = nullptr;
  shm::Word64* words_ = nullptr;
  shm::RejectReason* reasons_ = nullptr;
  std::uint64_t mask_ = 0;
  std::uint32_t shift_ = 0;
  std::uint64_t next_forget_ = 0;  // entry at which words of old laps are cleared next; used by the taking thread
};

/// X's side. `slots` is X's own knowledge, never read from the page.
class AckReader {
 public:
  AckReader() noexcept = default;
  AckReader(const shm::AckPage* page, std::uint64_t slots) noexcept
      : page_(page),
        words_(reinterpret_cast<const shm::Word64*>(reinterpret_cast<const std::byte*>(page) + shm::page_bytes)),
        reasons_(reinterpret_cast<const shm::RejectReason*>(reinterpret_cast<const std::byte*>(page) +
                                                            reasons_offset(slots))),
        mask_(slots - 1),
        shift_(static_cast<std::uint32_t>(std::countr_zero(slots))) {}

  [[nodiscard]] bool valid() const noexcept { return page_ != nullptr; }
  [[nodiscard]] std::uint64_t taken() const noexcept {
    return page_->taken.load(std::memory_order_acquire);  // acquire(ack.taken): handed out
  }
  [[nodiscard]] std::uint64_t released() const noexcept {
    return page_->released.load(std::memory_order_acquire);  // acquire(ack.released): bytes below may be reused
  }
  [[nodiscard]] std::uint64_t acked_through() const noexcept {
    return page_->acked_through.load(std::memory_order_acquire);  // acquire(ack.through): bytes below may be reused
  }
  [[nodiscard]] std::uint64_t refused() const noexcept {
    return page_->refused.load(std::memory_order_acquire);  // acquire(ack.refused): words below may refuse
  }
  /// All counts. What the member stores after `taken` is read before it.
  [[nodiscard]] AckMarks marks() const noexcept {
    AckMarks marks;
    marks.through = acked_through();
    marks.refused = refused();
    marks.released = released();
    marks.taken = taken();
    return marks;
  }
  /// What the word of an entry says; nothing if it is of another lap, or nobody defined it. One read.
  [[nodiscard]] AckSeen seen(std::uint64_t entry) const noexcept {
    const std::uint64_t word =
        words_[entry & mask_].load(std::memory_order_acquire);  // acquire(ack.word): the view's bytes may be reused
    const Verdict verdict = AckWord::verdict(word);
    if (!AckWord::of_lap(word, entry >> shift_) || verdict == Verdict::none) return {};
    if (verdict > last_verdict) [[unlikely]]
      return {.undefined = true};
    return {verdict, AckWord::delay(word), AckWord::count(word), false};
  }
  /// The final verdict of an entry; none while there is only an extension, which seen() tells.
  [[nodiscard]] Verdict verdict(std::uint64_t entry) const noexcept {
    const Verdict verdict = seen(entry).verdict;
    return is_final(verdict) ? verdict : Verdict::none;
  }
  /// Why an entry was rejected, given the delay of seen(); printable, up to 119 bytes. Empty: no reason, or its slot was
  /// used again since.
  [[nodiscard]] std::string reason(std::uint64_t entry, std::uint32_t delay) const {
    return read_reason(reasons_, entry, delay);
  }
  /// The reasons in the page, the latest first; at most `most`.
  [[nodiscard]] std::vector<std::string> last_reasons(std::size_t most) const {
    return read_last_reasons(*page_, reasons_, most);
  }
  [[nodiscard]] const shm::AckPage* page() const noexcept { return page_; }
  [[nodiscard]] const shm::MemberLatency& latency() const noexcept {
    return *reinterpret_cast<const shm::MemberLatency*>(reinterpret_cast<const std::byte*>(page_) +
                                                        latency_offset(slots()));
  }
  /// Does the member sleep?
  [[nodiscard]] bool parked() const noexcept {
    return page_->parked.load(std::memory_order_relaxed) != 0;  // relaxed: ordered by the park protocol (shm/park.hpp)
  }

 private:
  const shm::AckPage* page_ = nullptr;
  const shm::Word64* words_ = nullptr;
  [[nodiscard]] std::uint64_t slots() const noexcept { return mask_ + 1; }

  const shm::RejectReason* reasons_ = nullptr;
  std::uint64_t mask_ = 0;
  std::uint32_t shift_ = 0;
};

}  // namespace ackring::ring
