// Segment: one mapped file with a SegmentHeader, mapped through Boost.Interprocess.
//
// Creating: temporary name → posix_fallocate (ENOSPC is an error now, never a SIGBUS later) → fill → magic, last, with
// release → rename. Attaching: size, magic (acquire), layout version and kind are checked before anything else is read.
// Mappings are MADV_DONTFORK: the child of a fork does not have them.
//
// Files that clients write (ingress rings, ack pages) may be made shorter or longer by them at any time. Whoever maps one
// read-only maps at most as much as the limits allow, and has it guarded (shm/bus_error_guard.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "lib/shm/bus_error_guard.hpp"
#include "lib/shm/descriptor.hpp"
#include "lib/shm/directory.hpp"
#include "lib/shm/format.hpp"

namespace ackring::shm {

enum class Access { read_only, read_write };

class Segment {
 public:
  Segment() noexcept;
  Segment(Segment&&) noexcept;
  Segment& operator=(Segment&&) noexcept;
  ~Segment();

  /// Creates and allocates a file of `bytes` under `name`, zeroed, calls `fill(base)` and publishes it.
  /// `reserve_bytes` (>= bytes) is how much address space to map, for files that grow. Throws Error: no_space, …
  static Segment create(Directory& directory, const std::string& name, SegmentKind kind, std::size_t bytes,
                        std::uint64_t generation, std::uint64_t owner, const std::function<void(std::byte*)>& fill = {},
                        std::size_t reserve_bytes = 0);
  /// Opens and validates an existing file. Throws Error: not_found, permission, damaged, layout_mismatch (names both).
  static Segment attach(const Directory& directory, const std::string& name, SegmentKind kind, Access access,
                        std::size_t reserve_bytes = 0);
  /// The same for a descriptor that came over the control socket; `name` is for messages. Takes the descriptor.
  static Segment attach(UniqueFd fd, const std::string& name, SegmentKind kind, Access access,
                        std::size_t reserve_bytes = 0);

  /// For looking at a file that a client may write: nothing is attached (valid() is false) where there is none, where it
  /// has fewer than `least_bytes`, or where it is ruined. Throws Error: permission, no_space, system.
  static Segment attach_client_file(const Directory& directory, const std::string& name, SegmentKind kind,
                                    std::size_t least_bytes);

  /// Makes the file at least `bytes` long, allocated. Throws Error (no_space).
  void grow(std::size_t bytes);
  /// Maps every page now, not at the first touch: with 4 KiB pages, the faults of the first round through a ring that is
  /// written take as long as 30 copies of its bytes. A wish: where the system does not do so, pages come as they are touched.
  void populate() const noexcept;

  [[nodiscard]] bool valid() const noexcept { return base_ != nullptr; }
  [[nodiscard]] std::byte* data() const noexcept { return base_; }
  /// Has a client cut the file short, and somebody read behind its new end? It is zero everywhere then. Only where the
  /// process guards against bus errors; it ends by SIGBUS otherwise.
  [[nodiscard]] bool cut_short() const noexcept;
  /// Bytes of the file when it was mapped or last grown; of a client's file, no more than the limits allow.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  template <class T>
  [[nodiscard]] T* as(std::size_t offset = 0) const noexcept {
    return reinterpret_cast<T*>(base_ + offset);
  }
  [[nodiscard]] const SegmentHeader& header() const noexcept { return *as<SegmentHeader>(); }
  /// The descriptor, kept open only for segments made with create() or attached read_write; -1 otherwise.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// Closes the descriptor and keeps the mapping.
  void close_fd() noexcept { fd_.reset(); }

 private:
  struct Mapping;
  std::unique_ptr<Mapping> mapping_;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  UniqueFd fd_;
  std::string name_;
};

/// Saves the call per mapping that keeps it from children of fork. For a program that has none, before its first mapping
/// and thread.
void this_process_never_forks() noexcept;

/// This boot's id (16 bytes of /proc/sys/kernel/random/boot_id).
const std::array<std::uint8_t, 16>& boot_id();

}  // namespace ackring::shm
