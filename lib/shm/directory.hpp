// Directory: where the files of one bus live. On a file system (FileDirectory), or anonymous (MemoryDirectory) for
// Bus::in_memory and for tests.
//
// Thread rules: any threads, as long as they work on different names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/shm/descriptor.hpp"
#include "lib/shm/environment.hpp"

namespace ackring::shm {

class Directory {
 public:
  virtual ~Directory() = default;
  Directory() = default;
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// Creates an empty file open for reading and writing, 0600, without a lasting name yet: `name` is a temporary one.
  /// An existing file of that name is replaced. Throws Error (no_space, permission, system).
  virtual UniqueFd create(const std::string& name) = 0;
  /// Opens an existing file, with O_NOFOLLOW; owner and mode are checked (own uid or root, no group/other write).
  /// Throws Error: not_found, permission, system.
  virtual UniqueFd open(const std::string& name, bool writable) const = 0;
  /// The same for writing, and an empty one where there is none: all who do so at once get the same file.
  virtual UniqueFd open_or_create(const std::string& name);
  /// Atomically gives `from` the name `to`, replacing what had it.
  virtual void rename(const std::string& from, const std::string& to) = 0;
  /// Removes a name; nothing if there is none. False: the system refused it, and the file is there still.
  virtual bool remove(const std::string& name) noexcept(Environment::dies_nowhere) = 0;
  /// Throws Error (no_space, permission, system) where the system can't tell.
  [[nodiscard]] virtual bool exists(const std::string& name) const = 0;
  /// Names that begin with `prefix`, sorted.
  [[nodiscard]] virtual std::vector<std::string> list(std::string_view prefix) const = 0;
  /// For messages: the path, or "(memory)".
  [[nodiscard]] virtual std::string path(std::string_view name = {}) const = 0;

  /// Writes a whole file under a temporary name and renames it: readers see the old content or the new one.
  void write_file(const std::string& name, std::string_view content);
  /// Content of a file; throws Error as open() does.
  [[nodiscard]] std::string read_file(const std::string& name) const;
};

class FileDirectory final : public Directory {
 public:
  /// Opens `path`. With `create`, makes it and missing parents (mode 0700; a parent that this call makes too).
  /// An existing one must belong to this user (or this process is root), not be writable by group or others, and not
  /// be a symbolic link. Throws Error: not_found, permission (names path, owner and mode), system.
  FileDirectory(std::string path, bool create);
  ~FileDirectory() override;

  UniqueFd create(const std::string& name) override;
  UniqueFd open(const std::string& name, bool writable) const override;
  UniqueFd open_or_create(const std::string& name) override;
  void rename(const std::string& from, const std::string& to) override;
  bool remove(const std::string& name) noexcept(Environment::dies_nowhere) override;
  [[nodiscard]] bool exists(const std::string& name) const override;
  [[nodiscard]] std::vector<std::string> list(std::string_view prefix) const override;
  [[nodiscard]] std::string path(std::string_view name = {}) const override;

 private:
  [[nodiscard]] UniqueFd open_file(const std::string& name, int flags) const;

  std::string path_;
  UniqueFd fd_;
};

class MemoryDirectory final : public Directory {
 public:
  UniqueFd create(const std::string& name) override;
  UniqueFd open(const std::string& name, bool writable) const override;
  void rename(const std::string& from, const std::string& to) override;
  bool remove(const std::string& name) noexcept(Environment::dies_nowhere) override;
  [[nodiscard]] bool exists(const std::string& name) const override;
  [[nodiscard]] std::vector<std::string> list(std::string_view prefix) const override;
  [[nodiscard]] std::string path(std::string_view name = {}) const override;
  /// A directory with the same files (their content shared), as a later process would open it.
  [[nodiscard]] std::shared_ptr<MemoryDirectory> reopen() const;
  /// A directory with copies of the files: what a crash leaves, for tests.
  [[nodiscard]] std::shared_ptr<MemoryDirectory> clone() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, UniqueFd> files_;  // memfds
};

/// $ACKRING_DIR, or /dev/shm/ackring-<uid>.
std::string default_directory();
/// Throws Error (invalid_argument) unless `name` is made of [A-Za-z0-9_.-], not empty, at most 63 bytes and does not
/// begin with '.'. `what` names it in the message ("bus", "publisher", "subscription").
void check_name(std::string_view what, std::string_view name);

}  // namespace ackring::shm
