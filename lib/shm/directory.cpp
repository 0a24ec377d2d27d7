#include "lib/shm/directory.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "lib/shm/system_error.hpp"

namespace ackring::shm {
namespace {

constexpr std::string_view memory_path = "(memory)";

bool may_use_files_of(uid_t owner) noexcept { return ::geteuid() == 0 || owner == ::geteuid(); }

// Refuses what another user could have put there or could change (F22).
struct stat check_owner_and_mode(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw system_error(path, "can't read its owner and mode", errno);
  const unsigned mode = status.st_mode & 07777u;
  if (!may_use_files_of(status.st_uid)) {
    throw Error(
        ErrorCode::permission, path,
        fmt::format("belongs to user {} (mode {:04o}), this process runs as user {}", status.st_uid, mode, ::geteuid()),
        "run as that user, or choose another directory");
  }
  if ((mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw Error(ErrorCode::permission, path,
                fmt::format("owner {}, mode {:04o}: group or others may write to it", status.st_uid, mode),
                "remove that right (chmod go-w), or choose another directory");
  }
  return status;
}

[[noreturn]] void throw_open_error(const std::string& path, int error, bool is_link) {
  if (is_link) {
    throw Error(ErrorCode::permission, path, "is a symbolic link, which is not followed", "name its target", error);
  }
  throw system_error(path, "can't open it", error);
}

UniqueFd open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd && errno != ENOENT) {
    const int error = errno;
    struct stat status {};
    throw_open_error(path, error, ::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode));
  }
  return fd;
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  const std::size_t end = path.find_last_not_of('/', slash);
  return end == std::string::npos ? "/" : path.substr(0, end + 1);
}

void make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return;
  const int error = errno;
  if (error == ENOENT) {
    throw Error(ErrorCode::not_found, path, fmt::format("its parent directory {} does not exist", parent_of(path)),
                "create that one, or choose another directory", error);
  }
  // Usually the parent is somebody else's: the message shows whose.
  struct stat status {};
  if (code_of_errno(error) == ErrorCode::permission && ::stat(parent_of(path).c_str(), &status) == 0) {
    const unsigned mode = status.st_mode & 07777u;
    throw system_error(path,
                       fmt::format("can't create it in {}, which belongs to user {} (mode {:04o})", parent_of(path),
                                   status.st_uid, mode),
                       error);
  }
  throw system_error(path, "can't create it", error);
}

// The owner of the parent could exchange the directory for another one at any time.
void check_parent(const std::string& path) {
  const std::string parent = parent_of(path);
  struct stat status {};
  if (::stat(parent.c_str(), &status) != 0) throw system_error(parent, "can't read its owner", errno);
  if (status.st_uid == 0 || may_use_files_of(status.st_uid)) return;
  throw Error(ErrorCode::permission, parent,
              fmt::format("belongs to user {} (mode {:04o}), this process runs as user {}", status.st_uid,
                          status.st_mode & 07777u, ::geteuid()),
              "run as that user, or choose another directory");
}

// Names of files are components: a slash would lead out of the directory.
const char* component(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    throw Error(ErrorCode::invalid_argument, name, "is not the name of a file in a directory");
  }
  return name.c_str();
}

// A second open file description of the file behind `fd`: locks and file offsets are its own.
UniqueFd reopen_descriptor(int fd, int flags, const std::string& what) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  UniqueFd result(::open(link.c_str(), flags | O_CLOEXEC));
  if (!result) throw system_error(what, "can't open it again through /proc", errno);
  return result;
}

UniqueFd make_memfd(const std::string& name, const std::string& what) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC));
  if (!fd) throw system_error(what, "can't make a memory file", errno);
  return fd;
}

void write_all(int fd, const char* data, std::size_t bytes, off_t offset, const std::string& what) {
  while (bytes > 0) {
    Environment::before_call(CrashPoint::file_write);
    const ssize_t done = ::pwrite(fd, data, bytes, offset);
    if (done < 0) {
      if (errno == EINTR) continue;
      throw system_error(what, fmt::format("can't write {} bytes", bytes), errno);
    }
    data += done;
    bytes -= static_cast<std::size_t>(done);
    offset += done;
  }
}

