// Explorer: runs the roles of a scenario as fibres, again and again, until every way in which they can come to interleave
// was tried: depth first, with a bound on preemptions (as CHESS has it, "Iterative context bounding", PLDI 2007) and one on
// the loads that return an older value than the newest.
//
// Every access of the core to shared memory (lib/shm/memory.hpp) is a point where another role may go on, and each load
// chooses among the values of model.hpp. A run is a list of choices; replaying the list replays the run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/shm/memory.hpp"
#include "tests/interleave/fibre.hpp"
#include "tests/interleave/model.hpp"

namespace ackring::test::interleave {

struct Bounds {
  unsigned preemptions = 2;  // $ACKRING_PREEMPTIONS adds to it
  unsigned old_values = 2;   // $ACKRING_OLD_VALUES adds to it
  bool membarrier = true;    // does the system have it?
};

struct Result {
  std::uint64_t executions = 0;
  bool exhausted = false;  // false: $ACKRING_EXECUTIONS were not enough, or one failed
  std::string failure;     // empty: none failed
  std::string trace;       // of the one that failed: for $ACKRING_REPLAY
  std::string story;       // what it did, step by step
};

class Explorer;

/// What the roles share, and what they do. One object serves all executions.
class Scenario {
 public:
  virtual ~Scenario() = default;
  [[nodiscard]] virtual std::vector<std::string> roles() const = 0;
  /// Before each execution: memory as it was at first. Not explored.
  virtual void reset() = 0;
  virtual void run(std::size_t role) = 0;
  /// When all roles have ended. Not explored.
  virtual void finish() {}

 protected:
  /// Ends the execution as failed unless `so`.
  void expect(bool so, const char* what);
  /// There is nothing to do for this role: another one goes on until something was stored. Bounds loops that poll.
  void pause();
  /// This role sleeps until `flag` is set, and clears it. All asleep: a wake-up was lost.
  void sleep(bool& flag);
  /// Names a word, or the bytes behind `at`, for messages. For the constructor.
  void name(const void* at, const char* text) { named_.emplace_back(at, text); }

 private:
  friend class Explorer;
  Explorer* explorer_ = nullptr;
  std::vector<std::pair<const void*, const char*>> named_;
};

class Explorer final : public shm::MemoryHook, private Chooser {
 public:
  Explorer(const char* title, Scenario& scenario, const Bounds& bounds);
  ~Explorer() override;
  Explorer(const Explorer&) = delete;
  Explorer& operator=(const Explorer&) = delete;

  /// All executions within the bounds, up to the first that fails. Prints how many they were.
  Result explore();

  // The core's accesses.
  std::uint64_t load(const void* word, std::size_t bytes, std::memory_order order) override;
  void store(void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) override;
  std::uint64_t fetch_add(void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) override;
  bool exchange_if(void* word, std::size_t bytes, std::uint64_t& expected, std::uint64_t desired,
                   std::memory_order order) override;
  void fence(std::memory_order order) override;
  void compiler_fence(std::memory_order order) override;
  bool everyone_fences() override;
  void write(void* to, const void* from, std::size_t bytes) override;
  void read(const void* from, std::size_t bytes) override;
  void read_changing(void* to, const void* from, std::size_t bytes) override;

 private:
  friend class Scenario;
  enum class State : std::uint8_t { ready, paused, asleep, ended };
  struct Role {
    State state = State::ready;
    std::uint64_t seen_stores = 0;  // paused: until there are more
    bool newest_only = false;       // paused with nobody left to store anything: the next loads see the newest values
    bool in_vain = false;           // paused though its loads saw the newest values
    const bool* flag = nullptr;     // asleep: until it is set
  };
  struct Choice {
    std::uint8_t chosen;
    std::uint8_t options;
  };

  std::size_t choose(std::size_t options);
  std::size_t choose_value(std::size_t options) override;
  void execute();
  bool next();
  void point();
  void yield(State state);
  void go_on_with(std::size_t role);
  [[nodiscard]] bool can_run(std::size_t role) const;
  void give_up(std::string why);
  void check_memory();
  void tell(const char* what, const void* at, std::uint64_t value);
  void replay(const std::string& trace, Result& result);
  [[nodiscard]] std::string trace() const;

  const char* title_;
  Scenario& scenario_;
  Bounds bounds_;
  std::vector<std::string> names_;
  Model memory_;
  std::unique_ptr<Fibres> fibres_;
  std::vector<Role> roles_;
  std::size_t current_ = 0;
  std::vector<Choice> choices_;
  std::size_t position_ = 0;
  unsigned preemptions_ = 0;  // left in this execution
  unsigned old_values_ = 0;   // as above
  std::uint64_t steps_ = 0;
  std::string failure_;
  const std::string* replayed_ = nullptr;
  std::string* story_ = nullptr;
};

/// explore() of a scenario that must hold: fails the test with the story of the execution that did not.
void check_all(const char* title, Scenario& scenario, const Bounds& bounds = {});
/// explore() of a scenario that has a mistake: fails the test unless an execution fails with a message that has `why` in it.
void check_caught(const char* title, Scenario& scenario, const char* why, const Bounds& bounds = {});

}  // namespace ackring::test::interleave
