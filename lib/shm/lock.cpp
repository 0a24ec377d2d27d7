#include "lib/shm/lock.hpp"

#include <fcntl.h>

#include <cerrno>

#include "lib/shm/system_error.hpp"

namespace ackring::shm {
namespace {

// Length 0 is "to the end, however far it moves": the whole file. l_pid must be 0 for locks of a description.
struct flock whole_file() noexcept {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

bool try_lock(int fd) {
  struct flock lock = whole_file();
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  throw system_error("lock file", "can't lock it", errno);
}

bool is_locked(int fd) {
  struct flock lock = whole_file();
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) throw system_error("lock file", "can't ask for its lock", errno);
  return lock.l_type != F_UNLCK;
}

}  // namespace ackring::shm