// Copies the parts that hold data; the rest reads as zero in the copy as it does in the source.
void copy_content(int from, int to, const std::string& what) {
  struct stat status {};
  if (::fstat(from, &status) != 0 || ::ftruncate(to, status.st_size) != 0) {
    throw system_error(what, "can't copy it", errno);
  }
  std::vector<char> buffer(std::size_t{256} << 10);
  off_t end = 0;
  for (off_t begin = ::lseek(from, 0, SEEK_DATA); begin >= 0; begin = ::lseek(from, end, SEEK_DATA)) {
    end = ::lseek(from, begin, SEEK_HOLE);
    while (begin < end) {
      const std::size_t wanted = std::min(buffer.size(), static_cast<std::size_t>(end - begin));
      const ssize_t got = ::pread(from, buffer.data(), wanted, begin);
      if (got < 0) throw system_error(what, "can't read it", errno);
      if (got == 0) return;  // it was truncated meanwhile
      write_all(to, buffer.data(), static_cast<std::size_t>(got), begin, what);
      begin += got;
    }
  }
  if (errno != ENXIO) throw system_error(what, "can't find its data", errno);  // ENXIO: no data behind `end`
}

}  // namespace

// ----------------------------------------------------------------------------------------------------------- Directory

void Directory::write_file(const std::string& name, std::string_view content) {
  const std::string temporary = name + ".tmp";
  const UniqueFd fd = create(temporary);
  try {
    write_all(fd.get(), content.data(), content.size(), 0, path(name));
    rename(temporary, name);
  } catch (const Error&) {
    remove(temporary);
    throw;
  }
}

std::string Directory::read_file(const std::string& name) const {
  const UniqueFd fd = open(name, false);
  std::string content;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t got = ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(content.size()));
    if (got >= 0) {
      content.append(buffer.data(), static_cast<std::size_t>(got));
      if (static_cast<std::size_t>(got) < buffer.size()) return content;  // a file gives less only at its end
    } else if (errno != EINTR) {
      throw system_error(path(name), "can't read it", errno);
    }
  }
}

UniqueFd Directory::open_or_create(const std::string& name) { return exists(name) ? open(name, true) : create(name); }

// ------------------------------------------------------------------------------------------------------- FileDirectory

FileDirectory::FileDirectory(std::string path, bool create) : path_(std::move(path)) {
  if (path_.empty() || path_.find('\0') != std::string::npos) {
    throw Error(ErrorCode::invalid_argument, "directory", "its path is empty or holds a zero byte", "give its path");
  }
  // A slash at the end would make the kernel follow a symbolic link in spite of O_NOFOLLOW.
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  fd_ = open_directory(path_);
  if (!fd_ && create) {
    const std::string parent = parent_of(path_);
    struct stat status {};
    if (::stat(parent.c_str(), &status) != 0) {
      if (errno != ENOENT) throw system_error(parent, "can't look for it", errno);
      make_directory(parent);
    }
    check_parent(path_);
    make_directory(path_);
    fd_ = open_directory(path_);
  }
  if (!fd_) throw system_error(path_, "can't open this directory", ENOENT);
  check_owner_and_mode(fd_.get(), path_);
  if (create) check_parent(path_);
}

FileDirectory::~FileDirectory() = default;

UniqueFd FileDirectory::create(const std::string& name) {
  const char* file = component(name);
  Environment::before_call(CrashPoint::file_remove);
  if (::unlinkat(fd_.get(), file, 0) != 0 && errno != ENOENT) {
    throw system_error(path(name), "can't replace it", errno);
  }
  Environment::before_call(CrashPoint::file_create);
  UniqueFd fd(::openat(fd_.get(), file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) throw system_error(path(name), "can't create it", errno);
  return fd;
}

UniqueFd FileDirectory::open(const std::string& name, bool writable) const {
  return open_file(name, writable ? O_RDWR : O_RDONLY);
}

UniqueFd FileDirectory::open_or_create(const std::string& name) {
  Environment::before_call(CrashPoint::file_create);
  return open_file(name, O_RDWR | O_CREAT);
}

UniqueFd FileDirectory::open_file(const std::string& name, int flags) const {
  // O_NONBLOCK: a fifo with that name must not make this wait; it means nothing for regular files.
  UniqueFd fd(::openat(fd_.get(), component(name), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!fd) {
    const int error = errno;
    throw_open_error(path(name), error, error == ELOOP);
  }
  if (!S_ISREG(check_owner_and_mode(fd.get(), path(name)).st_mode)) {
    throw Error(ErrorCode::damaged, path(name), "is not a regular file", "remove it");
  }
  return fd;
}

void FileDirectory::rename(const std::string& from, const std::string& to) {
  Environment::before_call(CrashPoint::file_rename);
  if (::renameat(fd_.get(), component(from), fd_.get(), component(to)) != 0) {
    throw system_error(path(from), fmt::format("can't rename it to {}", to), errno);
  }
}

bool FileDirectory::remove(const std::string& name) noexcept(Environment::dies_nowhere) {
  Environment::before_call(CrashPoint::file_remove);
  if (name.empty() || name.find('/') != std::string::npos) return true;
  return ::unlinkat(fd_.get(), name.c_str(), 0) == 0 || errno == ENOENT;
}

bool FileDirectory::exists(const std::string& name) const {
  struct stat status {};
  if (::fstatat(fd_.get(), component(name), &status, AT_SYMLINK_NOFOLLOW) == 0) return true;
  // Where the system can't tell, "no" would make a new file in the place of one that is there.
  if (errno != ENOENT) throw system_error(path(name), "can't look for it", errno);
  return false;
}

std::vector<std::string> FileDirectory::list(std::string_view prefix) const {
  // A description of its own: the position in the directory belongs to the description.
  UniqueFd fd(::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw system_error(path_, "can't list it", errno);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.get()), &::closedir);
  if (!stream) throw system_error(path_, "can't list it", errno);
  (void)fd.release();  // the stream owns it now
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && name.substr(0, prefix.size()) == prefix) names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) throw system_error(path_, "can't list it", errno);
  std::sort(names.begin(), names.end());
  return names;
}

