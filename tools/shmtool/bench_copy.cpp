#include "tools/shmtool/bench_copy.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <new>
#include <string>

#include "lib/shm/park.hpp"
#include "lib/shm/word.hpp"
#include "tools/common/child.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

struct Counters {
  alignas(128) shm::Word<std::uint64_t> written;  // by the core of the client
  alignas(128) shm::Word<std::uint64_t> copied;   // by the core of the exchange
};

// Shared with children; the pages are there before anything is timed, as a ring's are in a run of some length.
class Buffers {
 public:
  explicit Buffers(std::size_t bytes) : bytes_(bytes) {
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) throw Failure(status_refused, "bench large: no memory for the copies: free some");
    memory_ = static_cast<char*>(memory);
  }
  ~Buffers() { ::munmap(memory_, bytes_); }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  [[nodiscard]] char* at(std::size_t offset) const noexcept { return memory_ + offset; }

 private:
  char* memory_ = nullptr;
  std::size_t bytes_;
};

template <class Ready>
void wait_until(Ready ready) {
  for (std::uint32_t spins = 0; !ready(); ++spins) {
    shm::cpu_relax();
    if (spins > 10'000) ::sched_yield();  // both may have to share one core
  }
}

}  // namespace

double copy_seconds(const BenchOptions& options, std::uint64_t count) {
  const std::size_t size = options.size;
  const std::size_t ring = options.ring_bytes();
  const std::uint64_t slots = ring / size;
  constexpr std::size_t head_bytes = 4096;
  const Buffers memory(head_bytes + ring * (1 + options.subscribers));
  static_assert(sizeof(Counters) <= head_bytes);
  Counters& counters = *new (memory.at(0)) Counters;
  char* const ingress = memory.at(head_bytes);

  Child reader = Child::start("bench-copy", [&](Channel& channel) {
    pin_to_cpu(options.exchange_cpu());
    channel.send("ready");
    for (std::uint64_t i = 0; i < count; ++i) {
      // acquire(bench.written): the bytes of payload i
      wait_until([&] { return counters.written.load(std::memory_order_acquire) > i; });
      const std::size_t place = i % slots * size;
      for (unsigned j = 0; j < options.subscribers; ++j)
        std::memcpy(ingress + ring * (1 + j) + place, ingress + place, size);
      counters.copied.store(i + 1, std::memory_order_release);  // release(bench.copied): the slot may be written again
    }
    channel.send(monotonic_ns());
  });
  reader.channel().expect(std::chrono::seconds(30), "memcpy");
  Child writer = Child::start("bench-copy", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    const std::string payload(size, 'x');
    const std::uint64_t start = monotonic_ns();
    for (std::uint64_t i = 0; i < count; ++i) {
      // acquire(bench.copied): the slot may be written again
      wait_until([&] { return i - counters.copied.load(std::memory_order_acquire) < slots; });
      std::memcpy(ingress + i % slots * size, payload.data(), size);
      counters.written.store(i + 1, std::memory_order_release);  // release(bench.written): the bytes of payload i
    }
    channel.send(start);
  });
  const auto start = writer.channel().expect(std::chrono::hours(1), "memcpy").get<std::uint64_t>();
  const auto end = reader.channel().expect(std::chrono::hours(1), "memcpy").get<std::uint64_t>();
  return static_cast<double>(std::max(end, start + 1) - start) / 1e9;
}

}  // namespace ackring::tools
