#include "lib/shm/park.hpp"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "lib/shm/system_error.hpp"

namespace ackring::shm {
namespace {

long membarrier(int command) noexcept { return ::syscall(SYS_membarrier, command, 0, 0); }

// False: this system has no membarrier.
bool everyone_fences() noexcept {
#ifdef ACKRING_TEST_ENVIRONMENT
  if (memory_hook != nullptr) return memory_hook->everyone_fences();
#endif
  return register_membarrier() && membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0;
}

// How long a wait at a bell whose other end is closed takes at most.
constexpr std::uint64_t closed_poll_ns = 1'000'000;

enum class Rings { some, none, closed };

// Takes what is in the socket. The rounds are bounded because the peer may ring without end (F46); what it leaves is
// one more ring. A socket of make_pair() holds less than one buffer.
Rings take_rings(int fd, bool& closed) noexcept {
  constexpr int max_rounds = 16;
  std::array<char, 1024> buffer;
  bool some = false;
  closed = false;
  for (int round = 0; round < max_rounds; ++round) {
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got > 0) {
      some = true;
      // Less than asked for is all there was: another call would only say so. A closed end is told by the next one.
      if (static_cast<std::size_t>(got) < buffer.size()) break;
    } else if (got == 0) {
      closed = true;
      break;
    } else if (errno != EINTR) {
      closed = errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOMEM && errno != ENOBUFS;
      break;
    }
  }
  if (some) return Rings::some;
  return closed ? Rings::closed : Rings::none;
}

timespec to_timespec(std::uint64_t ns) noexcept {
  timespec result{};
  result.tv_sec = static_cast<time_t>(ns / 1'000'000'000u);
  result.tv_nsec = static_cast<long>(ns % 1'000'000'000u);
  return result;
}

std::uint64_t to_ns(const timespec& time) noexcept {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(time.tv_nsec);
}

// The system call itself, because it leaves the rest of the time in `left`, which the library function hides: so an
// interrupted wait goes on without a look at a clock.
int poll_and_count_down(pollfd* entries, unsigned count, timespec& left) noexcept {
  static_assert(sizeof(timespec) == 16, "ppoll of a 64-bit system");
  return static_cast<int>(::syscall(SYS_ppoll, entries, count, &left, nullptr, 0));
}

}  // namespace

bool register_membarrier() noexcept {
  // A forked child inherits the registration together with the address space, so once is enough.
  static const bool registered = [] {
    const long commands = membarrier(MEMBARRIER_CMD_QUERY);
    constexpr long needed = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    return commands >= 0 && (commands & needed) == needed && membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
  }();
  return registered;
}

void barrier_for_parker() noexcept {
  // The system call is a full barrier of this thread too; the others' fences pair with it when they are required.
  if (everyone_fences()) return;
  Memory::fence(std::memory_order_seq_cst);  // seq_cst(park.fallback) both sides fence without membarrier
}

std::pair<Bell, Bell> Bell::make_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw system_error("doorbell", "can't make a socket pair", errno);
  }
  UniqueFd first(ends[0]);
  UniqueFd second(ends[1]);
  // The kernel rounds up to its minimum. A failure leaves a larger buffer, which works as well.
  const int smallest = 1;
  for (const int end : ends) {
    (void)::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest);
    (void)::setsockopt(end, SOL_SOCKET, SO_RCVBUF, &smallest, sizeof smallest);
  }
  return {Bell(std::move(first)), Bell(std::move(second))};
}

bool Bell::ring() const noexcept {
  const char byte = 1;
  while (::send(fd_.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) {
    switch (errno) {
      case EINTR:
        continue;
      case EAGAIN:   // full: it is rung already
      case ENOBUFS:  // the kernel is out of memory: the other end is there, and its parks are bounded
      case ENOMEM:
        return true;
      default:
        return false;
    }
  }
  return true;
}

bool Bell::drain() const noexcept {
  bool closed = false;
  (void)take_rings(fd_.get(), closed);
  return !closed;
}

void Bell::replace(const UniqueFd& other) {
  while (::dup3(other.get(), fd_.get(), O_CLOEXEC) < 0) {
    if (errno != EINTR) throw system_error("doorbell", "can't put a new end in the place of the old one", errno);
  }
}

bool Bell::wait(std::uint64_t timeout_ns) const noexcept {
  timespec left = to_timespec(timeout_ns);
  while (true) {
    pollfd entry{fd_.get(), POLLIN, 0};
    const int ready = poll_and_count_down(&entry, 1, left);
    if (ready == 0) return false;
    bool closed = ready > 0;
    if (ready > 0 && (entry.revents & POLLNVAL) == 0 && take_rings(fd_.get(), closed) == Rings::some) return true;
    if (closed) {
      // The exchange died. Its successor writes what the caller waits for before it can ring; its bell will be put
      // under this very number later. So the caller looks again soon, but not without end at full speed.
      timespec nap = to_timespec(std::min(closed_poll_ns, to_ns(left)));
      poll_and_count_down(nullptr, 0, nap);
      return false;
    }
    if (to_ns(left) == 0) return false;
  }
}

}  // namespace ackring::shm
