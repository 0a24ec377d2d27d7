// Memory as the C++ model allows it, for roles that run one after another on one thread.
//
// Each word keeps all values that it ever had, in the order in which they were stored. What a role may still read of a word
// is given by its view: for each word the oldest value that it may see. A release hands on the view of the storing role, an
// acquire takes it over; fences do so for the relaxed accesses before or after them. This is the view-based form of the
// C++20 model without load buffering ("A promising semantics for relaxed-memory concurrency", POPL 2017, without
// promises; the same as RC11 restricted to executions in which the order of a word's values is that of execution).
// Plain bytes are looked after in granules of eight: an access that does not happen after the last conflicting one, by
// vector clocks, is a data race (as in CDSChecker, OOPSLA 2013).
//
// Not modelled: a load that reads a store which its own role's later stores enabled; seq_cst accesses, as the core has
// seq_cst fences only. The values of a word are in the order of execution; where nothing but that orders two roles' stores
// (words here have one writer at a time), the execution fails.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ackring::test::interleave {

inline constexpr std::size_t max_roles = 4;
inline constexpr std::size_t max_words = 64;

/// What happened before: of each word the oldest value that may still be read, of each role how far it was.
struct Clock {
  std::array<std::uint16_t, max_words> view{};
  std::array<std::uint16_t, max_roles> time{};
  void join(const Clock& other);
  void join_view(const Clock& other);
};

/// Decides where the model leaves a choice: 0 to `options` - 1. Of a load, 0 is the newest value.
class Chooser {
 public:
  virtual ~Chooser() = default;
  virtual std::size_t choose_value(std::size_t options) = 0;
};

class Model {
 public:
  /// Forgets all; `roles` of them begin with what is in memory now. `membarrier`: does the system have it?
  void reset(std::size_t roles, bool membarrier, Chooser& chooser);
  /// What went wrong first; empty: nothing.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  /// Stores so far: a role that waits for something new waits for this to move.
  [[nodiscard]] std::uint64_t stores() const { return stores_; }
  /// A name for messages.
  void name(const void* word, std::string text);
  [[nodiscard]] std::string name_of(const void* word) const;

  std::uint64_t load(std::size_t role, const void* word, std::size_t bytes, std::memory_order order);
  void store(std::size_t role, void* word, std::size_t bytes, std::uint64_t value, std::memory_order order);
  std::uint64_t fetch_add(std::size_t role, void* word, std::size_t bytes, std::uint64_t add, std::memory_order order);
  bool exchange_if(std::size_t role, void* word, std::size_t bytes, std::uint64_t& expected, std::uint64_t desired,
                   std::memory_order order);
  void fence(std::size_t role, std::memory_order order);
  void compiler_fence(std::size_t role, std::memory_order order);
  bool everyone_fences(std::size_t role);
  void write(std::size_t role, void* to, const void* from, std::size_t bytes);
  void read(std::size_t role, const void* from, std::size_t bytes);
  void read_changing(std::size_t role, void* to, const void* from, std::size_t bytes);

 private:
  struct Value {
    std::uint64_t value;
    bool known;        // false: written in place, only checked reads may see it
    bool exchanged;    // stored by an exchange, which has its place right behind the value that it replaced
    std::size_t role;  // who stored it; max_roles: it was there at first
    Clock clock;
  };
  struct Word {
    const void* at;
    std::size_t bytes;
    std::vector<Value> values;
    std::size_t count = 0;  // of `values` in use; the rest keeps its memory for the next execution
    // Plain accesses.
    std::size_t writer = max_roles;
    std::uint16_t written = 0;
    std::array<std::uint16_t, max_roles> read{};
  };
  struct Role {
    Clock now;
    Clock acquirable;  // what its relaxed loads saw: an acquire fence takes it over
    Clock released;    // what its relaxed stores hand on: as of its last release fence
    Clock fenced;      // view at its last compiler fence: whoever makes everyone fence has that behind it
  };

  std::size_t find(const void* at, std::size_t bytes);
  std::size_t pick(const Role& role, std::size_t word);
  std::uint64_t take(Role& role, std::size_t word, std::size_t index, std::memory_order order);
  Value& append(std::size_t role, std::size_t word, std::uint64_t value, std::memory_order order);
  void tick(std::size_t role);
  void fail(std::string what);
  void check_order(std::size_t role, std::size_t word);
  void check_plain_write(std::size_t role, std::size_t word);
  void check_plain_read(std::size_t role, std::size_t word);
  template <class Each>
  void each_granule(const void* at, std::size_t bytes, Each each);

  std::vector<Word> words_;
  std::size_t used_ = 0;
  std::array<std::uint8_t, 1024> index_{};  // of `words_` plus 1, by a hash of the address
  std::array<Role, max_roles> roles_;
  std::size_t role_count_ = 0;
  bool membarrier_ = true;
  Clock sequential_;  // view of the last seq_cst fence
  Clock everyone_;    // view of the last everyone_fences()
  Chooser* chooser_ = nullptr;
  std::uint64_t stores_ = 0;
  std::string failure_;
  std::vector<std::pair<const void*, std::string>> names_;
};

[[nodiscard]] constexpr bool acquires(std::memory_order order) {
  return order == std::memory_order_acquire || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}
[[nodiscard]] constexpr bool releases(std::memory_order order) {
  return order == std::memory_order_release || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}

}  // namespace ackring::test::interleave
