// Park and wake: whoever sleeps is woken by what comes afterwards, in each of the three ways in which the two sides can
// have their barriers.
#include <doctest/doctest.h>

#include <array>

#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/park.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

// What is wrong with the sleeping side, or with the waking one.
enum class Mistake { none, no_second_look, says_so_after_the_look, looks_at_parked_first };

// The two words of one direction, and what the sockets between the two processes hold.
struct Side {
  alignas(64) shm::Word64 work;    // stands for a tail, or for `consumed`
  alignas(64) shm::Word32 parked;  // the one that waits for `work` sleeps
  bool bell = false;
  void reset() {
    work.store(0, std::memory_order_relaxed);
    parked.store(0, std::memory_order_relaxed);
    bell = false;
  }
};

class ParkScenario : public Scenario {
 public:
  ParkScenario(bool fence_required, Mistake mistake) : fence_required_(fence_required), mistake_(mistake) {}

 protected:
  // As PublisherEndpoint::publish_tail, Exchange::commit_ingress and others do.
  void make_work(Side& side, std::uint64_t value) {
    if (mistake_ == Mistake::looks_at_parked_first) {
      const bool parked = side.parked.load(std::memory_order_relaxed) != 0;
      shm::fence_for_waker(fence_required_);
      side.work.store(value, std::memory_order_release);
      if (parked) side.bell = true;
      return;
    }
    side.work.store(value, std::memory_order_release);
    shm::fence_for_waker(fence_required_);
    if (side.parked.load(std::memory_order_relaxed) != 0) side.bell = true;
  }

  // As Member::wait_for_record, PublisherEndpoint::wait_until and Exchange::prepare_park do. `look` is true if there is
  // something to do.
  template <class Look>
  void wait_for(std::initializer_list<Side*> sides, bool& bell, Look look) {
    while (!look()) {
      if (mistake_ == Mistake::says_so_after_the_look) {
        shm::barrier_for_parker();
        const bool there = look();
        for (Side* side : sides) side->parked.store(1, std::memory_order_relaxed);
        if (!there) sleep(bell);
      } else {
        for (Side* side : sides) side->parked.store(1, std::memory_order_relaxed);
        shm::barrier_for_parker();
        if (mistake_ == Mistake::no_second_look || !look()) sleep(bell);
      }
      for (Side* side : sides) side->parked.store(0, std::memory_order_relaxed);
    }
  }

 private:
  bool fence_required_;
  Mistake mistake_;
};

// One makes work three times, the other sleeps whenever it has done all that it sees.
class OneSleeps final : public ParkScenario {
 public:
  explicit OneSleeps(bool fence_required, Mistake mistake = Mistake::none) : ParkScenario(fence_required, mistake) {
    name(&side_.work, "work");
    name(&side_.parked, "parked");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"waker", "sleeper"}; }
  void reset() override { side_.reset(); }
  void run(std::size_t role) override {
    constexpr std::uint64_t pieces = 3;
    if (role == 0) {
      for (std::uint64_t piece = 1; piece <= pieces; ++piece) make_work(side_, piece);
      return;
    }
    for (std::uint64_t done = 0; done < pieces;) {
      std::uint64_t there = 0;
      wait_for({&side_}, side_.bell, [&] { return (there = side_.work.load(std::memory_order_acquire)) != done; });
      expect(there > done, "work goes backwards");
      done = there;
    }
  }

 private:
  Side side_;
};

