// Two hops between two cores through bare rings, one record at a time, in the ways in which a record's arrival can be told:
//   tail         as lib/ring does: a word of its own says how far the ring is filled; the reader asks for the record meanwhile
//   tail/lines   the same, records begin on cache lines of their own
//   length       the first word of the record says that it is there: one line less for the first bytes of it
//   length/clear … and the writer has cleared the lines a kilobyte ahead, so that nothing old looks like a record
// The last two are sketches of the traffic, not rings: nothing is checked, and they never wrap in the middle of a record.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>

namespace {

constexpr std::uint64_t payload_words = 14;  // 112 bytes: a header, and 64 of payload
constexpr std::uint64_t ring_bytes = 4u << 20;
constexpr std::uint64_t ahead = 1024;

enum Way : std::int64_t { tail, tail_lines, length, length_clear };

struct Ring {
  alignas(128) std::atomic<std::uint64_t> tail{0};
  alignas(128) std::atomic<std::uint32_t> stop{0};
  alignas(128) std::byte data[ring_bytes + 2 * ahead]{};
};

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)::sched_setaffinity(0, sizeof set, &set);  // one core: the figure is that of a scheduler
}

template <Way way>
class End {
 public:
  explicit End(Ring& ring) : ring_(ring) {}

  void put(std::uint64_t value) {
    std::uint64_t* to = at();
    for (std::uint64_t i = 1; i < payload_words; ++i) to[i] = value;
    if (way == tail || way == tail_lines) {
      to[0] = value;
    } else if (way == length) {
      std::atomic_ref(*behind()).store(0, std::memory_order_relaxed);  // relaxed: published by the length
    }
    position_ += record_bytes;
    ring_.tail.store(position_, std::memory_order_release);  // release(bench.tail): the record
    // release(bench.length): the rest of the record
    if (way == length || way == length_clear) std::atomic_ref(*to).store(value, std::memory_order_release);
    if (way == length_clear) std::memset(ring_.data + ((position_ + ahead) % ring_bytes) / 64 * 64, 0, 128);
  }
  /// False: told to stop.
  bool get(std::uint64_t value) {
    std::uint64_t* from = at();
    for (std::uint32_t round = 1; !arrived(from, value); ++round) {
      if (round % 4096 != 0) continue;
      if (ring_.stop.load(std::memory_order_relaxed) != 0) return false;  // relaxed: only tells to end
      ::sched_yield();
    }
    benchmark::DoNotOptimize(from[1] + from[payload_words - 1]);
    position_ += record_bytes;
    return true;
  }

 private:
  static constexpr std::uint64_t record_bytes = way == tail_lines ? 128 : 112;

  [[nodiscard]] std::uint64_t* at() { return reinterpret_cast<std::uint64_t*>(ring_.data + place(position_)); }
  [[nodiscard]] std::uint64_t* behind() {
    return reinterpret_cast<std::uint64_t*>(ring_.data + place(position_ + record_bytes));
  }
  // Whole records only, so that none wraps.
  static std::uint64_t place(std::uint64_t position) { return position % (ring_bytes / record_bytes * record_bytes); }
  [[nodiscard]] bool arrived(std::uint64_t* from, std::uint64_t value) {
    if (way == length || way == length_clear) {
      return std::atomic_ref(*from).load(std::memory_order_acquire) == value;  // acquire(bench.length): the record
    }
    __builtin_prefetch(from);
    __builtin_prefetch(from + 8);
    return ring_.tail.load(std::memory_order_acquire) != position_;  // acquire(bench.tail): the record
  }

  Ring& ring_;
  std::uint64_t position_ = 0;
};

template <Way way>
void relay(benchmark::State& state) {
  const auto there = std::make_unique<Ring>();
  const auto back = std::make_unique<Ring>();
  std::thread other([&] {
    pin(1);
    End<way> in(*there);
    End<way> out(*back);
    for (std::uint64_t value = 1; in.get(value); ++value) out.put(value);
  });
  pin(0);
  End<way> out(*there);
  End<way> in(*back);
  std::uint64_t value = 0;
  for (auto _ : state) {
    out.put(++value);
    (void)in.get(value);
  }
  there->stop.store(1, std::memory_order_relaxed);  // relaxed: only tells to end
  other.join();
}
BENCHMARK(relay<tail>)->UseRealTime();
BENCHMARK(relay<tail_lines>)->UseRealTime();
BENCHMARK(relay<length>)->UseRealTime();
BENCHMARK(relay<length_clear>)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
