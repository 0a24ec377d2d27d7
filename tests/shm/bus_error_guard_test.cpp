// Files that become shorter while they are mapped (F24).
#include "lib/shm/bus_error_guard.hpp"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include "lib/shm/segment.hpp"
#include "tests/shm/support.hpp"

using namespace ackring;
using namespace ackring::shm;
using namespace ackring::test;

namespace {

constexpr std::size_t page = page_bytes;

Segment made(MemoryDirectory& directory, const std::string& name, SegmentKind kind = SegmentKind::ingress_ring) {
  return Segment::create(directory, name, kind, 8 * page, 1, 0,
                         [](std::byte* base) { base[5 * page] = std::byte{42}; });
}

Segment attached(MemoryDirectory& directory, const std::string& name, SegmentKind kind = SegmentKind::ingress_ring) {
  return Segment::attach(directory, name, kind, Access::read_only);
}

void cut(MemoryDirectory& directory, const std::string& name, std::size_t bytes) {
  REQUIRE(::ftruncate(directory.open(name, true).get(), static_cast<off_t>(bytes)) == 0);
}

int look(const Segment& segment, std::size_t offset) {
  return static_cast<int>(*const_cast<const volatile std::byte*>(segment.data() + offset));
}

// A mapping that nobody guards, of a file that is shorter: reading it is a bus error.
const volatile char* broken_mapping() {
  const UniqueFd fd(::memfd_create("short", MFD_CLOEXEC));
  void* const at = ::mmap(nullptr, page, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) throw std::runtime_error("mmap");
  return static_cast<const volatile char*>(at);
}

}  // namespace

// The handler is installed once per process, so this comes first, and each part is a child of its own.
TEST_CASE("other bus errors end the process, as without the guard, or go to the handler that was there before") {
  REQUIRE_FALSE(bus_errors_guarded());
  // A sanitizer has a handler of its own, which says what happened and exits.
  const auto ends = [](const std::string& how) {
    return how == "signal " + std::to_string(SIGBUS) || how.starts_with("exit status");
  };
  CHECK(ends(in_child([] {
    guard_bus_errors();
    return std::string(*broken_mapping() == 0 ? "it was read" : "");
  })));
  CHECK(ends(in_child([] {
    guard_bus_errors();
    ::raise(SIGBUS);
    return std::string("it was ignored");
  })));
  CHECK(in_child([] {
          ::signal(SIGBUS, SIG_IGN);
          guard_bus_errors();
          ::raise(SIGBUS);
          return std::string();
        }).empty());
  static volatile std::sig_atomic_t asked = 0;
  CHECK(in_child([] {
          ::signal(SIGBUS, [](int) { asked = asked + 1; });
          guard_bus_errors();
          ::raise(SIGBUS);
          MemoryDirectory directory;
          const Segment owner = made(directory, "s");
          const Segment segment = attached(directory, "s");
          if (::ftruncate(directory.open("s", true).get(), page) != 0) return std::string("ftruncate");
          if (look(segment, 5 * page) != 0 || !segment.cut_short()) return std::string("it was not guarded");
          return std::string(asked == 1 ? "" : "asked not once, but " + std::to_string(asked) + " times");
        }).empty());
  CHECK(in_child([] {
          struct sigaction action {};
          action.sa_flags = SA_SIGINFO;
          action.sa_sigaction = [](int, siginfo_t* info, void*) { ::_exit(info->si_code == BUS_ADRERR ? 42 : 1); };
          ::sigaction(SIGBUS, &action, nullptr);
          guard_bus_errors();
          return std::string(*broken_mapping() == 0 ? "it was read" : "");
        }).starts_with("exit status 42"));
}

TEST_CASE("where a thread blocks SIGBUS, unblock_bus_errors() lets the guard do its work") {
  CHECK(in_child([] {
          guard_bus_errors();
          sigset_t blocked;
          ::sigemptyset(&blocked);
          ::sigaddset(&blocked, SIGBUS);
          ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
          unblock_bus_errors();
          MemoryDirectory directory;
          const Segment owner = made(directory, "s");
          const Segment segment = attached(directory, "s");
          if (::ftruncate(directory.open("s", true).get(), page) != 0) return std::string("ftruncate");
          return std::string(look(segment, 5 * page) == 0 && segment.cut_short() ? "" : "it was not guarded");
        }).empty());
}

