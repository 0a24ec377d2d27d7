// Garbage: files of a bus without an exchange that nothing will ever read: what crashes have left, and buses that are dead
// and empty. An exchange takes the same away when it starts; this is for buses on which none starts any more.
//
// Only what is proven to be dead and empty goes: nothing with an event in it, nothing that was set aside as damaged, and
// nothing at all of a bus in which the doctor finds a violation.
// Thread rules: plain functions; any thread of any process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/shm/descriptor.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::exchange {

/// The lock of the exchange: while it is held, none can start. Throws Error (exchange_exists: one serves the bus).
class BusLock {
 public:
  explicit BusLock(shm::Directory& directory);

 private:
  shm::UniqueFd fd_;
};

struct GarbageFile {
  std::string file;
  std::string why;
  bool remove = false;  ///< false: it stays, and `why` says what for
};

struct Garbage {
  std::vector<GarbageFile> files;
  bool bus_is_empty = false;
  std::string why_not_empty;  ///< what the bus holds, if it is not
};

/// Looks, and changes nothing. `locked`: the caller holds the lock; otherwise an exchange may come meanwhile, which makes
/// the answer a guess. Throws Error (exchange_exists; damaged: the doctor finds violations; as examine() does).
[[nodiscard]] Garbage find_garbage(const shm::Directory& directory, bool locked);

/// Removes what find_garbage() has found; the caller holds the lock.
void remove_garbage(shm::Directory& directory, const Garbage& garbage) noexcept;

/// Removes bus `name` of directory `parent`, whose lock the caller holds and which is empty. It leaves its place in one step
/// before anything of it goes, so that an exchange that starts meanwhile makes a new one. False: it could not, or an
/// exchange that had opened it before has begun in it, and it is back where it was.
bool remove_bus(const std::string& parent, const std::string& name);

/// Is this the name of a directory that a remove_bus() which died has left?
[[nodiscard]] bool is_half_removed(const std::string& name) noexcept;
/// Finishes that. False: somebody holds its lock.
bool finish_removal(const std::string& parent, const std::string& name);

}  // namespace ackring::exchange