// A publisher that sleeps while its ring (of one record) is full, and an exchange that sleeps while it is empty.
class BothSleep final : public ParkScenario {
 public:
  explicit BothSleep(bool fence_required, Mistake mistake = Mistake::none) : ParkScenario(fence_required, mistake) {
    name(&tail_.work, "tail");
    name(&tail_.parked, "not_polled");
    name(&consumed_.work, "consumed");
    name(&consumed_.parked, "parked");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"publisher", "exchange"}; }
  void reset() override {
    tail_.reset();
    consumed_.reset();
  }
  void run(std::size_t role) override {
    constexpr std::uint64_t events = 2;
    for (std::uint64_t event = 0; event < events; ++event) {
      if (role == 0) {
        wait_for({&consumed_}, consumed_.bell, [&] { return consumed_.work.load(std::memory_order_acquire) == event; });
        make_work(tail_, event + 1);
      } else {
        wait_for({&tail_}, tail_.bell, [&] { return tail_.work.load(std::memory_order_acquire) != event; });
        make_work(consumed_, event + 1);
      }
    }
  }

 private:
  Side tail_;
  Side consumed_;
};

// An exchange that sleeps until either of two publishers has something: one barrier for both of its words.
class TwoWakers final : public ParkScenario {
 public:
  explicit TwoWakers(bool fence_required, Mistake mistake = Mistake::none) : ParkScenario(fence_required, mistake) {
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      name(&sides_[i].work, i == 0 ? "first tail" : "second tail");
      name(&sides_[i].parked, i == 0 ? "first not_polled" : "second not_polled");
    }
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"exchange", "first", "second"}; }
  void reset() override {
    for (Side& side : sides_) side.reset();
    bell_ = false;
  }
  void run(std::size_t role) override {
    if (role != 0) {
      Side& side = sides_[role - 1];
      make_work(side, 1);
      if (side.bell) bell_ = true;  // the exchange sleeps on all its bells at once
      return;
    }
    std::uint64_t done = 0;
    const auto look = [&] {
      return sides_[0].work.load(std::memory_order_acquire) + sides_[1].work.load(std::memory_order_acquire) != done;
    };
    while (done != 2) {
      wait_for({&sides_[0], &sides_[1]}, bell_, look);
      done = sides_[0].work.load(std::memory_order_acquire) + sides_[1].work.load(std::memory_order_acquire);
    }
  }

 private:
  std::array<Side, 2> sides_;
  bool bell_ = false;
};

// Which barriers the two sides have.
struct Barriers {
  const char* name;
  bool membarrier;
  bool fence_required;
};
// The last: a process without membarrier made the exchange ask for fences; this one has it all the same.
constexpr std::array<Barriers, 3> good_barriers{
    Barriers{"membarrier", true, false}, {"fences", false, true}, {"membarrier against fences", true, true}};

template <class Parks>
void check_with_all_barriers(const std::string& title, Bounds bounds) {
  for (const Barriers& barriers : good_barriers) {
    Parks scenario(barriers.fence_required);
    bounds.membarrier = barriers.membarrier;
    check_all((title + ", " + barriers.name).c_str(), scenario, bounds);
  }
}

TEST_CASE("park: one side sleeps") { check_with_all_barriers<OneSleeps>("park, one sleeps", {.preemptions = 3}); }
TEST_CASE("park: both sides sleep") { check_with_all_barriers<BothSleep>("park, both sleep", {.preemptions = 3}); }
TEST_CASE("park: two wakers") { check_with_all_barriers<TwoWakers>("park, two wakers", {}); }

TEST_CASE("park canaries") {
  OneSleeps no_barrier(false);
  check_caught("park, neither membarrier nor fences", no_barrier, "wake-up was lost", {.membarrier = false});
  BothSleep neither(false);
  check_caught("park, neither, both sleep", neither, "wake-up was lost", {.membarrier = false});
  for (const Mistake mistake :
       {Mistake::no_second_look, Mistake::says_so_after_the_look, Mistake::looks_at_parked_first}) {
    OneSleeps wrong(false, mistake);
    check_caught("park, wrong order", wrong, "wake-up was lost");
    TwoWakers wrong_with_two(true, mistake);
    check_caught("park, wrong order with two wakers", wrong_with_two, "wake-up was lost", {.membarrier = false});
  }
}

}  // namespace
}  // namespace ackring::test::interleave