std::string FileDirectory::path(std::string_view name) const {
  if (name.empty()) return path_;
  std::string result = path_;
  if (result.back() != '/') result += '/';
  return result.append(name);
}

// ----------------------------------------------------------------------------------------------------- MemoryDirectory

UniqueFd MemoryDirectory::create(const std::string& name) {
  Environment::before_call(CrashPoint::file_create);
  UniqueFd kept = make_memfd(component(name), path(name));
  // What is handed out is another description, so that closing it gives up its locks.
  UniqueFd given = reopen_descriptor(kept.get(), O_RDWR, path(name));
  const std::lock_guard guard(mutex_);
  files_[name] = std::move(kept);
  return given;
}

UniqueFd MemoryDirectory::open(const std::string& name, bool writable) const {
  const std::lock_guard guard(mutex_);
  const auto found = files_.find(component(name));
  if (found == files_.end()) throw system_error(path(name), "can't open it", ENOENT);
  return reopen_descriptor(found->second.get(), writable ? O_RDWR : O_RDONLY, path(name));
}

void MemoryDirectory::rename(const std::string& from, const std::string& to) {
  Environment::before_call(CrashPoint::file_rename);
  const std::lock_guard guard(mutex_);
  const auto found = files_.find(component(from));
  if (found == files_.end()) throw system_error(path(from), fmt::format("can't rename it to {}", to), ENOENT);
  if (from == to) return;
  UniqueFd file = std::move(found->second);
  files_.erase(found);
  files_[component(to)] = std::move(file);
}

bool MemoryDirectory::remove(const std::string& name) noexcept(Environment::dies_nowhere) {
  Environment::before_call(CrashPoint::file_remove);
  const std::lock_guard guard(mutex_);
  files_.erase(name);
  return true;
}

bool MemoryDirectory::exists(const std::string& name) const {
  const std::lock_guard guard(mutex_);
  return files_.count(component(name)) != 0;
}

std::vector<std::string> MemoryDirectory::list(std::string_view prefix) const {
  const std::lock_guard guard(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) {
    if (std::string_view(name).substr(0, prefix.size()) == prefix) names.push_back(name);
  }
  return names;
}

std::string MemoryDirectory::path(std::string_view name) const {
  std::string result(memory_path);
  if (!name.empty()) result.append("/").append(name);
  return result;
}

std::shared_ptr<MemoryDirectory> MemoryDirectory::reopen() const {
  auto result = std::make_shared<MemoryDirectory>();
  const std::lock_guard guard(mutex_);
  for (const auto& [name, file] : files_) {
    result->files_[name] = reopen_descriptor(file.get(), O_RDWR, path(name));
  }
  return result;
}

std::shared_ptr<MemoryDirectory> MemoryDirectory::clone() const {
  auto result = std::make_shared<MemoryDirectory>();
  const std::lock_guard guard(mutex_);
  for (const auto& [name, file] : files_) {
    UniqueFd copy = make_memfd(name, path(name));
    copy_content(file.get(), copy.get(), path(name));
    result->files_[name] = std::move(copy);
  }
  return result;
}

}  // namespace ackring::shm
