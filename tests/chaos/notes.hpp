// What actors write down about themselves, in memory that they share with the driver: it outlives their SIGKILL.
//
// Thread rules: each word has one writer at a time, but for `ended_ns` of a life, where the earlier of two times counts,
// and `complaints`. The driver reads notes when their writer has ended.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

#include "tests/chaos/events.hpp"

namespace ackring::chaos {

inline std::int64_t now_ns() {
  return std::chrono::duration_cast<Nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

enum class Verdict : std::uint8_t { none, ack, nack, reject };

/// One delivery in somebody's hands. Its times are CLOCK_MONOTONIC.
struct Note {
  std::int64_t before_ns = 0;   // before the call that took it
  std::int64_t taken_ns = 0;    // after it
  std::int64_t decided_ns = 0;  // before the verdict
  std::int64_t done_ns = 0;     // after it was answered with ok; 0: it was not
  std::uint64_t delivery = 0;
  std::uint64_t sequence = 0;
  std::int64_t nack_ns = -1;  // delay of the nack, -1: the back-off's
  std::uint32_t attempt = 0;
  std::uint32_t life = 0;  // of its member
  std::uint32_t slot = 0;  // of its member
  std::uint8_t publisher = 0;
  Verdict verdict = Verdict::none;  // given, or about to be
  std::uint8_t cause = 0;           // why the exchange delivers it again (shm::DeliveryState); 0: it was not asked
  std::uint8_t wrong = 0;           // bits, as below
};
inline constexpr std::uint8_t wrong_bytes = 1;    // topic, key or payload are not those of the event
inline constexpr std::uint8_t wrong_time = 2;     // before its delay was over
inline constexpr std::uint8_t wrong_later = 4;    // bytes changed while it was held
inline constexpr std::uint8_t wrong_verdict = 8;  // a first verdict was refused

inline constexpr std::size_t notes_of_member = 1u << 19;  // in one round; untouched pages cost nothing
inline constexpr std::size_t lives_of_actor = 4096;

struct ActorNotes {
  std::atomic<std::uint64_t> moments_left;  // it dies at that moment of its work; 0: it is not to
  std::array<std::atomic<std::int64_t>, lives_of_actor>
      ended_ns;  // of each life, from when on it may be dead; 0: never

  void end_life(std::uint32_t life) {
    std::int64_t none = 0;
    ended_ns[life].compare_exchange_strong(none, now_ns(), std::memory_order_seq_cst);
  }
};

struct MemberNotes {
  ActorNotes actor;
  std::atomic<std::uint64_t> count;
  std::array<Note, notes_of_member> notes;
};

struct PublisherNotes {
  ActorNotes actor;
  std::atomic<std::uint64_t> committed;  // number of the last event that was answered with ok
  std::atomic<std::uint64_t> begun;      // of the last one that was ever asked for
  std::atomic<std::uint64_t> repeated;   // events published again, on purpose
  std::atomic<std::uint32_t> finished;   // all of its events are routed
};

enum class Phase : std::uint32_t { storm, drain, leave };

inline constexpr std::size_t max_members = 24;
inline constexpr std::size_t max_others = 8;

struct Notes {
  std::atomic<Phase> phase;
  std::array<PublisherNotes, publishers> of_publishers;
  std::array<MemberNotes, max_members> of_members;
  std::array<ActorNotes, max_others> of_others;
  std::atomic<std::uint64_t> requeued_calls;  // begun
  std::atomic<std::int64_t> first_requeue_ns;
  std::atomic<std::uint64_t> purged;  // events, as answered
  std::atomic<std::uint64_t> tap_events;
  std::atomic<std::uint64_t> looks;  // snapshots of stat
  std::atomic<std::uint32_t> complaint_count;
  std::array<std::array<char, 512>, 64> complaints;

  void complain(std::string_view text) {
    const std::uint32_t at = complaint_count.fetch_add(1, std::memory_order_seq_cst);
    if (at < complaints.size())
      std::memcpy(complaints[at].data(), text.data(), std::min<std::size_t>(text.size(), 511));
  }
};

struct SharedNotes {
  SharedNotes() {
    void* memory =
        ::mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    notes = static_cast<Notes*>(memory);  // zero: all that is in it begins like that
  }
  ~SharedNotes() { ::munmap(notes, sizeof(Notes)); }
  SharedNotes(const SharedNotes&) = delete;
  SharedNotes& operator=(const SharedNotes&) = delete;
  /// All zero again, and its pages are given back.
  void clear() { ::madvise(notes, sizeof(Notes), MADV_REMOVE); }
  Notes* operator->() const noexcept { return notes; }
  Notes* notes = nullptr;
};

}  // namespace ackring::chaos
