#include "lib/shm/segment.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/interprocess/detail/os_file_functions.hpp>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <utility>

#include "ackring/limits.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::shm {
namespace {

namespace ipc = boost::interprocess;

// What mapped_region wants to know about a file that is open already.
class DescriptorMapping {
 public:
  explicit DescriptorMapping(int fd) noexcept : fd_(fd) {}
  [[nodiscard]] ipc::mapping_handle_t get_mapping_handle() const {
    return ipc::ipcdetail::mapping_handle_from_file_handle(fd_);
  }

 private:
  int fd_;
};

// Set once, before there are mappings or threads.
bool never_forks = false;

// Number of forks between the first process and this one; tells a child that its mappings are gone.
std::atomic<std::uint32_t> forks{0};

std::uint32_t fork_depth() noexcept {
  static const int registered = ::pthread_atfork(nullptr, nullptr, [] {
    forks.fetch_add(1, std::memory_order_relaxed);  // relaxed: only the one thread of a fresh child writes it
  });
  (void)registered;  // fails only without memory; then a child that destroys a segment unmaps what is not there
  return forks.load(std::memory_order_relaxed);  // relaxed: written before fork() returned in this process
}

std::uint64_t unix_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);  // for people who look at a segment; never decides anything
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

// One load: another process may own these bytes and change them between two looks (F26).
template <class T>
T read_once(const T& field) noexcept {
  return *static_cast<const volatile T*>(&field);
}

// Do clients write such files? Another process can then make them shorter or longer at any time.
bool written_by_clients(SegmentKind kind) noexcept {
  return kind == SegmentKind::ingress_ring || kind == SegmentKind::ack_page;
}

// The most that is mapped of them, however long somebody has made them: no address space is lost to that.
constexpr std::size_t most_client_bytes = page_bytes + limits::max_ring_bytes;

constexpr std::size_t most_populated_bytes = 4 * page_bytes;

// Makes bytes [begin, end) of the file real: what is short is an error now (F19).
void allocate(int fd, std::size_t begin, std::size_t end, const std::string& object) {
  // In steps, because a signal makes a tmpfs undo the whole call and a periodic one would do so for ever.
  constexpr std::size_t step = std::size_t{16} << 20;
  for (std::size_t at = begin; at < end;) {
    const std::size_t bytes = std::min(step, end - at);
    Environment::before_call(CrashPoint::file_allocate);
    const int error = ::posix_fallocate(fd, static_cast<off_t>(at), static_cast<off_t>(bytes));
    if (error == EINTR) continue;
    if (error != 0) throw system_error(object, fmt::format("can't allocate its {} bytes", end), error);
    at += bytes;
  }
}

std::size_t file_bytes(int fd, const std::string& object) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw system_error(object, "can't read its size", errno);
  return static_cast<std::size_t>(status.st_size);
}

[[noreturn]] void throw_damaged(const std::string& object, std::string why) {
  throw Error(ErrorCode::damaged, object, std::move(why), "remove it; its content is lost");
}

void check_header(const SegmentHeader& header, SegmentKind kind, std::size_t bytes, const std::string& object) {
  // acquire(segment.magic): the rest of the header and what fill() wrote, of a segment that was finished.
  const std::uint64_t magic = header.magic.load(std::memory_order_acquire);
  if (magic != segment_magic) {
    throw_damaged(
        object, magic == 0 ? std::string("was never finished: it has no magic number")
                           : fmt::format("is no segment: its magic number is {:#x}, not {:#x}", magic, segment_magic));
  }
  const std::uint32_t version = read_once(header.layout_version);
  if (version != layout_version) {
    throw Error(ErrorCode::layout_mismatch, object,
                fmt::format("found layout version {}, required {}", version, layout_version),
                "use programs of one ackring release on a bus");
  }
  const std::uint32_t found_kind = read_once(header.kind);
  if (found_kind != static_cast<std::uint32_t>(kind)) {
    throw_damaged(object,
                  fmt::format("found a segment of kind {}, required {}", found_kind, static_cast<std::uint32_t>(kind)));
  }
  const std::uint64_t segment_bytes = read_once(header.segment_bytes);
  if (segment_bytes < sizeof(SegmentHeader) || segment_bytes > bytes) {
    throw_damaged(object, fmt::format("the file has {} bytes, its header says {}", bytes, segment_bytes));
  }
}

}  // namespace

