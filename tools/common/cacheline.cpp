#include "tools/common/cacheline.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <new>
#include <vector>

#include "lib/shm/park.hpp"
#include "lib/shm/word.hpp"
#include "tools/common/child.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t rounds = 1000;
constexpr std::size_t groups = 101;
constexpr std::uint64_t total_rounds = rounds * (groups + 1);  // the first group warms up

// One line, with a line's distance to whatever else is mapped.
struct alignas(128) Line {
  shm::Word<std::uint64_t> turn;
};

void wait_for(const Line& line, std::uint64_t turn) {
  // acquire(bench.line): the other side has had its turn
  for (std::uint32_t spins = 0; line.turn.load(std::memory_order_acquire) != turn; ++spins) {
    shm::cpu_relax();
    if (spins > 100'000) ::sched_yield();  // both may have to share one core
  }
}

void pass_on(Line& line, std::uint64_t turn) {
  line.turn.store(turn, std::memory_order_release);  // release(bench.line): the other side's turn
}

double measure(Line& line) {
  std::vector<double> round_trips;
  std::uint64_t turn = 0;
  for (std::size_t group = 0; group <= groups; ++group) {
    const std::uint64_t start = monotonic_ns();
    for (std::uint64_t i = 0; i < rounds; ++i, turn += 2) {
      pass_on(line, turn + 1);
      wait_for(line, turn + 2);
    }
    if (group > 0) round_trips.push_back(static_cast<double>(monotonic_ns() - start) / static_cast<double>(rounds));
  }
  const auto middle = round_trips.begin() + static_cast<std::ptrdiff_t>(round_trips.size() / 2);
  std::nth_element(round_trips.begin(), middle, round_trips.end());
  return *middle;
}

}  // namespace

double cacheline_round_trip_ns(int cpu, int other_cpu) {
  void* memory = ::mmap(nullptr, sizeof(Line), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw Failure(status_refused, "cache line probe: no memory: free some");
  struct Unmap {
    void* memory;
    ~Unmap() { ::munmap(memory, sizeof(Line)); }
  } unmap{memory};
  Line& line = *new (memory) Line;

  Child echo = Child::start("bench-echo", [&line, other_cpu](Channel&) {
    pin_to_cpu(other_cpu);
    for (std::uint64_t turn = 0; turn < 2 * total_rounds; turn += 2) {
      wait_for(line, turn + 1);
      pass_on(line, turn + 2);
    }
  });
  Child meter = Child::start("bench-meter", [&line, cpu](Channel& channel) {
    pin_to_cpu(cpu);
    channel.send(measure(line));
  });
  return meter.channel().expect(std::chrono::seconds(30), "cache line probe").get<double>();
}

}  // namespace ackring::tools
