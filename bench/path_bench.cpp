// The whole path on one thread, without waiting and without a second core: what publish, route, deliver, take, ack and
// settle cost in instructions and cache lines that stay near. `subscribers`: how many subscriptions match each event.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "lib/client/member.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/directory.hpp"

namespace {

using namespace ackring;

// The library's side of a member, without a connection.
struct Member {
  shm::Segment page;
  shm::Bell bell;  // the exchange's end
  std::shared_ptr<client::Member> member = std::make_shared<client::Member>(nullptr, Wait::adaptive);
  std::array<DeliveryView, 256> views;

  Member(shm::Directory& directory, const exchange::MemberGrant& grant, std::shared_ptr<const client::BusView> view) {
    auto ends = shm::Bell::make_pair();
    bell = std::move(ends.first);
    member->adopt(
        shm::Segment::attach(directory, grant.ring_file, shm::SegmentKind::member_ring, shm::Access::read_only),
        shm::Segment::attach(directory, grant.ack_file, shm::SegmentKind::ack_page, shm::Access::read_write),
        std::move(ends.second), std::move(view), {grant.entry, grant.position, false});
  }
  // One by one, as most programs do.
  std::uint64_t take_each() {
    std::uint64_t count = 0;
    for (; auto delivery = member->take(member, Nanoseconds{0}); ++count) {
      benchmark::DoNotOptimize(delivery->payload().data());
      (void)delivery->ack();
    }
    return count;
  }
  std::uint64_t take_batches() {
    std::uint64_t count = 0;
    while (const std::size_t taken = member->take_batch(views, Nanoseconds{0})) {
      for (std::size_t i = 0; i < taken; ++i) benchmark::DoNotOptimize(views[i].sequence());
      (void)member->ack_through(views[taken - 1].entry, views[taken - 1].record);
      count += taken;
    }
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
  auto view = std::make_shared<client::BusView>();
  view->exchange = shm::Segment::attach(*directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  std::vector<std::unique_ptr<Member>> members;
  for (std::int64_t i = 0; i < state.range(2); ++i) {
    SubscriptionOptions options;
    options.name = "s" + std::to_string(i);
    options.patterns = {"#"};
    members.push_back(std::make_unique<Member>(*directory, x.attach_member(client, options, false, {}), view));
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
    for (const auto& member : members) taken += batch == 1 ? member->take_each() : member->take_batches();
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
