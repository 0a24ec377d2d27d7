#include "tools/common/ring_relay.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ackring/limits.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "tools/common/child.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t rounds = 500;
constexpr std::size_t groups = 101;
constexpr std::uint64_t total_rounds = rounds * (groups + 1);  // the first group warms up

// Two rings, each with its tail, in memory that both processes map.
class Memory {
 public:
  explicit Memory(std::uint64_t ring_bytes) : ring_bytes_(ring_bytes) {
    memory_ =
        ::mmap(nullptr, 2 * part_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory_ == MAP_FAILED) throw Failure(status_refused, "ring probe: no memory: free some");
  }
  ~Memory() { ::munmap(memory_, 2 * part_bytes()); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  [[nodiscard]] ring::RingWriter writer(int which) const { return {data(which), ring_bytes_, tail(which), 0, 0}; }
  [[nodiscard]] ring::RingReader reader(int which) const { return {data(which), ring_bytes_, tail(which), 0}; }

 private:
  [[nodiscard]] std::size_t part_bytes() const { return shm::page_bytes + ring_bytes_; }
  [[nodiscard]] std::byte* part(int which) const {
    return static_cast<std::byte*>(memory_) + static_cast<std::size_t>(which) * part_bytes();
  }
  [[nodiscard]] shm::Word64* tail(int which) const { return reinterpret_cast<shm::Word64*>(part(which)); }
  [[nodiscard]] std::byte* data(int which) const { return part(which) + shm::page_bytes; }

  std::uint64_t ring_bytes_;
  void* memory_ = nullptr;
};

const std::byte* wait_for(ring::RingReader& reader) {
  for (std::uint32_t spins = 0;; ++spins) {
    if (const std::byte* record = reader.peek()) return record;
    reader.prefetch();
    if (spins > 100'000) ::sched_yield();  // both may have to share one core
  }
}

// The other side has read everything: it answers each record before the next one comes.
void write(ring::RingWriter& writer, const ring::RecordHeader& header, const std::byte* body) {
  writer.set_head(writer.position());
  std::byte* to = writer.claim(header.bytes);
  ring::write_header(to, header, 0);
  shm::shared_copy(to + sizeof header, body, header.bytes - sizeof header);
  writer.advance(header.bytes);
  writer.commit();
}

void relay(const Memory& memory) {
  ring::RingReader in = memory.reader(0);
  ring::RingWriter out = memory.writer(1);
  for (std::uint64_t i = 0; i < total_rounds; ++i) {
    const std::byte* record = wait_for(in);
    ring::RecordHeader header;
    ring::read_once(record, header);
    write(out, header, record + sizeof header);
    in.advance(header.bytes);
  }
}

double measure(const Memory& memory, std::size_t payload) {
  ring::RingWriter out = memory.writer(0);
  ring::RingReader in = memory.reader(1);
  const std::vector<std::byte> body(payload + shm::record_alignment);
  ring::RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(ring::record_bytes(payload, 0, 0));
  header.kind = static_cast<std::uint16_t>(ring::RecordKind::event);
  header.payload_bytes = static_cast<std::uint32_t>(payload);
  std::vector<double> round_trips;
  for (std::size_t group = 0; group <= groups; ++group) {
    const std::uint64_t start = monotonic_ns();
    for (std::uint64_t i = 0; i < rounds; ++i) {
      ++header.sequence;
      write(out, header, body.data());
      const auto* answer = reinterpret_cast<const ring::RecordHeader*>(wait_for(in));
      if (answer->sequence != header.sequence)
        throw Failure(status_refused, "ring probe: a record got lost: report it");
      in.advance(answer->bytes);
    }
    if (group > 0) round_trips.push_back(static_cast<double>(monotonic_ns() - start) / static_cast<double>(rounds));
  }
  const auto middle = round_trips.begin() + static_cast<std::ptrdiff_t>(round_trips.size() / 2);
  std::nth_element(round_trips.begin(), middle, round_trips.end());
  return *middle;
}

}  // namespace

double ring_relay_ns(int cpu, int other_cpu, std::size_t payload) {
  // As large as a ring of the bus usually is, and large enough for a record.
  const Memory memory(std::max<std::uint64_t>(4u << 20, std::bit_ceil(4 * ring::record_bytes(payload, 0, 0))));
  Child echo = Child::start("bench-relay", [&memory, other_cpu](Channel&) {
    pin_to_cpu(other_cpu);
    relay(memory);
  });
  Child meter = Child::start("bench-meter", [&memory, cpu, payload](Channel& channel) {
    pin_to_cpu(cpu);
    channel.send(measure(memory, payload));
  });
  return meter.channel().expect(std::chrono::seconds(60), "ring probe").get<double>();
}

}  // namespace ackring::tools