TEST_CASE("a file that is cut short reads as zeros, all of it, and says so; its neighbours stay as they are (F24)") {
  guard_bus_errors();
  CHECK(bus_errors_guarded());
  MemoryDirectory directory;
  for (const SegmentKind kind : {SegmentKind::ingress_ring, SegmentKind::ack_page}) {
    const Segment keep = made(directory, "keep", kind);
    const Segment lose = made(directory, "lose", kind);
    const Segment kept = attached(directory, "keep", kind);
    const Segment lost = attached(directory, "lose", kind);
    CHECK(look(lost, 5 * page) == 42);
    const std::uint64_t before = bus_errors();
    cut(directory, "lose", 2 * page);
    CHECK(lost.header().magic.load(std::memory_order_relaxed) == segment_magic);  // what is left is there
    CHECK_FALSE(lost.cut_short());
    CHECK(look(lost, 5 * page) == 0);
    CHECK(lost.cut_short());
    CHECK(bus_errors() == before + 1);
    CHECK(lost.header().magic.load(std::memory_order_relaxed) == 0);
    CHECK(look(lost, 7 * page) == 0);
    cut(directory, "lose", 8 * page);  // it does not come back
    CHECK(look(lost, 5 * page) == 0);
    CHECK(bus_errors() == before + 1);
    CHECK(look(kept, 5 * page) == 42);
    CHECK_FALSE(kept.cut_short());
  }
}

TEST_CASE("a file that is cut short before, while or after it is attached is damaged, or zeros") {
  guard_bus_errors();
  MemoryDirectory directory;
  const Segment segment = made(directory, "s");
  const Segment moved_from = attached(directory, "s");
  Segment moved = attached(directory, "s");
  moved = attached(directory, "s");  // the mapping that it had is guarded no more
  cut(directory, "s", page);
  CHECK(look(moved, 5 * page) == 0);
  CHECK(moved.cut_short());
  cut(directory, "s", 10);
  CHECK(error_of([&] { (void)attached(directory, "s"); }).code() == ErrorCode::damaged);
}

TEST_CASE("a file that a client has made longer is mapped as far as the limits allow") {
  MemoryDirectory directory;
  const Segment segment = made(directory, "s");
  cut(directory, "s", std::size_t{1} << 46);
  const Segment long_one = attached(directory, "s");
  CHECK(long_one.bytes() == page + (std::size_t{1} << 30));
  CHECK(look(long_one, 5 * page) == 42);
}

TEST_CASE("thousands of mappings come and go, and each knows its own end") {
  guard_bus_errors();
  MemoryDirectory directory;
  const Segment short_one = made(directory, "short");
  const Segment long_one = made(directory, "long");
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Segment>> segments;
    for (int i = 0; i < 3000; ++i) {
      segments.push_back(std::make_unique<Segment>(attached(directory, i % 100 == 99 ? "short" : "long")));
    }
    cut(directory, "short", page);
    for (int i = 0; i < 3000; ++i) CHECK(look(*segments[i], 5 * page) == (i % 100 == 99 ? 0 : 42));
    for (int i = 0; i < 3000; ++i) CHECK(segments[i]->cut_short() == (i % 100 == 99));
    for (int i = 0; i < 3000; i += 2) segments[i].reset();
    cut(directory, "short", 8 * page);
  }
}

TEST_CASE("threads that map, read and unmap files which are cut short under them") {
  guard_bus_errors();
  MemoryDirectory directory;
  constexpr int count = 4;
  std::vector<Segment> owners;
  for (int i = 0; i < count; ++i) owners.push_back(made(directory, "s" + std::to_string(i)));
  std::atomic<std::uint64_t> found{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      const std::string name = "s" + std::to_string(i);
      const UniqueFd fd = directory.open(name, true);
      for (int round = 0; round < 300; ++round) {
        const Segment segment = attached(directory, name);
        const bool cut_it = round % 3 == 0;
        if (cut_it && ::ftruncate(fd.get(), page) != 0) return;
        if (look(segment, 5 * page) != 0) return;
        if (segment.cut_short() != cut_it) return;
        if (cut_it && ::ftruncate(fd.get(), 8 * page) != 0) return;
        found.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(found.load(std::memory_order_relaxed) == 300 * count);
}
