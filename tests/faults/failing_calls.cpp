#include "tests/faults/failing_calls.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <initializer_list>

namespace ackring::test {
namespace {

thread_local CallPlan* of_thread = nullptr;
thread_local bool exempt = false;
std::atomic<CallPlan*> of_all{nullptr};

// Is it this call's turn to fail? Then the error.
int refusal(const char* call, std::initializer_list<int> possible) noexcept {
  CallPlan* plan = of_thread;
  if (plan == nullptr && !exempt) plan = of_all.load(std::memory_order_acquire);
  if (plan == nullptr) return 0;
  for (const int error : possible) {
    if (error != plan->error) continue;
    const std::uint64_t position = plan->positions.fetch_add(1, std::memory_order_relaxed);
    if (plan->lasting ? position < plan->fail_at : position != plan->fail_at) return 0;
    if (!plan->failed.exchange(true, std::memory_order_relaxed)) plan->call.store(call, std::memory_order_relaxed);
    return error;
  }
  return 0;
}

bool refused(const char* call, std::initializer_list<int> possible) noexcept {
  const int error = refusal(call, possible);
  if (error != 0) errno = error;
  return error != 0;
}

template <class Function>
Function real(const char* name) noexcept {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

Armed::Armed(CallPlan& plan) noexcept : before_(of_thread) { of_thread = &plan; }
Armed::~Armed() { of_thread = before_; }
ArmedEverywhere::ArmedEverywhere(CallPlan& plan) noexcept { of_all.store(&plan, std::memory_order_release); }
ArmedEverywhere::~ArmedEverywhere() { of_all.store(nullptr, std::memory_order_release); }
void exempt_this_thread() noexcept { exempt = true; }

const std::vector<int>& injected_errors() {
  static const std::vector<int> errors = {ENOSPC, EMFILE, ENFILE, EACCES, ENOMEM, EINTR};
  return errors;
}

std::string error_name(int error) {
  switch (error) {
    case ENOSPC:
      return "ENOSPC";
    case EMFILE:
      return "EMFILE";
    case ENFILE:
      return "ENFILE";
    case EACCES:
      return "EACCES";
    case ENOMEM:
      return "ENOMEM";
    case EINTR:
      return "EINTR";
    default:
      return std::to_string(error);
  }
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* list = ::opendir("/proc/self/fd");
  while (list != nullptr && ::readdir(list) != nullptr) ++count;
  if (list != nullptr) ::closedir(list);
  return count;
}

}  // namespace ackring::test

// The names are those that the library's objects ask for; with 64-bit offsets these end in 64. The attributes of the C
// library's own declarations can't be repeated here, so each function has another name in C++.
using ackring::test::real;
using ackring::test::refusal;
using ackring::test::refused;

#define ACKRING_CALL(result, name, symbol, parameters) \
  extern "C" result failing_##name parameters __asm__(symbol); \
  extern "C" result failing_##name parameters

ACKRING_CALL(int, open, "open64", (const char* path, int flags, ...)) {
  va_list rest;
  va_start(rest, flags);
  const unsigned mode = (flags & O_CREAT) != 0 ? va_arg(rest, unsigned) : 0;
  va_end(rest);
  if (refused("open", {EMFILE, ENFILE, EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, int, ...)>("open64");
  return call(path, flags, mode);
}
ACKRING_CALL(int, openat, "openat64", (int folder, const char* path, int flags, ...)) {
  va_list rest;
  va_start(rest, flags);
  const unsigned mode = (flags & O_CREAT) != 0 ? va_arg(rest, unsigned) : 0;
  va_end(rest);
  if ((flags & O_CREAT) != 0 && refused("openat", {ENOSPC})) return -1;
  if (refused("openat", {EMFILE, ENFILE, EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, const char*, int, ...)>("openat64");
  return call(folder, path, flags, mode);
}
ACKRING_CALL(int, posix_fallocate, "posix_fallocate64", (int fd, off_t from, off_t bytes)) {
  if (const int error = refusal("posix_fallocate", {ENOSPC, EINTR})) return error;
  static const auto call = real<int (*)(int, off_t, off_t)>("posix_fallocate64");
  return call(fd, from, bytes);
}
ACKRING_CALL(void*, mmap, "mmap64", (void* at, size_t bytes, int protection, int flags, int fd, off_t offset)) {
  if (fd >= 0 && refused("mmap", {ENOMEM})) return reinterpret_cast<void*>(-1);  // the allocator's own are not ours
  static const auto call = real<void* (*)(void*, size_t, int, int, int, off_t)>("mmap64");
  return call(at, bytes, protection, flags, fd, offset);
}
ACKRING_CALL(int, madvise, "madvise", (void* at, size_t bytes, int advice)) {
  if (refused("madvise", {ENOMEM})) return -1;
  static const auto call = real<int (*)(void*, size_t, int)>("madvise");
  return call(at, bytes, advice);
}
ACKRING_CALL(int, renameat, "renameat", (int from_folder, const char* from, int to_folder, const char* to)) {
  if (refused("renameat", {ENOSPC, EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, const char*, int, const char*)>("renameat");
  return call(from_folder, from, to_folder, to);
}
ACKRING_CALL(int, memfd_create, "memfd_create", (const char* name, unsigned flags)) {
  if (refused("memfd_create", {EMFILE, ENFILE, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, unsigned)>("memfd_create");
  return call(name, flags);
}
ACKRING_CALL(int, socketpair, "socketpair", (int domain, int type, int protocol, int* ends)) {
  if (refused("socketpair", {EMFILE, ENFILE, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, int, int, int*)>("socketpair");
  return call(domain, type, protocol, ends);
}
ACKRING_CALL(int, socket, "socket", (int domain, int type, int protocol)) {
  if (refused("socket", {EMFILE, ENFILE, ENOMEM, EACCES})) return -1;
  static const auto call = real<int (*)(int, int, int)>("socket");
  return call(domain, type, protocol);
}
ACKRING_CALL(int, eventfd, "eventfd", (unsigned value, int flags)) {
  if (refused("eventfd", {EMFILE, ENFILE, ENOMEM})) return -1;
  static const auto call = real<int (*)(unsigned, int)>("eventfd");
  return call(value, flags);
}
ACKRING_CALL(int, epoll_create1, "epoll_create1", (int flags)) {
  if (refused("epoll_create1", {EMFILE, ENFILE, ENOMEM})) return -1;
  static const auto call = real<int (*)(int)>("epoll_create1");
  return call(flags);
}
ACKRING_CALL(int, epoll_ctl, "epoll_ctl", (int epoll, int operation, int fd, epoll_event* event)) {
  if (operation == EPOLL_CTL_ADD && refused("epoll_ctl", {ENOSPC, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, int, int, epoll_event*)>("epoll_ctl");
  return call(epoll, operation, fd, event);
}
ACKRING_CALL(ssize_t, pwrite, "pwrite64", (int fd, const void* data, size_t bytes, off_t offset)) {
  if (refused("pwrite", {ENOSPC, EINTR, ENOMEM})) return -1;
  static const auto call = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite64");
  return call(fd, data, bytes, offset);
}
ACKRING_CALL(ssize_t, pread, "pread64", (int fd, void* data, size_t bytes, off_t offset)) {
  if (refused("pread", {EINTR, ENOMEM})) return -1;
  static const auto call = real<ssize_t (*)(int, void*, size_t, off_t)>("pread64");
  return call(fd, data, bytes, offset);
}
ACKRING_CALL(ssize_t, write, "write", (int fd, const void* data, size_t bytes)) {
  // A doorbell and an eventfd never fail with these; what is longer than their words goes into a file of memory.
  if (bytes > 8 && refused("write", {ENOSPC, EINTR, ENOMEM})) return -1;
  static const auto call = real<ssize_t (*)(int, const void*, size_t)>("write");
  return call(fd, data, bytes);
}
