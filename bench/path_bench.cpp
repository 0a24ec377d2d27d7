// The whole path on one thread, without waiting and without a second core: what publish, route, deliver, take, ack and
// settle cost in instructions and cache lines that stay near. `subscribers`: how many subscriptions match each event.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "lib/exchange/exchange.hpp"
#include "lib/shm/directory.hpp"

namespace {

using namespace ackring;

struct Member {
  shm::Segment ring;
  shm::Segment acks;
  ring::RingReader reader;
  ring::AckWriter writer;
  std::uint64_t entry = 0;

  Member(shm::Directory& directory, const exchange::MemberGrant& grant) : entry(grant.entry) {
    ring = shm::Segment::attach(directory, grant.ring_file, shm::SegmentKind::member_ring, shm::Access::read_only);
    acks = shm::Segment::attach(directory, grant.ack_file, shm::SegmentKind::ack_page, shm::Access::read_write);
    const auto* page = ring.as<const shm::MemberRing>();
    reader =
        ring::RingReader(ring.data() + shm::page_bytes + page->slots, page->ring_bytes, &page->tail, grant.position);
    writer = ring::AckWriter(acks.as<shm::AckPage>());
  }
  std::uint64_t take_all() {
    std::uint64_t count = 0;
    while (const std::byte* record = reader.peek()) {
      const auto* header = reinterpret_cast<const shm::RecordHeader*>(record);
      benchmark::DoNotOptimize(header->sequence);
      reader.advance(header->bytes);
      ++count;
    }
    entry += count;
    writer.taken(entry);
    writer.ack_through(entry);
    return count;
  }
};

// Arguments: payload bytes, events per batch, subscribers.
void path(benchmark::State& state) {
  const auto payload_bytes = static_cast<std::uint64_t>(state.range(0));
  const std::int64_t batch = state.range(1);
  auto directory = std::make_shared<shm::MemoryDirectory>();
  exchange::Exchange x(*directory);
  const std::uint64_t client = x.new_client();
  std::vector<std::unique_ptr<Member>> members;
  for (std::int64_t i = 0; i < state.range(2); ++i) {
    SubscriptionOptions options;
    options.name = "s" + std::to_string(i);
    options.patterns = {"#"};
    members.push_back(std::make_unique<Member>(*directory, x.attach_member(client, options, false, {})));
  }
  const exchange::PublisherGrant grant = x.attach_publisher(client, "", 4 << 20);
  shm::Segment ring =
      shm::Segment::attach(*directory, grant.ring_file, shm::SegmentKind::ingress_ring, shm::Access::read_write);
  shm::Segment cursor =
      shm::Segment::attach(*directory, grant.cursor_file, shm::SegmentKind::ingress_cursor, shm::Access::read_only);
  auto* page = ring.as<shm::IngressRing>();
  ring::RingWriter writer(ring.data() + shm::page_bytes, page->ring_bytes, &page->tail, 0, 0);
  std::uint64_t sequence = 0;
  const auto write = [&](shm::RecordKind kind, std::uint64_t bytes) {
    shm::RecordHeader header{};
    header.bytes = static_cast<std::uint32_t>(ring::record_bytes(bytes, 0, 0));
    header.kind = static_cast<std::uint16_t>(kind);
    header.sequence = kind == shm::RecordKind::event ? ++sequence : 0;
    header.topic = 1;
    header.payload_bytes = static_cast<std::uint32_t>(bytes);
    std::byte* to = writer.claim(header.bytes);
    ring::write_header(to, header, 0);
    std::memset(to + sizeof header, 'x', bytes);
    writer.advance(header.bytes);
  };
  write(shm::RecordKind::topic, 4);
  std::uint64_t taken = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < batch; ++i) write(shm::RecordKind::event, payload_bytes);
    writer.commit();
    while (x.step(1)) {
    }
    // acquire(ingress.consumed): everything before it was read
    writer.set_head(cursor.as<const shm::IngressCursor>()->shards[0].consumed.load(std::memory_order_acquire));
    for (const auto& member : members) taken += member->take_all();
  }
  if (taken != sequence * members.size()) state.SkipWithError("an event was lost");
  state.SetItemsProcessed(static_cast<std::int64_t>(members.empty() ? sequence : taken));
}
// scripts/instructions counts what a fixed number of iterations executes.
void arguments(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"bytes", "batch", "subscribers"});
  for (const auto& args : std::vector<std::vector<std::int64_t>>{
           {64, 1, 1}, {64, 64, 0}, {64, 64, 1}, {64, 256, 1}, {64, 64, 4}, {1024, 64, 1}}) {
    bench->Args(args);
  }
  const char* iterations = std::getenv("ACKRING_BENCH_ITERATIONS");
  if (iterations != nullptr) bench->Iterations(std::atoll(iterations));
}
BENCHMARK(path)->Apply(arguments);

}  // namespace

BENCHMARK_MAIN();
