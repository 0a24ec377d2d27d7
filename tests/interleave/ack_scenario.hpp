// A member, an exchange and an ack page of two slots: what the scenarios of the ack table have in common.
//
// The exchange writes each delivery's bytes into one of two places, publishes it by a tail, and writes there again when
// the delivery before is settled and let go: bytes that are used too early show as a data race. The member's threads do
// what a list of steps says.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "lib/ring/ack_table.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {

using ring::Verdict;

/// What a thread of the member does with an entry. `take` also reads its bytes.
enum class Act { take, take_unread, read, ack, nack, reject, extend, through, detach, late_ack, signal, wait };
struct Step {
  Act act;
  std::uint64_t entry;  // signal, wait: a number that grows
};
using Steps = std::vector<Step>;

/// How the exchange looks at the page; the last ones are wrong.
enum class Looks { in_order, refused_first, taken_first, passes_what_is_not_let_go };

class AckScenario : public Scenario {
 public:
  struct Plan {
    std::uint64_t start = 0;          // first entry
    Steps taker;                      // entries count from `start`
    Steps worker = {};                // of a second thread; empty: there is none
    std::vector<Verdict> outcome;     // of each entry; none: timed out
    bool at_most_once = false;        // `taken` settles; the bytes are free when the next one is taken
    bool outcome_may_differ = false;  // of entries that two threads decide at once
    Looks looks = Looks::in_order;
  };
  explicit AckScenario(Plan plan);

  [[nodiscard]] std::vector<std::string> roles() const override;
  void reset() override;
  void run(std::size_t role) override;
  void finish() override;

 private:
  static constexpr std::uint64_t slots = 2;

  void member(const Steps& steps);
  void step(const Step& step);
  void exchange();
  bool deliver();
  bool settle();
  bool settle_at_most_once();
  void settled(std::uint64_t entry, Verdict verdict);
  void read_bytes(std::uint64_t entry);
  [[nodiscard]] shm::AckPage& page() { return *reinterpret_cast<shm::AckPage*>(memory_.data()); }

  Plan plan_;
  std::uint64_t end_;  // entry behind the last one
  alignas(4096) std::array<std::byte, ring::ack_page_bytes(slots)> memory_{};
  alignas(64) std::array<std::uint64_t, slots> bytes_{};
  alignas(64) shm::Word64 tail_;
  alignas(64) shm::Word64 handed_over_;  // between the member's threads
  ring::AckWriter writer_;
  // The exchange's own.
  ring::AckReader reader_;
  std::uint64_t entries_ = 0;
  std::uint64_t floor_ = 0;
  std::vector<Verdict> settled_;
};

}  // namespace ackring::test::interleave
