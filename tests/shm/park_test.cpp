#include "lib/shm/park.hpp"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "lib/shm/backoff.hpp"
#include "lib/shm/environment.hpp"
#include "lib/shm/format.hpp"
#include "tests/shm/support.hpp"

using namespace ackring;
using namespace ackring::shm;
using namespace ackring::test;

namespace {

constexpr std::uint64_t ms = 1'000'000;

bool readable(const Bell& bell) {
  pollfd entry{bell.fd(), POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

}  // namespace

TEST_CASE("a ring wakes the other end and is drained") {
  auto [a, b] = Bell::make_pair();
  CHECK_FALSE(readable(b));
  CHECK_FALSE(b.wait(0));
  CHECK(a.ring());
  CHECK(readable(b));
  CHECK_FALSE(readable(a));
  CHECK(b.wait(10'000 * ms));
  CHECK_FALSE(readable(b));
  CHECK(b.ring());
  CHECK(a.ring());
  CHECK(a.drain());
  CHECK_FALSE(readable(a));
  CHECK(readable(b));
  CHECK(b.drain());
  CHECK(b.drain());
}

TEST_CASE("a full bell is rung already: ringing never blocks, one drain takes all") {
  auto [a, b] = Bell::make_pair();
  for (int i = 0; i < 100'000; ++i) REQUIRE(a.ring());
  CHECK(b.drain());
  CHECK_FALSE(readable(b));
  CHECK(a.ring());
  CHECK(b.wait(0));
}

TEST_CASE("a closed other end is told") {
  auto [a, b] = Bell::make_pair();
  { const Bell gone = std::move(b); }
  CHECK_FALSE(a.ring());
  CHECK_FALSE(a.drain());
  auto [c, d] = Bell::make_pair();
  CHECK(d.ring());
  CHECK(c.ring());
  { const Bell gone = std::move(d); }
  CHECK(c.wait(10'000 * ms));  // the last ring arrives all the same
  CHECK_FALSE(c.ring());
  CHECK_FALSE(c.drain());
  const Bell none;
  CHECK_FALSE(static_cast<bool>(none));
  CHECK_FALSE(none.ring());
  CHECK_FALSE(none.drain());
}

TEST_CASE("a wait ends after its timeout, not before; after a millisecond where the other end is closed") {
  auto [a, b] = Bell::make_pair();
  std::uint64_t start = Environment::now_ns();
  CHECK_FALSE(b.wait(20 * ms));
  CHECK(Environment::now_ns() - start >= 20 * ms);
  { const Bell gone = std::move(a); }
  start = Environment::now_ns();
  CHECK_FALSE(b.wait(10'000 * ms));
  CHECK(Environment::now_ns() - start >= ms);
  CHECK(Environment::now_ns() - start < 5'000 * ms);
  start = Environment::now_ns();
  CHECK_FALSE(b.wait(ms / 10));
  CHECK(Environment::now_ns() - start >= ms / 10);
}

TEST_CASE("a bell put under the number of a closed one wakes who waits there") {
  auto old = Bell::make_pair();
  { const Bell gone = std::move(old.first); }
  auto fresh = Bell::make_pair();
  bool moved = false;
  bool rung = false;
  std::thread successor([&] {
    moved = ::dup2(fresh.second.fd(), old.second.fd()) == old.second.fd();
    rung = fresh.first.ring();
  });
  const std::uint64_t deadline = Environment::now_ns() + 10'000 * ms;
  bool woken = false;
  while (!woken && Environment::now_ns() < deadline) woken = old.second.wait(10'000 * ms);
  CHECK(woken);
  successor.join();
  CHECK(moved);
  CHECK(rung);
}

TEST_CASE("signals neither end nor prolong a wait") {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
  auto [a, b] = Bell::make_pair();
  std::atomic<bool> done{false};
  const pthread_t waiter = ::pthread_self();
  std::thread sender([&] {
    while (!done.load(std::memory_order_seq_cst)) {
      ::pthread_kill(waiter, SIGUSR1);
      std::this_thread::yield();
    }
  });
  const std::uint64_t start = Environment::now_ns();
  CHECK_FALSE(b.wait(50 * ms));
  const std::uint64_t took = Environment::now_ns() - start;
  done.store(true, std::memory_order_seq_cst);
  sender.join();
  CHECK(took >= 50 * ms);
  CHECK(took < 5'000 * ms);
  REQUIRE(::sigaction(SIGUSR1, &before, nullptr) == 0);
}

TEST_CASE("no descriptors left: the error says which limit") {
  const std::string problem = in_child([] {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 3;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return std::string("setrlimit failed");
    return expect_error(ErrorCode::no_space, "ulimit -n", [] { (void)Bell::make_pair(); });
  });
  CHECK(problem == "");
}

namespace {

// One side makes work, the other sleeps between pieces by the protocol of park.hpp. The deadline is far, so a
// lost wake-up shows as a wait that reaches it. The sleepers spin for a changing number of rounds, so that their store
// and look meet those of the makers at all distances.
void run_park_protocol(bool fence_required, std::uint64_t rounds) {
  struct alignas(64) Side {
    Word64 work;
    Word32 parked;
  };
  Side sides[2];
  for (Side& side : sides) {
    side.work.store(0, std::memory_order_relaxed);    // relaxed: before the threads start
    side.parked.store(0, std::memory_order_relaxed);  // relaxed: before the threads start
  }
  auto bells = Bell::make_pair();
  const Bell* ends[2] = {&bells.first, &bells.second};
  std::uint64_t parks[2] = {0, 0};
  std::atomic<bool> lost{false};

  auto make_work = [&](int to, std::uint64_t n) {
    sides[to].work.store(n, std::memory_order_release);  // release(park_test.work): nothing but the number
    fence_for_waker(fence_required);
    // relaxed: ordered behind the store by the fence, or by the parker's barrier
    if (sides[to].parked.load(std::memory_order_relaxed) != 0) (void)ends[1 - to]->ring();
  };
  auto await_work = [&](int me, std::uint64_t n) {
    // acquire(park_test.work): nothing but the number
    auto there = [&] { return sides[me].work.load(std::memory_order_acquire) >= n; };
    Backoff backoff({.spins = static_cast<std::uint32_t>(n * 7 % 50)});
    while (!there()) {
      if (lost.load(std::memory_order_seq_cst)) return;
      if (backoff.wait() != Backoff::Step::park) continue;
      sides[me].parked.store(1, std::memory_order_relaxed);  // relaxed: the barrier orders it
      barrier_for_parker();
      if (!there()) {
        ++parks[me];
        if (!ends[me]->wait(20'000 * ms)) lost.store(true, std::memory_order_seq_cst);
      }
      sides[me].parked.store(0, std::memory_order_relaxed);  // relaxed: too late is a ring too many
    }
  };
  std::thread other([&] {
    for (std::uint64_t n = 1; n <= rounds; ++n) {
      await_work(1, n);
      make_work(0, n);
    }
  });
  for (std::uint64_t n = 1; n <= rounds; ++n) {
    make_work(1, n);
    await_work(0, n);
  }
  other.join();
  CHECK_FALSE(lost.load(std::memory_order_seq_cst));
  CHECK(parks[0] + parks[1] > 0);
}

}  // namespace

TEST_CASE("park protocol with membarrier loses no wake-up") {
  if (!register_membarrier()) {
    MESSAGE("skipped: this kernel has no membarrier");
    return;
  }
  CHECK(register_membarrier());
  run_park_protocol(false, 30'000);
}

TEST_CASE("park protocol with fences loses no wake-up") { run_park_protocol(true, 30'000); }

namespace {

// The heart of the protocol as a litmus test: of a parker's "parked, then look for work" and a maker's "work, then look
// for parked", at least one must see the other. Returns how often neither did; without barriers that is not rare.
std::uint64_t count_blind_rounds(bool fence_required, std::uint64_t rounds) {
  struct Lines {
    alignas(64) Word64 work;
    alignas(64) Word64 parked;
    alignas(64) std::atomic<std::uint64_t> maker_at;
    alignas(64) std::atomic<std::uint64_t> parker_at;
  };
  Lines lines;
  lines.work.store(0, std::memory_order_relaxed);    // relaxed: before the threads start
  lines.parked.store(0, std::memory_order_relaxed);  // relaxed: before the threads start
  lines.maker_at.store(0, std::memory_order_seq_cst);
  lines.parker_at.store(0, std::memory_order_seq_cst);
  std::vector<char> maker_saw(rounds + 1);
  std::vector<char> parker_saw(rounds + 1);
  auto meet = [](std::atomic<std::uint64_t>& mine, const std::atomic<std::uint64_t>& theirs, std::uint64_t n,
                 std::uint64_t delay) {
    mine.store(n, std::memory_order_seq_cst);
    Backoff backoff({.spins = 2'000});
    while (theirs.load(std::memory_order_seq_cst) < n) {
      if (backoff.wait() == Backoff::Step::park) std::this_thread::yield();
    }
    for (std::uint64_t i = 0; i < delay; ++i) cpu_relax();
  };
  std::thread maker([&] {
    for (std::uint64_t n = 1; n <= rounds; ++n) {
      meet(lines.maker_at, lines.parker_at, n, n % 5);
      lines.work.store(n, std::memory_order_relaxed);  // relaxed: the fence is what is tested
      fence_for_waker(fence_required);
      maker_saw[n] = lines.parked.load(std::memory_order_relaxed) >= n;  // relaxed: see above
    }
  });
  for (std::uint64_t n = 1; n <= rounds; ++n) {
    meet(lines.parker_at, lines.maker_at, n, n % 3);
    lines.parked.store(n, std::memory_order_relaxed);  // relaxed: the barrier is what is tested
    barrier_for_parker();
    parker_saw[n] = lines.work.load(std::memory_order_relaxed) >= n;  // relaxed: see above
  }
  maker.join();
  std::uint64_t blind = 0;
  for (std::uint64_t n = 1; n <= rounds; ++n) blind += maker_saw[n] == 0 && parker_saw[n] == 0;
  return blind;
}

}  // namespace

TEST_CASE("of a parker and a maker at least one sees the other") {
  if (register_membarrier()) CHECK(count_blind_rounds(false, 30'000) == 0);
  CHECK(count_blind_rounds(true, 30'000) == 0);
}
