// The accesses of the core, as an Explorer plays them: each is a point where another role may go on, then it happens.
#include <string>

#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {

namespace {

const char* with(const char* relaxed, const char* acquire, const char* release, const char* other,
                 std::memory_order order) {
  if (order == std::memory_order_relaxed) return relaxed;
  if (order == std::memory_order_acquire) return acquire;
  return order == std::memory_order_release ? release : other;
}

}  // namespace

std::uint64_t Explorer::load(const void* word, std::size_t bytes, std::memory_order order) {
  point();
  const std::uint64_t value = memory_.load(current_, word, bytes, order);
  tell(with("loads relaxed", "loads acquire", "?", "loads", order), word, value);
  return value;
}

void Explorer::store(void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) {
  point();
  memory_.store(current_, word, bytes, value, order);
  tell(with("stores relaxed", "?", "stores release", "stores", order), word, value);
}

std::uint64_t Explorer::fetch_add(void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) {
  point();
  const std::uint64_t old = memory_.fetch_add(current_, word, bytes, value, order);
  tell("adds to", word, old);
  return old;
}

bool Explorer::exchange_if(void* word, std::size_t bytes, std::uint64_t& expected, std::uint64_t desired,
                           std::memory_order order) {
  point();
  const bool done = memory_.exchange_if(current_, word, bytes, expected, desired, order);
  tell(done ? with("exchanges relaxed", "exchanges acquire", "exchanges release", "exchanges", order)
            : "fails to exchange",
       word, done ? desired : expected);
  return done;
}

void Explorer::fence(std::memory_order order) {
  point();
  memory_.fence(current_, order);
  tell(with("fence relaxed", "fence acquire", "fence release", "fence seq_cst", order), nullptr, 0);
}

void Explorer::compiler_fence(std::memory_order order) {
  point();
  memory_.compiler_fence(current_, order);
  tell("compiler fence", nullptr, 0);
}

bool Explorer::everyone_fences() {
  point();
  const bool done = memory_.everyone_fences(current_);
  tell(done ? "membarrier" : "has no membarrier", nullptr, 0);
  return done;
}

void Explorer::write(void* to, const void* from, std::size_t bytes) {
  point();
  memory_.write(current_, to, from, bytes);
  tell("writes bytes of", to, bytes);
}

void Explorer::read(const void* from, std::size_t bytes) {
  point();
  memory_.read(current_, from, bytes);
  tell("reads bytes of", from, bytes);
}

void Explorer::read_changing(void* to, const void* from, std::size_t bytes) {
  point();
  memory_.read_changing(current_, to, from, bytes);
  tell("copies bytes of", from, bytes);
}

}  // namespace ackring::test::interleave
