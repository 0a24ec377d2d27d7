#include "tools/shmtool/bench_copy.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <new>
#include <string>

#include "lib/ring/record.hpp"
#include "lib/shm/descriptor.hpp"
#include "lib/shm/format.hpp"
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

// A file in the directory of the bus, as the rings are, with its pages; without a name, so that nothing is left behind.
shm::UniqueFd make_file(const BenchOptions& options, std::size_t bytes) {
  shm::UniqueFd file(::open(options.directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file || ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)) != 0)
    throw Failure(status_refused, "bench large: no memory for the copies: free some");
  return file;
}

// One process's view of the file. What it will touch is mapped before anything is timed.
class Mapping {
 public:
  Mapping(int file, std::size_t bytes) : bytes_(bytes) {
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    if (memory == MAP_FAILED) throw Failure(status_refused, "bench large: no memory for the copies: free some");
    memory_ = static_cast<char*>(memory);
  }
  ~Mapping() { ::munmap(memory_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  [[nodiscard]] char* at(std::size_t offset) const noexcept { return memory_ + offset; }
  [[nodiscard]] Counters& counters() const noexcept { return *reinterpret_cast<Counters*>(memory_); }

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
  // Payloads lie where those of events do: behind a header each, as many in a buffer as records in a ring.
  const std::size_t stride = ring::record_bytes(size, 0, 0);
  const std::uint64_t slots = ring / stride;
  constexpr std::size_t head_bytes = shm::page_bytes;
  static_assert(sizeof(Counters) <= head_bytes);
  const std::size_t file_bytes = head_bytes + ring * (1 + options.subscribers);
  const shm::UniqueFd file = make_file(options, file_bytes);
  new (Mapping(file.get(), file_bytes).at(0)) Counters;
  const auto place = [&](std::uint64_t i) { return head_bytes + i % slots * stride + sizeof(shm::RecordHeader); };

  Child reader = Child::start("bench-copy", [&](Channel& channel) {
    pin_to_cpu(options.exchange_cpu());
    const Mapping memory(file.get(), file_bytes);
    Counters& counters = memory.counters();
    channel.send("ready");
    for (std::uint64_t i = 0; i < count; ++i) {
      // acquire(bench.written): the bytes of payload i
      wait_until([&] { return counters.written.load(std::memory_order_acquire) > i; });
      for (unsigned j = 1; j <= options.subscribers; ++j)
        std::memcpy(memory.at(place(i) + ring * j), memory.at(place(i)), size);
      counters.copied.store(i + 1, std::memory_order_release);  // release(bench.copied): the slot may be written again
    }
    channel.send(monotonic_ns());
  });
  reader.channel().expect(std::chrono::seconds(30), "memcpy");
  Child writer = Child::start("bench-copy", [&](Channel& channel) {
    pin_to_cpu(options.client_cpu(0));
    const Mapping memory(file.get(), head_bytes + ring);
    Counters& counters = memory.counters();
    const std::string payload(size, 'x');
    const std::uint64_t start = monotonic_ns();
    for (std::uint64_t i = 0; i < count; ++i) {
      // acquire(bench.copied): the slot may be written again
      wait_until([&] { return i - counters.copied.load(std::memory_order_acquire) < slots; });
      std::memcpy(memory.at(place(i)), payload.data(), size);
      counters.written.store(i + 1, std::memory_order_release);  // release(bench.written): the bytes of payload i
    }
    channel.send(start);
  });
  const auto start = writer.channel().expect(std::chrono::hours(1), "memcpy").get<std::uint64_t>();
  const auto end = reader.channel().expect(std::chrono::hours(1), "memcpy").get<std::uint64_t>();
  return static_cast<double>(std::max(end, start + 1) - start) / 1e9;
}

}  // namespace ackring::tools