void this_process_never_forks() noexcept { never_forks = true; }

struct Segment::Mapping {
  Mapping(int fd, Access access, std::size_t bytes, std::string for_messages, bool guarded)
      : object(std::move(for_messages)), depth(fork_depth()) {
    const ipc::mode_t mode = access == Access::read_write ? ipc::read_write : ipc::read_only;
    try {
      // With a size of its own the region may be larger than the file (mmap allows it): pages behind the end of the
      // file come to life when the file grows.
      // What is small is there at once, without a fault for each page.
      const ipc::map_options_t options = bytes <= most_populated_bytes ? MAP_POPULATE : ipc::default_map_options;
      region = std::make_unique<ipc::mapped_region>(DescriptorMapping(fd), mode, 0, bytes, nullptr, options);
    } catch (const ipc::interprocess_exception& error) {
      throw system_error(object, fmt::format("can't map {} bytes", bytes), error.get_native_error());
    }
    if (!never_forks && ::madvise(region->get_address(), region->get_size(), MADV_DONTFORK) != 0) {
      throw system_error(object, "can't keep its mapping from children of fork", errno);
    }
    if (guarded) guard = GuardedRange(region->get_address(), region->get_size());
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    // In the child of a fork the range may hold something else by now, so it is not unmapped; the few bytes of the
    // region object are left behind.
    if (depth != fork_depth()) (void)region.release();
  }

  std::string object;
  std::uint32_t depth;
  std::unique_ptr<ipc::mapped_region> region;
  GuardedRange guard;  // behind `region`: it ends before the mapping does
};

Segment::Segment() noexcept = default;
Segment::~Segment() = default;

