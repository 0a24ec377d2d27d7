// Kernel locks that tell life from death: an open-file-description lock lives as long as some process holds the
// description, whatever PIDs and timers say (F12, F15).
#pragma once

#include <string>

#include "lib/shm/descriptor.hpp"

namespace ackring::shm {

/// Tries to take the exclusive lock on the whole file of `fd`. False: somebody else has it. Throws Error (system).
bool try_lock(int fd);
/// True if some other open file description holds the lock of this file.
bool is_locked(int fd);

}  // namespace ackring::shm
