#include "tests/faults/failing_calls.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <fstream>
#include <initializer_list>

namespace ackring::test {
namespace {

thread_local CallPlan* of_thread = nullptr;
thread_local bool exempt = false;
std::atomic<CallPlan*> of_all{nullptr};

CallPlan* plan_here() noexcept {
  if (of_thread != nullptr || exempt) return of_thread;
  return of_all.load(std::memory_order_acquire);
}

// Is it this call's turn to fail? Then the error.
int refusal(const char* call, std::initializer_list<int> possible) noexcept {
  CallPlan* plan = plan_here();
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

// A wait that is made again and again: the first ones only, since how many there are is chance.
bool wait_refused(const char* call, std::initializer_list<int> possible) noexcept {
  constexpr std::uint64_t most = 12;
  CallPlan* plan = plan_here();
  if (plan == nullptr || plan->waits.fetch_add(1, std::memory_order_relaxed) >= most) return false;
  return refused(call, possible);
}

// The kernel has no numbers for the descriptors of a message: it gives up those, and the call succeeds.
void lose_descriptors(msghdr& header) noexcept {
  bool any = false;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    any = any || (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS);
  }
  if (!any || refusal("recvmsg", {EMFILE}) == 0) return;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    for (std::size_t at = CMSG_LEN(0); at + sizeof(int) <= part->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      ::memcpy(&fd, reinterpret_cast<const char*>(part) + at, sizeof fd);
      ::close(fd);
    }
  }
  header.msg_controllen = 0;
  header.msg_flags |= MSG_CTRUNC;
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
  static const std::vector<int> errors = {ENOSPC, EMFILE, ENFILE, EACCES, ENOMEM, EINTR, ENOLCK};
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
    case ENOLCK:
      return "ENOLCK";
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

std::size_t mapped_files() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("/ackring-faults-") != std::string::npos ? 1 : 0;
  return count;
}

}  // namespace ackring::test

// The names are those that the library's objects ask for; with 64-bit offsets these end in 64. The attributes of the C
// library's own declarations can't be repeated here, so each function has another name in C++.
using ackring::test::lose_descriptors;
using ackring::test::real;
using ackring::test::refusal;
using ackring::test::refused;
using ackring::test::wait_refused;

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