Segment::Segment(Segment&& other) noexcept
    : mapping_(std::move(other.mapping_)),
      base_(std::exchange(other.base_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      fd_(std::move(other.fd_)),
      name_(std::move(other.name_)) {}

Segment& Segment::operator=(Segment&& other) noexcept {
  if (this != &other) {
    mapping_ = std::move(other.mapping_);
    base_ = std::exchange(other.base_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    fd_ = std::move(other.fd_);
    name_ = std::move(other.name_);
  }
  return *this;
}

Segment Segment::create(Directory& directory, const std::string& name, SegmentKind kind, std::size_t bytes,
                        std::uint64_t generation, std::uint64_t owner, const std::function<void(std::byte*)>& fill,
                        std::size_t reserve_bytes) {
  const std::string object = directory.path(name);
  if (bytes < sizeof(SegmentHeader)) {
    throw Error(ErrorCode::invalid_argument, object,
                fmt::format("{} bytes are fewer than the {} of a header", bytes, sizeof(SegmentHeader)));
  }
  const std::string temporary = name + ".tmp";
  Segment segment;
  segment.fd_ = directory.create(temporary);
  try {
    allocate(segment.fd_.get(), 0, bytes, object);
    segment.mapping_ =
        std::make_unique<Mapping>(segment.fd_.get(), Access::read_write, std::max(bytes, reserve_bytes), object, false);
    segment.base_ = static_cast<std::byte*>(segment.mapping_->region->get_address());
    segment.bytes_ = bytes;
    segment.name_ = name;
    auto& header = *segment.as<SegmentHeader>();
    header.layout_version = layout_version;
    header.kind = static_cast<std::uint32_t>(kind);
    header.segment_bytes = bytes;
    header.generation = generation;
    header.boot_id = boot_id();
    header.created_unix_ns = unix_ns();
    header.owner = owner;
    if (fill) fill(segment.base_);
    // release(segment.magic): the header and what fill() wrote.
    header.magic.store(segment_magic, std::memory_order_release);
    directory.rename(temporary, name);
  } catch (const Error&) {
    // Only what the system refused is tidied up. Whatever else passes through here is a test's model of a death, which
    // leaves the temporary file behind as a real one would; the next create() replaces it.
    directory.remove(temporary);
    throw;
  }
  return segment;
}

Segment Segment::attach(const Directory& directory, const std::string& name, SegmentKind kind, Access access,
                        std::size_t reserve_bytes) {
  UniqueFd fd = directory.open(name, access == Access::read_write);
  Segment segment = attach(std::move(fd), directory.path(name), kind, access, reserve_bytes);
  segment.name_ = name;
  return segment;
}

Segment Segment::attach(UniqueFd fd, const std::string& name, SegmentKind kind, Access access,
                        std::size_t reserve_bytes) {
  std::size_t bytes = file_bytes(fd.get(), name);
  if (written_by_clients(kind)) bytes = std::min(bytes, most_client_bytes);
  if (bytes < sizeof(SegmentHeader)) {
    throw_damaged(name,
                  fmt::format("the file has {} bytes, fewer than the {} of a header", bytes, sizeof(SegmentHeader)));
  }
  Segment segment;
  const bool guarded = access == Access::read_only && written_by_clients(kind);
  segment.mapping_ = std::make_unique<Mapping>(fd.get(), access, std::max(bytes, reserve_bytes), name, guarded);
  segment.base_ = static_cast<std::byte*>(segment.mapping_->region->get_address());
  segment.bytes_ = bytes;
  segment.name_ = name;
  check_header(segment.header(), kind, bytes, name);
  if (access == Access::read_write) segment.fd_ = std::move(fd);
  return segment;
}

Segment Segment::attach_client_file(const Directory& directory, const std::string& name, SegmentKind kind,
                                    std::size_t least_bytes) {
  try {
    Segment segment = attach(directory, name, kind, Access::read_only);
    if (segment.bytes() >= least_bytes) return segment;
  } catch (const Error& error) {
    const ErrorCode code = error.code();
    if (code != ErrorCode::damaged && code != ErrorCode::layout_mismatch && code != ErrorCode::not_found) throw;
  }
  return {};
}

bool Segment::cut_short() const noexcept { return mapping_ && mapping_->guard.faulted(); }

void Segment::populate() const noexcept {
  // To read: that maps the pages around each at once, which a fault to write does not, and a tmpfs lets them be written.
  if (valid()) (void)::madvise(base_, bytes_, MADV_POPULATE_READ);
}

void Segment::grow(std::size_t bytes) {
  if (bytes <= bytes_) return;
  const std::string object = mapping_ ? mapping_->object : name_;
  if (!mapping_ || !fd_) {
    throw Error(ErrorCode::permission, object, "can't grow: it is not open for writing", "let its writer do it");
  }
  if (bytes > mapping_->region->get_size()) {
    throw Error(ErrorCode::no_space, object,
                fmt::format("can't grow to {} bytes, {} are reserved for it", bytes, mapping_->region->get_size()));
  }
  try {
    allocate(fd_.get(), bytes_, bytes, object);
  } catch (const Error&) {
    // What was allocated behind the old end is used by nobody yet. If this fails too, the next grow() goes on there.
    (void)!::ftruncate(fd_.get(), static_cast<off_t>(bytes_));
    throw;
  }
  bytes_ = bytes;
}

const std::array<std::uint8_t, 16>& boot_id() {
  static const std::array<std::uint8_t, 16> id = [] {
    constexpr const char* path = "/proc/sys/kernel/random/boot_id";
    const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    if (!fd) throw system_error(path, "can't open it", errno);
    std::array<char, 36> text{};  // hexadecimal digits and four hyphens
    if (::read(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      throw Error(ErrorCode::system, path, "does not hold a boot id");
    }
    std::array<std::uint8_t, 16> bytes{};
    std::size_t digits = 0;
    for (const char c : text) {
      if (c == '-') continue;
      const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
      if (value < 0 || digits == 2 * bytes.size()) throw Error(ErrorCode::system, path, "does not hold a boot id");
      bytes[digits / 2] = static_cast<std::uint8_t>(bytes[digits / 2] << 4 | value);
      ++digits;
    }
    return bytes;
  }();
  return id;
}

}  // namespace ackring::shm
