// A ring between two threads. TSan sees both sides: a missing release or acquire is a race report.
#include <doctest/doctest.h>

#include <thread>

#include "tests/ring/ring_stress.hpp"

namespace ackring::test {
namespace {

#ifdef ACKRING_TEST_TSAN
constexpr std::uint64_t records = 10'000;
#else
constexpr std::uint64_t records = 60'000;
#endif

TEST_CASE("two threads, positions and sequences pass 2^32, 2^63 and 2^64") {
  const std::uint64_t seed = test_seed("two threads, positions and sequences pass 2^32, 2^63 and 2^64");
  for (const std::uint64_t ring_bytes : {std::uint64_t{4096}, std::uint64_t{65536}}) {
    for (const std::uint64_t start : start_positions(ring_bytes)) {
      for (const Trust trust : {Trust::trusted, Trust::checked}) {
        CAPTURE(ring_bytes);
        CAPTURE(start);
        RingMemory memory(ring_bytes, start);
        StressPlan plan;
        plan.first = start + 1;
        plan.count = ring_bytes == 4096 ? records : records / 8;
        plan.seed = seed;
        plan.largest = ring::max_event_bytes(ring_bytes);
        bool produced = false;
        std::thread producer([&] {
          RingWriter writer = memory.writer();
          produced = produce(memory, writer, plan);
        });
        const std::string wrong = consume(memory, plan, trust);
        producer.join();
        CHECK(wrong == "");
        CHECK(produced);
      }
    }
  }
}

#ifndef ACKRING_TEST_TSAN
// Broken writers that the checker must catch. Not under TSan, which would report their races before the checker does.

// Publishes the tail before the bytes, then gives the reader a chance to look.
class TailFirstWriter {
 public:
  explicit TailFirstWriter(const RingMemory& memory) : memory_(memory), writer_(memory.writer()) {}
  std::byte* claim(std::uint64_t bytes) {
    std::byte* at = writer_.claim(bytes);
    if (at == nullptr) return nullptr;
    writer_.advance(bytes);
    writer_.commit();
    for (int i = 0; i < 100 && !memory_.stopped(); ++i) ::sched_yield();
    return at;
  }
  void advance(std::uint64_t /*bytes*/) {}
  void commit() {}
  void set_head(std::uint64_t head) { writer_.set_head(head); }
  void prefetch() const {}

 private:
  const RingMemory& memory_;
  RingWriter writer_;
};

// Goes to the start of the ring without a padding record at its end.
class NoPaddingWriter {
 public:
  explicit NoPaddingWriter(const RingMemory& memory) : memory_(memory), writer_(memory.writer()) {}
  std::byte* claim(std::uint64_t bytes) {
    const std::uint64_t rest = memory_.ring_bytes() - (writer_.position() & (memory_.ring_bytes() - 1));
    if (bytes <= rest) return writer_.claim(bytes);
    if (!writer_.fits(bytes)) return nullptr;
    writer_ = RingWriter(memory_.data(), memory_.ring_bytes(), &memory_.words().tail, writer_.position() + rest,
                         writer_.head());
    return writer_.claim(bytes);
  }
  void advance(std::uint64_t bytes) { writer_.advance(bytes); }
  void commit() { writer_.commit(); }
  void set_head(std::uint64_t head) { writer_.set_head(head); }
  void prefetch() const {}

 private:
  const RingMemory& memory_;
  RingWriter writer_;
};

// Trusts that the reader is fast enough: overwrites bytes that are not released.
class ForgetfulWriter {
 public:
  explicit ForgetfulWriter(const RingMemory& memory) : writer_(memory.writer()) {}
  std::byte* claim(std::uint64_t bytes) {
    writer_.set_head(writer_.position());
    return writer_.claim(bytes);
  }
  void advance(std::uint64_t bytes) { writer_.advance(bytes); }
  void commit() { writer_.commit(); }
  void set_head(std::uint64_t /*head*/) {}
  void prefetch() const {}

 private:
  RingWriter writer_;
};

template <class Writer>
std::string stress_broken() {
  RingMemory memory(4096);
  StressPlan plan;
  plan.count = 200'000;
  plan.seed = 42;
  plan.largest = ring::max_event_bytes(4096);
  plan.seconds = 20;
  std::thread producer([&] {
    Writer writer(memory);
    (void)produce(memory, writer, plan);
  });
  const std::string wrong = consume(memory, plan, Trust::checked);
  producer.join();
  return wrong;
}

TEST_CASE("canary: a tail published before its bytes is caught") {
  const std::string wrong = stress_broken<TailFirstWriter>();
  MESSAGE("caught: " << wrong);
  CHECK(wrong != "");
  CHECK(wrong.find("deadline") == std::string::npos);
}

TEST_CASE("canary: missing padding is caught") {
  const std::string wrong = stress_broken<NoPaddingWriter>();
  MESSAGE("caught: " << wrong);
  CHECK(wrong != "");
  CHECK(wrong.find("deadline") == std::string::npos);
}

TEST_CASE("canary: overwritten bytes are caught") {
  const std::string wrong = stress_broken<ForgetfulWriter>();
  MESSAGE("caught: " << wrong);
  CHECK(wrong != "");
  CHECK(wrong.find("deadline") == std::string::npos);
}
#endif

}  // namespace
}  // namespace ackring::test
