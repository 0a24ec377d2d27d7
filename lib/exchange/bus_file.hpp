// BusFile: one file of a bus that nobody vouches for, read piece by piece with pread. It may be cut short or overwritten
// while it is read: a read says false then, and nothing faults.
//
// Thread rules: one thread per object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/shm/directory.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

/// The value of a word of a copy.
template <class T>
T value(const shm::Word<T>& word) noexcept {
  return word.load(std::memory_order_relaxed);  // relaxed: nobody else has the copy
}

class BusFile {
 public:
  BusFile() noexcept = default;
  /// Throws Error as Directory::open does.
  BusFile(const shm::Directory& directory, const std::string& name);

  [[nodiscard]] bool valid() const noexcept { return static_cast<bool>(fd_); }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Size when it was opened.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// False: the file does not have all of these bytes.
  [[nodiscard]] bool read(std::uint64_t offset, std::uint64_t bytes, void* into) const;
  template <class T>
  [[nodiscard]] bool read_as(std::uint64_t offset, T& into) const {
    return read(offset, sizeof into, static_cast<void*>(&into));
  }
  /// The same through a buffer that reads ahead, for walks. The bytes stay where they are until the next call; nullptr as
  /// read() says false.
  [[nodiscard]] const std::byte* look(std::uint64_t offset, std::uint64_t bytes);
  /// What was read ahead counts no more.
  void forget() noexcept { buffered_ = 0; }

 private:
  std::string name_;
  shm::UniqueFd fd_;
  std::uint64_t bytes_ = 0;
  std::vector<std::uint64_t> buffer_;  // of eight bytes each, so that what lies in it is aligned
  std::uint64_t buffer_at_ = 0;
  std::uint64_t buffered_ = 0;
};

enum class FileKind {
  unknown,
  lock,
  socket,
  exchange,
  topics,
  publisher_ring,
  publisher_cursor,
  client_lock,
  definition,
  state,
  ring,
  ack,
  backlog,
  retry,
  dead,
  temporary,
  damaged,
};

/// What the name of a file says. Numbers are written without leading zeros, those of log segments with eight digits or more.
struct BusFileName {
  FileKind kind = FileKind::unknown;
  std::uint64_t owner = 0;   ///< publisher slot, client, subscription
  std::uint64_t number = 0;  ///< incarnation, or number of the log segment
};
[[nodiscard]] BusFileName parse_file_name(std::string_view name) noexcept;

}  // namespace ackring::exchange
