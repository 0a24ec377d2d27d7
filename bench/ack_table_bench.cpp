// The ack table: verdict and its reading, one by one and by ack_through, in one thread and between two.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <array>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "lib/ring/ack_table.hpp"
#include "lib/shm/park.hpp"

namespace ackring {
namespace {

constexpr std::uint64_t slots = 65'536;

class Page {
 public:
  Page() : memory_(new (std::align_val_t{shm::page_bytes}) std::byte[ring::ack_page_bytes(slots)]) {
    std::memset(memory_.get(), 0, ring::ack_page_bytes(slots));
    page().slots = slots;
  }
  [[nodiscard]] shm::AckPage& page() { return *reinterpret_cast<shm::AckPage*>(memory_.get()); }

 private:
  struct Delete {
    void operator()(std::byte* at) const { ::operator delete[](at, std::align_val_t{shm::page_bytes}); }
  };
  std::unique_ptr<std::byte[], Delete> memory_;
};

// taken, ack and its reading for each entry.
void ack_each(benchmark::State& state) {
  Page page;
  ring::AckWriter writer(&page.page());
  const ring::AckReader reader(&page.page(), slots);
  std::uint64_t entry = 0;
  std::uint64_t acked = 0;
  for (auto _ : state) {
    writer.taken(entry + 1);
    benchmark::DoNotOptimize(writer.verdict(entry, ring::Verdict::ack));
    acked += reader.verdict(entry) == ring::Verdict::ack;
    ++entry;
  }
  if (acked != entry) state.SkipWithError("an ack was not seen");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(ack_each);

// taken for each entry, one ack_through and one look for a batch. Time is per entry.
void ack_batch(benchmark::State& state) {
  const auto batch = static_cast<std::uint64_t>(state.range(0));
  Page page;
  ring::AckWriter writer(&page.page());
  const ring::AckReader reader(&page.page(), slots);
  std::uint64_t entry = 0;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(batch))) {
    for (std::uint64_t i = 0; i < batch; ++i) writer.taken(++entry);
    writer.ack_through(entry);
    const std::uint64_t through = reader.acked_through();
    if (through != entry || reader.refused() != 0) state.SkipWithError("an ack was not seen");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(ack_batch)->Arg(1)->Arg(16)->Arg(64)->ArgName("batch");

// A member thread acks as fast as X, the measured thread, gives it entries. Time is per entry.
void ack_two_threads(benchmark::State& state) {
  const auto batch = static_cast<std::uint64_t>(state.range(0));  // 0: a word each
  Page page;
  struct Words {
    alignas(64) shm::Word64 floor;
    alignas(64) shm::Word32 stop;
  } words;
  words.floor.store(0, std::memory_order_relaxed);  // relaxed: no other thread yet
  words.stop.store(0, std::memory_order_relaxed);   // relaxed: as above
  std::thread member([&] {
    ring::AckWriter writer(&page.page());
    std::uint64_t entry = 0;
    std::uint64_t floor = 0;
    while (words.stop.load(std::memory_order_relaxed) == 0) {  // relaxed: only tells to end
      if (entry - floor >= slots) {
        floor = words.floor.load(std::memory_order_acquire);  // acquire(bench.floor): entries that may be reused
        ::sched_yield();
        continue;
      }
      writer.taken(entry + 1);
      if (batch == 0) {
        (void)writer.verdict(entry, ring::Verdict::ack);
      } else if ((entry + 1) % batch == 0) {
        writer.ack_through(entry + 1);
      }
      ++entry;
    }
  });
  const ring::AckReader reader(&page.page(), slots);
  std::uint64_t floor = 0;
  std::uint64_t through = 0;
  std::uint32_t round = 0;
  for (auto _ : state) {
    while (batch == 0 ? reader.verdict(floor) == ring::Verdict::none : floor == through) {
      if (batch != 0) through = reader.acked_through();
      shm::cpu_relax();
      if (++round % 256 == 0) ::sched_yield();
    }
    if (++floor % 256 == 0)
      words.floor.store(floor, std::memory_order_release);  // release(bench.floor): it has seen them
  }
  words.stop.store(1, std::memory_order_relaxed);  // relaxed: only tells to end
  member.join();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(ack_two_threads)->Arg(0)->Arg(1)->Arg(16)->Arg(64)->ArgName("batch")->UseRealTime();

}  // namespace
}  // namespace ackring

BENCHMARK_MAIN();