// Names and modes of files. Nothing that a process asks of a tmpfs is refused but for memory, room and rights.
ACKRING_CALL(int, unlinkat, "unlinkat", (int folder, const char* path, int flags)) {
  if (refused("unlinkat", {EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, const char*, int)>("unlinkat");
  return call(folder, path, flags);
}
ACKRING_CALL(int, unlink, "unlink", (const char* path)) {
  if (refused("unlink", {EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*)>("unlink");
  return call(path);
}
ACKRING_CALL(int, rename, "rename", (const char* from, const char* to)) {
  if (refused("rename", {ENOSPC, EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, const char*)>("rename");
  return call(from, to);
}
ACKRING_CALL(int, mkdir, "mkdir", (const char* path, mode_t mode)) {
  if (refused("mkdir", {ENOSPC, EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, mode_t)>("mkdir");
  return call(path, mode);
}
ACKRING_CALL(int, chmod, "chmod", (const char* path, mode_t mode)) {
  if (refused("chmod", {EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, mode_t)>("chmod");
  return call(path, mode);
}
ACKRING_CALL(int, fstat, "fstat64", (int fd, struct stat* status)) {
  if (refused("fstat", {ENOMEM})) return -1;
  static const auto call = real<int (*)(int, struct stat*)>("fstat64");
  return call(fd, status);
}
ACKRING_CALL(int, stat, "stat64", (const char* path, struct stat* status)) {
  if (refused("stat", {EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, struct stat*)>("stat64");
  return call(path, status);
}
ACKRING_CALL(int, lstat, "lstat64", (const char* path, struct stat* status)) {
  if (refused("lstat", {EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(const char*, struct stat*)>("lstat64");
  return call(path, status);
}
ACKRING_CALL(int, fstatat, "fstatat64", (int folder, const char* path, struct stat* status, int flags)) {
  if (refused("fstatat", {EACCES, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, const char*, struct stat*, int)>("fstatat64");
  return call(folder, path, status, flags);
}
ACKRING_CALL(int, ftruncate, "ftruncate64", (int fd, off_t bytes)) {
  if (refused("ftruncate", {EINTR, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, off_t)>("ftruncate64");
  return call(fd, bytes);
}
ACKRING_CALL(int, fcntl, "fcntl64", (int fd, int command, ...)) {
  va_list rest;
  va_start(rest, command);
  void* argument = va_arg(rest, void*);  // a number is passed like a pointer
  va_end(rest);
  const bool lock = command == F_OFD_SETLK || command == F_OFD_GETLK;
  if (lock && refused("fcntl", {ENOLCK, ENOMEM})) return -1;
  static const auto call = real<int (*)(int, int, ...)>("fcntl64");
  return call(fd, command, argument);
}
ACKRING_CALL(void*, fdopendir, "fdopendir", (int fd)) {
  if (refused("fdopendir", {ENOMEM})) return nullptr;
  static const auto call = real<void* (*)(int)>("fdopendir");
  return call(fd);
}
ACKRING_CALL(int, dup3, "dup3", (int fd, int as, int flags)) {
  if (refused("dup3", {EMFILE, EINTR})) return -1;
  static const auto call = real<int (*)(int, int, int)>("dup3");
  return call(fd, as, flags);
}

// Sockets.
ACKRING_CALL(int, accept4, "accept4", (int fd, sockaddr* address, socklen_t* bytes, int flags)) {
  if (refused("accept4", {EMFILE, ENFILE, ENOMEM, EINTR})) return -1;
  static const auto call = real<int (*)(int, sockaddr*, socklen_t*, int)>("accept4");
  return call(fd, address, bytes, flags);
}
ACKRING_CALL(int, connect, "connect", (int fd, const sockaddr* address, socklen_t bytes)) {
  if (refused("connect", {EACCES, ENOMEM, EINTR})) return -1;
  static const auto call = real<int (*)(int, const sockaddr*, socklen_t)>("connect");
  return call(fd, address, bytes);
}
ACKRING_CALL(int, bind, "bind", (int fd, const sockaddr* address, socklen_t bytes)) {
  if (refused("bind", {ENOSPC, EACCES, ENOMEM})) return -1;  // it makes a file
  static const auto call = real<int (*)(int, const sockaddr*, socklen_t)>("bind");
  return call(fd, address, bytes);
}
ACKRING_CALL(int, listen, "listen", (int fd, int backlog)) {
  if (refused("listen", {EACCES})) return -1;  // a security module's word
  static const auto call = real<int (*)(int, int)>("listen");
  return call(fd, backlog);
}
ACKRING_CALL(ssize_t, sendmsg, "sendmsg", (int fd, const msghdr* header, int flags)) {
  if (refused("sendmsg", {ENOMEM, EINTR})) return -1;
  static const auto call = real<ssize_t (*)(int, const msghdr*, int)>("sendmsg");
  return call(fd, header, flags);
}
ACKRING_CALL(ssize_t, recvmsg, "recvmsg", (int fd, msghdr* header, int flags)) {
  if (refused("recvmsg", {ENOMEM, EINTR})) return -1;
  static const auto call = real<ssize_t (*)(int, msghdr*, int)>("recvmsg");
  const ssize_t got = call(fd, header, flags);
  if (got > 0) lose_descriptors(*header);
  return got;
}
ACKRING_CALL(ssize_t, send, "send", (int fd, const void* data, size_t bytes, int flags)) {
  if (refused("send", {ENOMEM, EINTR})) return -1;
  static const auto call = real<ssize_t (*)(int, const void*, size_t, int)>("send");
  return call(fd, data, bytes, flags);
}
ACKRING_CALL(ssize_t, recv, "recv", (int fd, void* data, size_t bytes, int flags)) {
  if (refused("recv", {ENOMEM, EINTR})) return -1;
  static const auto call = real<ssize_t (*)(int, void*, size_t, int)>("recv");
  return call(fd, data, bytes, flags);
}
ACKRING_CALL(ssize_t, read, "read", (int fd, void* data, size_t bytes)) {
  if (bytes > 8 && refused("read", {EINTR, ENOMEM})) return -1;  // an eventfd never fails with these
  static const auto call = real<ssize_t (*)(int, void*, size_t)>("read");
  return call(fd, data, bytes);
}

// Waits.
ACKRING_CALL(int, poll, "poll", (pollfd * entries, nfds_t count, int timeout_ms)) {
  if (wait_refused("poll", {ENOMEM, EINTR})) return -1;
  static const auto call = real<int (*)(pollfd*, nfds_t, int)>("poll");
  return call(entries, count, timeout_ms);
}
ACKRING_CALL(int, ppoll, "ppoll", (pollfd * entries, nfds_t count, const timespec* timeout, const sigset_t* mask)) {
  if (wait_refused("ppoll", {ENOMEM, EINTR})) return -1;
  static const auto call = real<int (*)(pollfd*, nfds_t, const timespec*, const sigset_t*)>("ppoll");
  return call(entries, count, timeout, mask);
}
ACKRING_CALL(int, epoll_wait, "epoll_wait", (int epoll, epoll_event* events, int most, int timeout_ms)) {
  if (wait_refused("epoll_wait", {EINTR})) return -1;
  static const auto call = real<int (*)(int, epoll_event*, int, int)>("epoll_wait");
  return call(epoll, events, most, timeout_ms);
}
ACKRING_CALL(long, syscall, "syscall", (long number, ...)) {
  long arguments[6];
  va_list rest;
  va_start(rest, number);
  for (long& argument : arguments)
    argument = va_arg(rest, long);  // of those that were not given, the call asks nothing
  va_end(rest);
  if (number == SYS_ppoll && wait_refused("ppoll", {ENOMEM, EINTR})) return -1;
  // No guarded static: the C++ library waits for those by this very call.
  static constinit std::atomic<long (*)(long, ...)> found{nullptr};
  auto* call = found.load(std::memory_order_relaxed);
  if (call == nullptr) found.store(call = real<long (*)(long, ...)>("syscall"), std::memory_order_relaxed);
  return call(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}
