// SpscRing: write and read of one record, alone and in batches, in one thread and between two.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <cstring>
#include <memory>
#include <new>
#include <thread>

#include "lib/ring/spsc_ring.hpp"
#include "lib/shm/park.hpp"

namespace ackring {
namespace {

constexpr std::uint64_t ring_bytes = 4u << 20;

struct Shared {
  alignas(64) shm::Word64 tail;
  alignas(64) shm::Word64 head;
  alignas(64) shm::Word32 stop;
  alignas(64) std::byte data[ring_bytes];
};

std::unique_ptr<Shared> make_shared_ring() {
  auto shared = std::make_unique<Shared>();
  std::memset(shared->data, 0, ring_bytes);          // faults the pages in before anything is measured
  shared->tail.store(0, std::memory_order_relaxed);  // relaxed: nobody else has the ring yet
  shared->head.store(0, std::memory_order_relaxed);  // relaxed: as above
  shared->stop.store(0, std::memory_order_relaxed);  // relaxed: as above
  return shared;
}

ring::RecordHeader header_of(std::uint64_t payload) {
  ring::RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(ring::record_bytes(payload, 0, 0));
  header.kind = static_cast<std::uint16_t>(ring::RecordKind::event);
  header.payload_bytes = static_cast<std::uint32_t>(payload);
  return header;
}

void write_record(std::byte* at, ring::RecordHeader& header, const std::byte* payload) {
  ++header.sequence;
  std::memcpy(at, &header, sizeof header);
  std::memcpy(at + sizeof header, payload, header.payload_bytes);
}

// What a reader in place does at least: every word of the payload.
std::uint64_t read_record(const std::byte* record, const ring::RecordHeader& header) {
  std::uint64_t sum = header.sequence;
  const std::byte* payload = record + sizeof header;
  for (std::uint64_t offset = 0; offset + 8 <= header.payload_bytes; offset += 8) {
    std::uint64_t word;
    std::memcpy(&word, payload + offset, sizeof word);
    sum ^= word;
  }
  return sum;
}

// Time and rate are per record.
void write_read(benchmark::State& state) {
  const auto payload_bytes = static_cast<std::uint64_t>(state.range(0));
  const auto batch = static_cast<std::uint64_t>(state.range(1));
  const bool checked = state.range(2) != 0;
  const auto shared = make_shared_ring();
  const std::unique_ptr<std::byte[]> payload(new std::byte[payload_bytes + 1]());
  ring::RecordHeader header = header_of(payload_bytes);
  ring::RingWriter writer(shared->data, ring_bytes, &shared->tail, 0, 0);
  ring::RingReader reader(shared->data, ring_bytes, &shared->tail, 0);
  std::uint64_t sum = 0;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(batch))) {
    writer.set_head(reader.position());
    for (std::uint64_t i = 0; i < batch; ++i) {
      write_record(writer.claim(header.bytes), header, payload.get());
      writer.advance(header.bytes);
    }
    writer.commit();
    if (checked) {
      if (!reader.refresh()) state.SkipWithError("refused its own tail");
      ring::RecordHeader found;
      const std::byte* record = nullptr;
      while (reader.read_checked(found, record) == ring::ReadStatus::record) {
        sum += read_record(record, found);
        reader.advance(found.bytes);
      }
    } else {
      for (std::uint64_t i = 0; i < batch; ++i) {
        const std::byte* record = reader.peek();
        const auto* found = reinterpret_cast<const ring::RecordHeader*>(record);
        sum += read_record(record, *found);
        reader.advance(found->bytes);
      }
    }
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(payload_bytes));
}
BENCHMARK(write_read)->ArgsProduct({{0, 64, 1024}, {1, 16, 64}, {0, 1}})->ArgNames({"payload", "batch", "checked"});

void wait_a_little(std::uint32_t& round) {
  shm::cpu_relax();
  if (++round % 256 == 0) ::sched_yield();
}

// A writer thread as fast as it can; the measured thread reads. Time is per record; the ring is full or empty at times.
void two_threads(benchmark::State& state) {
  const auto payload_bytes = static_cast<std::uint64_t>(state.range(0));
  const auto batch = static_cast<std::uint64_t>(state.range(1));
  const auto shared = make_shared_ring();
  std::thread producer([&] {
    const std::unique_ptr<std::byte[]> payload(new std::byte[payload_bytes + 1]());
    ring::RecordHeader header = header_of(payload_bytes);
    ring::RingWriter writer(shared->data, ring_bytes, &shared->tail, 0, 0);
    std::uint32_t round = 0;
    while (shared->stop.load(std::memory_order_relaxed) == 0) {  // relaxed: only tells to end
      for (std::uint64_t i = 0; i < batch; ++i) {
        std::byte* at = writer.claim(header.bytes);
        while (at == nullptr) {
          if (shared->stop.load(std::memory_order_relaxed) != 0) return;  // relaxed: only tells to end
          wait_a_little(round);
          writer.set_head(shared->head.load(std::memory_order_acquire));  // acquire(bench.head): its reads are over
          at = writer.claim(header.bytes);
        }
        write_record(at, header, payload.get());
        writer.advance(header.bytes);
      }
      writer.commit();
    }
  });
  ring::RingReader reader(shared->data, ring_bytes, &shared->tail, 0);
  std::uint64_t sum = 0;
  std::uint64_t taken = 0;
  std::uint32_t round = 0;
  for (auto _ : state) {
    const std::byte* record = reader.peek();
    while (record == nullptr) {
      reader.prefetch();
      wait_a_little(round);
      record = reader.peek();
    }
    const auto* found = reinterpret_cast<const ring::RecordHeader*>(record);
    sum += read_record(record, *found);
    reader.advance(found->bytes);
    if (++taken % 64 == 0) {
      shared->head.store(reader.position(), std::memory_order_release);  // release(bench.head): the reads before it
    }
  }
  shared->stop.store(1, std::memory_order_relaxed);  // relaxed: only tells to end
  producer.join();
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(payload_bytes));
}
BENCHMARK(two_threads)->ArgsProduct({{0, 64, 1024}, {1, 16, 64}})->ArgNames({"payload", "batch"})->UseRealTime();

}  // namespace
}  // namespace ackring

BENCHMARK_MAIN();
