// Revoke against take: of what the exchange takes back while the member takes, each delivery goes to one of the two.
#include <doctest/doctest.h>

#include <array>

#include "lib/ring/ack_table.hpp"
#include "lib/shm/park.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

enum class Mistake { none, revoked_before_taken, taken_before_revoked };

class RevokeScenario final : public Scenario {
 public:
  explicit RevokeScenario(bool fence_required, Mistake mistake = Mistake::none)
      : fence_required_(fence_required), mistake_(mistake) {
    name(&page().taken, "taken");
    name(&revoked_, "revoked");
    name(&page().refused, "refused");
    name(memory_.data() + shm::page_bytes, "words");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"exchange", "member"}; }
  void reset() override {
    std::memset(memory_.data() + shm::page_bytes, 0, slots * sizeof(shm::Word64));
    page().slots = slots;
    for (shm::Word64* word : {&page().taken, &page().released, &page().acked_through, &page().refused, &revoked_}) {
      word->store(0, std::memory_order_relaxed);
    }
    writer_ = ring::AckWriter(&page());
    reader_ = ring::AckReader(&page(), slots);
    used_ = taken_back_ = {};
  }
  void run(std::size_t role) override { role == 0 ? revoke() : take(); }
  void finish() override {
    for (std::uint64_t entry = 0; entry < entries; ++entry) {
      const bool returned = reader_.verdict(entry) == ring::Verdict::returned;
      expect(used_[entry] + (taken_back_[entry] || returned ? 1 : 0) == 1, "a delivery has two owners, or none");
    }
  }

 private:
  static constexpr std::uint64_t slots = 4;
  static constexpr std::uint64_t entries = 3;

  // As Exchange::revoke does.
  void revoke() {
    std::uint64_t taken = mistake_ == Mistake::taken_before_revoked ? reader_.taken() : 0;
    revoked_.store(entries, std::memory_order_relaxed);
    shm::barrier_for_parker();
    if (mistake_ != Mistake::taken_before_revoked) taken = reader_.taken();
    for (std::uint64_t entry = taken; entry < entries; ++entry) taken_back_[entry] = 1;
  }

  // As Member::collect and Member::give_back_revoked do.
  void take() {
    for (std::uint64_t entry = 0; entry < entries; ++entry) {
      std::uint64_t revoked = 0;
      if (mistake_ == Mistake::revoked_before_taken) {
        revoked = revoked_.load(std::memory_order_relaxed);
        shm::fence_for_waker(fence_required_);
        writer_.taken(entry + 1);
      } else {
        writer_.taken(entry + 1);
        shm::fence_for_waker(fence_required_);
        revoked = revoked_.load(std::memory_order_relaxed);
      }
      if (revoked > entry) {
        expect(writer_.verdict(entry, ring::Verdict::returned), "a verdict is refused");
      } else {
        used_[entry] = 1;
      }
    }
  }

  [[nodiscard]] shm::AckPage& page() { return *reinterpret_cast<shm::AckPage*>(memory_.data()); }

  bool fence_required_;
  Mistake mistake_;
  alignas(4096) std::array<std::byte, ring::ack_page_bytes(slots)> memory_{};
  alignas(64) shm::Word64 revoked_;
  ring::AckWriter writer_;
  ring::AckReader reader_;
  std::array<int, entries> used_{};
  std::array<int, entries> taken_back_{};
};

TEST_CASE("revoke against take") {
  for (const bool fences : {false, true}) {
    RevokeScenario scenario(fences);
    check_all(fences ? "revoke, fences" : "revoke, membarrier", scenario,
              {.preemptions = 4, .old_values = 3, .membarrier = !fences});
  }
}

TEST_CASE("revoke canaries") {
  RevokeScenario no_barrier(false);
  check_caught("revoke, neither membarrier nor fences", no_barrier, "two owners", {.membarrier = false});
  RevokeScenario member_first(false, Mistake::revoked_before_taken);
  check_caught("revoke, the member looks before it takes", member_first, "two owners");
  RevokeScenario exchange_first(true, Mistake::taken_before_revoked);
  check_caught("revoke, the exchange looks before it revokes", exchange_first, "two owners", {.membarrier = false});
}

}  // namespace
}  // namespace ackring::test::interleave
