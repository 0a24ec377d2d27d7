#include "tools/shmtool/bench_bare.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

constexpr timespec patience{10, 0};

[[noreturn]] void give_up(const char* what) {
  throw Failure(status_refused, std::string("bench waiting: bare wake-ups: ") + what);
}

// The system calls themselves, one each: what a wake-up can't do without.
void ring(int fd) {
  const char byte = 1;
  if (::send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) give_up("the other side is gone");
}

void take_ring(int fd) {
  std::array<char, 16> bytes;
  if (::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT) <= 0) give_up("woken without a ring");
}

void echo(int fd) {
  const shm::UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  if (!epoll || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) give_up("no descriptors left");
  while (true) {
    const int ready = ::epoll_wait(epoll.get(), &event, 1, -1);
    if (ready < 0 && errno != EINTR) give_up("can't wait");
    if (ready != 1) continue;
    take_ring(fd);
    ring(fd);
  }
}

}  // namespace

BareWakeUps::BareWakeUps(int cpu) : bells_(shm::Bell::make_pair()) {
  echo_.emplace(Child::start("bench-bare", [this, cpu](Channel&) {
    pin_to_cpu(cpu);
    echo(bells_.second.fd());
  }));
}

void BareWakeUps::there_and_back() const {
  const int fd = bells_.first.fd();
  ring(fd);
  pollfd entry{fd, POLLIN, 0};
  if (::ppoll(&entry, 1, &patience, nullptr) != 1) give_up("no answer in 10 s");
  take_ring(fd);
}

}  // namespace ackring::tools
