// Park and wake between a publisher and several shards that read its ring: nobody sleeps for ever, in each of the three ways
// in which the two sides can have their barriers.
//
// What shards do is played as docs/decisions/0009-shards.md has it; the publisher's minimum is that of lib/ring.
#include <doctest/doctest.h>

#include <array>
#include <initializer_list>
#include <string>
#include <utility>

#include "lib/ring/consumed.hpp"
#include "lib/shm/park.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

constexpr std::uint32_t lead_only = 1;
constexpr std::uint32_t with_follower = 3;

enum class Mistake {
  none,
  no_second_look,
  says_so_after_the_look,
  looks_before_the_work,
  leaves_without_a_look,  // a shard leaves the mask, and nobody looks whether the publisher slept because of it
  bits_stored,            // not_polled is stored, not added to
  ring_kept,              // the lead does not pass on what the publisher rang for
};

class ShardsPark : public Scenario {
 public:
  ShardsPark(bool fence_required, Mistake mistake) : mistake_(mistake), fence_required_(fence_required) {}

 protected:
  // As PublisherEndpoint::wait_until and Exchange::prepare_park do. `say(true)`: it sleeps; `look()`: there is something.
  template <class Say, class Look>
  void park(Say say, Look look, bool& bell) {
    const bool late = mistake_ == Mistake::says_so_after_the_look;
    if (!late) say(true);
    shm::barrier_for_parker();
    const bool there = mistake_ != Mistake::no_second_look && look();
    if (late) say(true);
    if (!there) sleep(bell);
    say(false);
  }
  // As PublisherEndpoint::publish_tail and Exchange::commit_ingress do. True: somebody sleeps.
  template <class Store>
  [[nodiscard]] bool make_work(Store store, const shm::Word32& asleep) {
    const bool early = mistake_ == Mistake::looks_before_the_work;
    bool found = early && asleep.load(std::memory_order_relaxed) != 0;
    if (!early) store();
    shm::fence_for_waker(fence_required_);
    if (early) {
      store();
    } else {
      found = asleep.load(std::memory_order_relaxed) != 0;
    }
    return found;
  }

  Mistake mistake_;

 private:
  bool fence_required_;
};

// A publisher that sleeps until the last of two shards has moved: each wakes it, as none knows which is the last.
class PublisherSleeps : public ShardsPark {
 public:
  explicit PublisherSleeps(bool fence_required, Mistake mistake = Mistake::none, bool leaves = false)
      : ShardsPark(fence_required, mistake), leaves_(leaves) {
    name(&cursor_.shards[0].consumed, "lead's consumed");
    name(&cursor_.shards[1].consumed, "follower's consumed");
    name(&shards_, "shards");
    name(&parked_, "parked");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"publisher", "lead", "follower"}; }
  void reset() override {
    for (shm::ShardCursor& shard : cursor_.shards) shard.consumed.store(0, std::memory_order_relaxed);
    shards_.store(with_follower, std::memory_order_relaxed);
    parked_.store(0, std::memory_order_relaxed);
    bell_ = false;
  }
  void run(std::size_t role) override {
    if (role == 0) return publisher();
    const std::uint64_t moves = leaves_ && role == 2 ? pieces - 1 : pieces;
    for (std::uint64_t piece = 1; piece <= moves; ++piece) {
      wake([&] { cursor_.shards[role - 1].consumed.store(piece, std::memory_order_release); });
    }
    if (!leaves_ || role == 2) return;
    // The minimum moves with the mask, too.
    const auto leave = [&] { shards_.store(lead_only, std::memory_order_release); };
    if (mistake_ == Mistake::leaves_without_a_look) {
      leave();
    } else {
      wake(leave);
    }
  }

 private:
  static constexpr std::uint64_t pieces = 2;

  template <class Store>
  void wake(Store store) {
    if (make_work(store, parked_)) bell_ = true;
  }

  void publisher() {
    for (std::uint64_t seen = 0; seen != pieces;) {
      const auto moved = [&] { return ring::consumed_by_all(cursor_, shards_) != seen; };
      while (!moved()) park([&](bool so) { parked_.store(so ? 1 : 0, std::memory_order_relaxed); }, moved, bell_);
      seen = ring::consumed_by_all(cursor_, shards_);
    }
  }

  bool leaves_;
  shm::IngressCursor cursor_{};
  alignas(64) shm::Word32 shards_;
  alignas(64) shm::Word32 parked_;
  bool bell_ = false;
};

// The follower is behind, and leaves: what the publisher slept for is not there any more.
class ShardLeaves final : public PublisherSleeps {
 public:
  explicit ShardLeaves(bool fence_required, Mistake mistake = Mistake::none)
      : PublisherSleeps(fence_required, mistake, true) {}
};

