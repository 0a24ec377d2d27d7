#include "tools/shmtool/bench_progress.hpp"

#include <sys/mman.h>

#include <cstddef>
#include <new>

#include "tools/common/program.hpp"

namespace ackring::tools {

Progress::Progress(unsigned members) : lines_(nullptr), bytes_((members + std::size_t{1}) * sizeof(Line)) {
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw Failure(status_refused, "bench: no memory: free some");
  lines_ = static_cast<Line*>(memory);
  for (std::size_t i = 0; i <= members; ++i) new (&lines_[i]) Line;
}

Progress::~Progress() { ::munmap(lines_, bytes_); }

// relaxed, here and below: numbers that stand for themselves; a stale one costs another look
void Progress::set_taken(unsigned member, std::uint64_t events) noexcept {
  lines_[1 + member].value.store(events, std::memory_order_relaxed);
}

std::uint64_t Progress::taken(unsigned first, unsigned members) const noexcept {
  std::uint64_t total = 0;
  for (unsigned i = 0; i < members; ++i) {
    total += lines_[1 + first + i].value.load(std::memory_order_relaxed);  // relaxed: as above
  }
  return total;
}

void Progress::set_start(std::uint64_t start_ns) noexcept {
  lines_[0].value.store(start_ns, std::memory_order_relaxed);  // relaxed: as above; written before the first event
}

std::uint64_t Progress::start_ns() const noexcept {
  return lines_[0].value.load(std::memory_order_relaxed);  // relaxed: as above
}

}  // namespace ackring::tools
