// Compiled with ACKRING_TEST_ENVIRONMENT: crash points and virtual time.
#include "lib/shm/environment.hpp"

#include <doctest/doctest.h>

#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "lib/shm/segment.hpp"

using namespace ackring::shm;

namespace {

struct Death {};

// Records the stores of this thread and dies before store number `fatal` (1 is the first; 0: never).
struct Recorder : EnvironmentHook {
  explicit Recorder(std::size_t dies_before = 0) : fatal(dies_before) { Environment::hook = this; }
  ~Recorder() override { Environment::hook = nullptr; }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  void before_store(const void* where, std::size_t bytes) override {
    stores.emplace_back(where, bytes);
    if (stores.size() == fatal) throw Death{};
  }
  std::uint64_t now_ns() override { return 42; }

  std::size_t fatal;
  std::vector<std::pair<const void*, std::size_t>> stores;
};

}  // namespace

TEST_CASE("the hook sees each shared store and copy, and a death happens before the store") {
  Word64 word;
  std::array<char, 16> bytes{};
  {
    Recorder recorder;
    word.store(1, std::memory_order_relaxed);  // relaxed: one thread
    shared_copy(bytes.data(), "0123456789", 10);
    REQUIRE(recorder.stores.size() == 2);
    CHECK(recorder.stores[0].first == &word);
    CHECK(recorder.stores[0].second == 8);
    CHECK(recorder.stores[1].first == bytes.data());
    CHECK(recorder.stores[1].second == 10);
  }
  {
    const Recorder recorder(1);
    CHECK_THROWS_AS(word.store(2, std::memory_order_relaxed), Death);  // relaxed: one thread
    CHECK_THROWS_AS(
        [] {
          Recorder inner(1);
          char to = 0;
          shared_copy(&to, "x", 1);
        }(),
        Death);
  }
  CHECK(word.load(std::memory_order_relaxed) == 1);  // relaxed: one thread
}

TEST_CASE("the hook belongs to its thread") {
  Recorder recorder;
  std::thread([] {
    Word64 other;
    other.store(1, std::memory_order_relaxed);  // relaxed: one thread
  }).join();
  CHECK(recorder.stores.empty());
}

TEST_CASE("time is virtual only where the hook says so") {
  const std::uint64_t before = Environment::now_ns();
  Recorder recorder;
  const std::uint64_t real = Environment::now_ns();
  CHECK(real >= before);
  CHECK(real != 42);
  recorder.virtual_time = true;
  CHECK(Environment::now_ns() == 42);
}

TEST_CASE("a death before the magic number leaves an unnamed segment, and the next create() replaces it") {
  MemoryDirectory directory;
  {
    const Recorder recorder(1);
    CHECK_THROWS_AS((void)Segment::create(directory, "s", SegmentKind::log, 4096, 1, 1), Death);
  }
  CHECK_FALSE(directory.exists("s"));
  CHECK(directory.exists("s.tmp"));
  const Segment segment = Segment::create(directory, "s", SegmentKind::log, 4096, 1, 1);
  CHECK(directory.exists("s"));
  CHECK_FALSE(directory.exists("s.tmp"));
}