// Two shards that sleep, each with a bit of its own in one word; the publisher's bell is heard by the lead, which wakes
// the follower if its bit is set.
class ShardsSleep final : public ShardsPark {
 public:
  explicit ShardsSleep(bool fence_required, Mistake mistake = Mistake::none) : ShardsPark(fence_required, mistake) {
    name(&tail_, "tail");
    name(&not_polled_, "not_polled");
    name(&socket_, "socket");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"publisher", "lead", "follower"}; }
  void reset() override {
    tail_.store(0, std::memory_order_relaxed);
    not_polled_.store(0, std::memory_order_relaxed);
    socket_.store(0, std::memory_order_relaxed);
    bells_ = {};
    all_seen_ = false;
  }
  void run(std::size_t role) override {
    if (role == 0) return publish();
    const std::size_t shard = role - 1;
    std::uint64_t seen = 0;
    const auto look = [&] { return tail_.load(std::memory_order_acquire) != seen; };
    // The lead listens as long as the follower needs it.
    while (seen != events || (shard == 0 && !all_seen_)) {
      if (shard == 0) listen();
      if (look()) {
        seen = tail_.load(std::memory_order_acquire);
      } else {
        park([&](bool so) { say(shard, so); }, look, bells_[shard]);
        if (shard == 0) pass_on();
      }
    }
    if (shard == 1) all_seen_ = bells_[0] = true;
  }

 private:
  static constexpr std::uint64_t events = 2;

  void publish() {
    for (std::uint64_t event = 1; event <= events; ++event) {
      if (!make_work([&] { tail_.store(event, std::memory_order_release); }, not_polled_)) continue;
      socket_.fetch_add(1, std::memory_order_release);  // the kernel's lock: who hears the bell has what was before it
      bells_[0] = true;
    }
  }

  // As Exchange::prepare_park and unpark will.
  void say(std::size_t shard, bool sleeps) {
    const std::uint32_t bit = 1u << shard;
    if (mistake_ == Mistake::bits_stored) {
      not_polled_.store(sleeps ? bit : 0, std::memory_order_relaxed);
    } else {
      not_polled_.fetch_add(sleeps ? bit : 0 - bit, std::memory_order_relaxed);
    }
  }

  // One that is awake looks at its sockets now and then.
  void listen() {
    if (std::exchange(bells_[0], false)) pass_on();
  }

  // As Service::rang_publisher will.
  void pass_on() {
    socket_.fetch_add(0, std::memory_order_acquire);
    if (mistake_ == Mistake::ring_kept) return;
    if ((not_polled_.load(std::memory_order_relaxed) & 2) != 0) bells_[1] = true;
  }

  alignas(64) shm::Word64 tail_;
  alignas(64) shm::Word32 not_polled_;
  alignas(64) shm::Word64 socket_;
  std::array<bool, 2> bells_{};
  bool all_seen_ = false;
};

// Which barriers the two sides have, as in park_test.cpp.
struct Barriers {
  const char* name;
  bool membarrier;
  bool fence_required;
};
constexpr std::array<Barriers, 3> good_barriers{
    Barriers{"membarrier", true, false}, {"fences", false, true}, {"membarrier against fences", true, true}};

template <class Parks>
void check_with_all_barriers(const std::string& title) {
  for (const Barriers& barriers : good_barriers) {
    Parks scenario(barriers.fence_required);
    Bounds bounds{.preemptions = 2, .old_values = 1};
    bounds.membarrier = barriers.membarrier;
    check_all((title + ", " + barriers.name).c_str(), scenario, bounds);
  }
}

template <class Parks>
void check_lost(const std::string& title, std::initializer_list<Mistake> mistakes) {
  Parks no_barrier(false);
  check_caught((title + ", neither membarrier nor fences").c_str(), no_barrier, "wake-up was lost",
               {.membarrier = false});
  for (const Mistake mistake : mistakes) {
    for (const bool fences : {false, true}) {
      Parks wrong(fences, mistake);
      check_caught((title + ", wrong").c_str(), wrong, "wake-up was lost", {.membarrier = !fences});
    }
  }
}

TEST_CASE("shards park: the publisher sleeps") { check_with_all_barriers<PublisherSleeps>("shards, publisher sleeps"); }
TEST_CASE("shards park: the publisher sleeps, and a shard leaves") {
  check_with_all_barriers<ShardLeaves>("shards, one leaves a sleeping publisher");
}
TEST_CASE("shards park: two shards sleep") { check_with_all_barriers<ShardsSleep>("shards, two sleep"); }

TEST_CASE("shards park canaries") {
  using enum Mistake;
  check_lost<PublisherSleeps>("shards, publisher sleeps",
                              {no_second_look, says_so_after_the_look, looks_before_the_work});
  check_lost<ShardLeaves>("shards, one leaves", {leaves_without_a_look, looks_before_the_work});
  check_lost<ShardsSleep>("shards, two sleep",
                          {no_second_look, says_so_after_the_look, looks_before_the_work, ring_kept});
  ShardsSleep stored(false, bits_stored);
  check_caught("shards, bits stored", stored, "nothing orders the stores of two roles to not_polled");
}

}  // namespace
}  // namespace ackring::test::interleave
