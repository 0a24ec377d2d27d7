#include "lib/shm/bus_error_guard.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <new>
#include <utility>

#include "lib/shm/system_error.hpp"

namespace ackring::shm {

// A place of the table. `begin` is 0 in one that is free, and `taken_place` in one that is being filled.
struct GuardedRange::Entry {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<std::uint32_t> faulted{0};
};

namespace {

using Entry = GuardedRange::Entry;

constexpr std::uintptr_t taken_place = 1;
constexpr std::size_t block_entries = 1024;
constexpr std::size_t max_blocks = 1024;

using Block = std::array<Entry, block_entries>;

// Blocks are made as they are needed and stay for ever: the handler may look at them at any time.
std::array<std::atomic<Block*>, max_blocks> blocks{};
std::atomic<std::size_t> next_place{0};
std::atomic<std::uint64_t> faults{0};
std::atomic<bool> installed{false};
struct sigaction previous {};  // written before the handler is installed

static_assert(std::atomic<std::uintptr_t>::is_always_lock_free && std::atomic<Block*>::is_always_lock_free);

Block* block_of(std::size_t number) noexcept {
  return blocks[number].load(std::memory_order_acquire);  // acquire(guard.block): its entries, all free
}

// The block with this number, made if it is not there. Throws std::bad_alloc.
Block& made_block(std::size_t number) {
  Block* block = block_of(number);
  if (block != nullptr) return *block;
  auto fresh = std::make_unique<Block>();
  // acq_rel(guard.block): the entries of the new one, or of the one that another thread was faster with
  if (blocks[number].compare_exchange_strong(block, fresh.get(), std::memory_order_acq_rel)) block = fresh.release();
  return *block;
}

Entry* entry_of(std::uintptr_t address) noexcept {
  for (std::size_t number = 0; number < max_blocks; ++number) {
    Block* block = block_of(number);
    if (block == nullptr) return nullptr;  // they are made in order, or nearly so: see claim()
    for (Entry& entry : *block) {
      // Another range may come or go meanwhile. Its two words are looked at like those of a seqlock; the one that is looked
      // for is its owner's, who is the reader, and stands still.
      const std::uintptr_t from = entry.begin.load(std::memory_order_acquire);  // acquire(guard.range): its end
      if (from <= taken_place || address < from) continue;
      const std::uintptr_t to =
          entry.end.load(std::memory_order_acquire);  // acquire(guard.end): that begin was 0 before
      // relaxed: ordered by the acquire of the end
      if (address < to && entry.begin.load(std::memory_order_relaxed) == from) return &entry;
    }
  }
  return nullptr;
}

// Zeros instead of a file that has become too short. Replacing all of the mapping takes one fault per range, however many
// of its pages are gone, and no further mapping.
bool replace(Entry& entry) noexcept {
  // relaxed: entry_of() has seen both
  const std::uintptr_t from = entry.begin.load(std::memory_order_relaxed);
  const std::size_t bytes = entry.end.load(std::memory_order_relaxed) - from;
  void* const at = reinterpret_cast<void*>(from);  // NOLINT(performance-no-int-to-ptr): it was one
  if (::mmap(at, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != at) return false;
  (void)::madvise(at, bytes, MADV_DONTFORK);
  // relaxed: the handler runs on the thread that owns the range, so nothing is ordered against another thread
  entry.faulted.store(1, std::memory_order_relaxed);
  faults.fetch_add(1, std::memory_order_relaxed);  // relaxed: as above
  return true;
}

// What would have happened without this handler.
void pass_on(int signal, siginfo_t* info, void* context) noexcept {
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
    return;
  }
  const bool sent = info->si_code <= 0;  // by a process: not a fault
  if (previous.sa_handler == SIG_IGN && sent) return;
  if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    // The instruction faults once more when this returns, or the signal comes once more: the process ends by it.
    struct sigaction fallback {};
    fallback.sa_handler = SIG_DFL;
    ::sigaction(signal, &fallback, nullptr);
    if (sent) ::raise(signal);
    return;
  }
  previous.sa_handler(signal);
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  bool done = false;
  if (info->si_code == BUS_ADRERR) {
    Entry* entry = entry_of(reinterpret_cast<std::uintptr_t>(info->si_addr));
    done = entry != nullptr && replace(*entry);
  }
  if (!done) pass_on(signal, info, context);
  errno = saved;
}

// A free place, marked as taken.
Entry* claim() {
  // relaxed: where the search begins; each place is claimed by its own exchange
  const std::size_t first = next_place.load(std::memory_order_relaxed);
  constexpr std::size_t places = block_entries * max_blocks;
  for (std::size_t i = 0; i < places; ++i) {
    const std::size_t place = (first + i) % places;
    // No block is made before the one in front of it is there.
    if (place >= block_entries && block_of(place / block_entries - 1) == nullptr) continue;
    Entry& entry = made_block(place / block_entries)[place % block_entries];
    std::uintptr_t expected = 0;
    // acquire(guard.range): the former owner is done with it
    if (entry.begin.compare_exchange_strong(expected, taken_place, std::memory_order_acquire)) {
      next_place.store((place + 1) % places, std::memory_order_relaxed);  // relaxed: as above
      return &entry;
    }
  }
  return nullptr;
}

}  // namespace

GuardedRange::GuardedRange(const void* begin, std::size_t bytes) : entry_(claim()) {
  if (entry_ == nullptr) {
    throw Error(ErrorCode::no_space, "mapping", "1,048,576 of them are guarded already", "close some");
  }
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  entry_->faulted.store(0, std::memory_order_relaxed);            // relaxed: published by begin
  entry_->end.store(address + bytes, std::memory_order_release);  // release(guard.end): whose begin was 0 before
  entry_->begin.store(address, std::memory_order_release);        // release(guard.range): its end
}

GuardedRange::GuardedRange(GuardedRange&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}

GuardedRange& GuardedRange::operator=(GuardedRange&& other) noexcept {
  std::swap(entry_, other.entry_);
  return *this;
}

GuardedRange::~GuardedRange() {
  if (entry_ != nullptr) entry_->begin.store(0, std::memory_order_release);  // release(guard.range): it is free
}

bool GuardedRange::faulted() const noexcept {
  // relaxed: its owner's thread writes it, in the handler
  return entry_ != nullptr && entry_->faulted.load(std::memory_order_relaxed) != 0;
}

void guard_bus_errors() {
  static const bool once = [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    ::sigemptyset(&action.sa_mask);
    if (::sigaction(SIGBUS, nullptr, &previous) != 0 || ::sigaction(SIGBUS, &action, nullptr) != 0) {
      throw system_error("SIGBUS", "can't install a handler for it", errno);
    }
    installed.store(true, std::memory_order_relaxed);  // relaxed: a thread that misses it was there before
    return true;
  }();
  (void)once;
}

bool bus_errors_guarded() noexcept {
  return installed.load(std::memory_order_relaxed);  // relaxed: as above
}

void unblock_bus_errors() noexcept {
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, SIGBUS);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
}

std::uint64_t bus_errors() noexcept {
  return faults.load(std::memory_order_relaxed);  // relaxed: a hint; the mark of a range says which
}

}  // namespace ackring::shm
