#include "lib/shm/segment.hpp"

#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>

#include "tests/shm/support.hpp"

using namespace ackring;
using namespace ackring::shm;
using namespace ackring::test;

namespace {

constexpr std::size_t page = page_bytes;

void overwrite(Directory& directory, const std::string& name, std::size_t offset, std::uint32_t value) {
  const UniqueFd fd = directory.open(name, true);
  REQUIRE(::pwrite(fd.get(), &value, sizeof value, static_cast<off_t>(offset)) == sizeof value);
}

Error attach_error(const Directory& directory, const std::string& name, Access access = Access::read_only) {
  return error_of([&] { (void)Segment::attach(directory, name, SegmentKind::log, access); });
}

// Is some mapping of this process at `address`?
bool mapped(const void* address) {
  unsigned char state = 0;
  return ::mincore(const_cast<void*>(address), page, &state) == 0;
}

}  // namespace

TEST_CASE("a created segment is zeroed, allocated, has a full header and what fill() wrote") {
  const TemporaryDirectory temporary;
  FileDirectory files(temporary.path(), false);
  MemoryDirectory memory;
  for (Directory* directory : {static_cast<Directory*>(&files), static_cast<Directory*>(&memory)}) {
    const Segment made = Segment::create(*directory, "s", SegmentKind::log, 5 * page, 7, 9, [&](std::byte* base) {
      CHECK(reinterpret_cast<const SegmentHeader*>(base)->owner == 9);
      CHECK_FALSE(directory->exists("s"));  // it gets its name when it is complete
      base[page] = std::byte{42};
    });
    CHECK(made.valid());
    CHECK(made.bytes() == 5 * page);
    CHECK(made.name() == "s");
    CHECK(made.fd() >= 0);
    CHECK(directory->list("") == std::vector<std::string>{"s"});
    struct stat status {};
    REQUIRE(::fstat(made.fd(), &status) == 0);
    CHECK(static_cast<std::size_t>(status.st_size) == 5 * page);
    CHECK(static_cast<std::size_t>(status.st_blocks) * 512 >= 5 * page);

    const Segment seen = Segment::attach(*directory, "s", SegmentKind::log, Access::read_only);
    CHECK(seen.data() != made.data());
    CHECK(seen.fd() == -1);
    CHECK(seen.bytes() == 5 * page);
    CHECK(seen.name() == "s");
    CHECK(seen.header().generation == 7);
    CHECK(seen.header().owner == 9);
    CHECK(seen.header().kind == static_cast<std::uint32_t>(SegmentKind::log));
    CHECK(seen.header().segment_bytes == 5 * page);
    CHECK(seen.header().created_unix_ns > 1'600'000'000'000'000'000u);
    CHECK(seen.header().boot_id == boot_id());
    CHECK(seen.data()[page] == std::byte{42});
    for (std::size_t i = page + 1; i < 5 * page; ++i) REQUIRE(seen.data()[i] == std::byte{0});

    Segment writer = Segment::attach(*directory, "s", SegmentKind::log, Access::read_write);
    CHECK(writer.fd() >= 0);
    writer.data()[page] = std::byte{43};
    CHECK(seen.data()[page] == std::byte{43});
    CHECK(made.data()[page] == std::byte{43});
    writer.close_fd();
    CHECK(writer.fd() == -1);
    writer.data()[page] = std::byte{44};
    CHECK(made.data()[page] == std::byte{44});
    const Segment replacing = Segment::create(*directory, "s", SegmentKind::log, page, 8, 9);
    CHECK(made.data()[page] == std::byte{44});  // who has the old one keeps it
    CHECK(Segment::attach(*directory, "s", SegmentKind::log, Access::read_only).header().generation == 8);
  }
}

TEST_CASE("a read-only mapping can't be written to") {
  MemoryDirectory memory;
  (void)Segment::create(memory, "s", SegmentKind::log, page, 1, 1);
  const Segment reader = Segment::attach(memory, "s", SegmentKind::log, Access::read_only);
  CHECK(::mprotect(reader.data(), page, PROT_READ | PROT_WRITE) == -1);
  const Error error = error_of(
      [&] { (void)Segment::attach(memory.open("s", false), "over a socket", SegmentKind::log, Access::read_write); });
  CHECK(error.code() == ErrorCode::permission);
  CHECK(error.object() == "over a socket");
}

TEST_CASE("the pages of a populated segment come without faults, also when they are written") {
  MemoryDirectory memory;
  constexpr std::size_t pages = 512;
  const Segment segment = Segment::create(memory, "s", SegmentKind::member_ring, pages * page, 1, 1);
  const auto faults_of_a_round = [](const Segment& written) {
    rusage before{};
    rusage after{};
    ::getrusage(RUSAGE_SELF, &before);
    for (std::size_t at = 0; at < pages; ++at) written.as<volatile char>(at * page)[page - 1] = 'x';
    ::getrusage(RUSAGE_SELF, &after);
    return after.ru_minflt - before.ru_minflt;
  };
  const Segment touched = Segment::attach(memory, "s", SegmentKind::member_ring, Access::read_write);
  const long usual = faults_of_a_round(touched);
  if (usual < static_cast<long>(pages / 20)) {
    MESSAGE("this system has large pages for shared memory: nothing to save");
    return;
  }
  const Segment populated = Segment::attach(memory, "s", SegmentKind::member_ring, Access::read_write);
  populated.populate();
  const long left = faults_of_a_round(populated);  // those of a sanitizer's shadow
  CHECK(usual - left > static_cast<long>(pages * 9 / 10));
  Segment().populate();
}

TEST_CASE("moving a segment leaves nothing behind") {
  MemoryDirectory memory;
  Segment a = Segment::create(memory, "a", SegmentKind::log, page, 1, 1);
  std::byte* const base = a.data();
  Segment b = std::move(a);
  CHECK_FALSE(a.valid());  // NOLINT(bugprone-use-after-move): that is the question
  CHECK(a.bytes() == 0);
  CHECK(a.fd() == -1);
  CHECK(b.data() == base);
  Segment c = Segment::create(memory, "c", SegmentKind::log, page, 1, 1);
  const void* const old = c.data();
  c = std::move(b);
  CHECK(c.data() == base);
  CHECK_FALSE(mapped(old));
  c = Segment();
  CHECK_FALSE(mapped(base));
}

TEST_CASE("attaching what is not a finished segment of this layout and kind") {
  const TemporaryDirectory temporary;
  FileDirectory directory(temporary.path(), false);
  CHECK(attach_error(directory, "none").code() == ErrorCode::not_found);

  directory.write_file("empty", "");
  directory.write_file("short", std::string(sizeof(SegmentHeader) - 1, 'x'));
  directory.write_file("zeros", std::string(page, '\0'));
  directory.write_file("text", std::string(page, 'x'));
  for (const char* name : {"empty", "short", "zeros", "text"}) {
    const Error error = attach_error(directory, name);
    CHECK(error.code() == ErrorCode::damaged);
    CHECK(error.object() == directory.path(name));
  }
  CHECK(contains(attach_error(directory, "short").what(), "127 bytes"));
  CHECK(contains(attach_error(directory, "zeros").what(), "never finished"));

  (void)Segment::create(directory, "s", SegmentKind::log, 2 * page, 1, 1);
  const Error kind = error_of([&] { (void)Segment::attach(directory, "s", SegmentKind::topics, Access::read_only); });
  CHECK(kind.code() == ErrorCode::damaged);
  CHECK(contains(kind.what(), "found a segment of kind 8, required 2"));

  REQUIRE(::truncate(directory.path("s").c_str(), static_cast<off_t>(page)) == 0);
  const Error truncated = attach_error(directory, "s", Access::read_write);
  CHECK(truncated.code() == ErrorCode::damaged);
  CHECK(contains(truncated.what(), "the file has 4096 bytes, its header says 8192"));

  overwrite(directory, "s", offsetof(SegmentHeader, layout_version), layout_version + 41);
  const Error version = attach_error(directory, "s");
  CHECK(version.code() == ErrorCode::layout_mismatch);
  CHECK(contains(version.what(), "found layout version " + std::to_string(layout_version + 41) + ", required " +
                                     std::to_string(layout_version)));
}

TEST_CASE("bad sizes are refused") {
  MemoryDirectory memory;
  CHECK(error_of([&] {
          (void)Segment::create(memory, "s", SegmentKind::log, sizeof(SegmentHeader) - 1, 1, 1);
        }).code() == ErrorCode::invalid_argument);
  CHECK(error_of([&] {
          (void)Segment::create(memory, "s", SegmentKind::log, page, 1, 1, {}, std::size_t{1} << 60);
        }).code() == ErrorCode::no_space);
  CHECK(memory.list("").empty());
}

TEST_CASE("a segment grows within what is reserved, and others that reserved see it") {
  MemoryDirectory memory;
  Segment writer = Segment::create(memory, "s", SegmentKind::topics, page, 1, 1, {}, 100 * page);
  const Segment reader = Segment::attach(memory, "s", SegmentKind::topics, Access::read_only, 100 * page);
  CHECK(reader.bytes() == page);
  writer.grow(page);
  CHECK(writer.bytes() == page);
  writer.grow(50 * page);
  CHECK(writer.bytes() == 50 * page);
  struct stat status {};
  REQUIRE(::fstat(writer.fd(), &status) == 0);
  CHECK(static_cast<std::size_t>(status.st_size) == 50 * page);
  CHECK(static_cast<std::size_t>(status.st_blocks) * 512 >= 50 * page);
  writer.data()[50 * page - 1] = std::byte{7};
  CHECK(reader.data()[50 * page - 1] == std::byte{7});
  CHECK(Segment::attach(memory, "s", SegmentKind::topics, Access::read_only).bytes() == 50 * page);
  writer.grow(100 * page);
  const Error error = error_of([&] { writer.grow(100 * page + 1); });
  CHECK(error.code() == ErrorCode::no_space);
  CHECK(contains(error.what(), "(memory)/s"));
  CHECK(contains(error.what(), std::to_string(100 * page + 1)));
  CHECK(writer.bytes() == 100 * page);

  Segment read_only = Segment::attach(memory, "s", SegmentKind::topics, Access::read_only, 200 * page);
  CHECK(error_of([&] { read_only.grow(150 * page); }).code() == ErrorCode::permission);
  Segment later = Segment::attach(memory, "s", SegmentKind::topics, Access::read_write, 200 * page);
  later.grow(150 * page);
  CHECK(later.bytes() == 150 * page);
}

TEST_CASE("a full tmpfs is an error when a segment is created or grown (F19)") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: only root can mount a small tmpfs");
    return;
  }
  const TemporaryDirectory temporary;
  const std::string problem = in_child([&]() -> std::string {
    // In a mount namespace of its own, so that the mount ends with this child.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", temporary.path().c_str(), "tmpfs", 0, "size=1m,mode=0700") != 0) {
      return "skip";
    }
    FileDirectory directory(temporary.path(), false);
    std::string result =
        expect_error(ErrorCode::no_space, temporary.path() + "/big: can't allocate its 2097152 bytes",
                     [&] { (void)Segment::create(directory, "big", SegmentKind::log, 2u << 20, 1, 1); });
    if (!directory.list("").empty()) result += "leftovers: " + directory.list("").front();
    Segment segment = Segment::create(directory, "s", SegmentKind::log, page, 1, 1, {}, 64u << 20);
    result +=
        expect_error(ErrorCode::no_space, "/s: can't allocate its 33554432 bytes", [&] { segment.grow(32u << 20); });
    struct stat status {};
    ::fstat(segment.fd(), &status);
    if (status.st_size != static_cast<off_t>(page)) result += "a failed grow left a longer file";
    if (segment.bytes() != page) result += "a failed grow changed bytes()";
    segment.grow(512u << 10);  // what fits works afterwards
    std::memset(segment.data() + page, 1, (512u << 10) - page);
    result +=
        expect_error(ErrorCode::no_space, "/text: ", [&] { directory.write_file("text", std::string(1u << 20, 'x')); });
    if (directory.exists("text") || directory.exists("text.tmp")) result += "write_file left something";
    return result;
  });
  if (problem == "skip") {
    MESSAGE("skipped: can't mount a tmpfs here");
  } else {
    CHECK(problem == "");
  }
}

TEST_CASE("no descriptors left: the error says which limit") {
  const TemporaryDirectory temporary;
  FileDirectory files(temporary.path(), false);
  (void)Segment::create(files, "s", SegmentKind::log, page, 1, 1);
  (void)boot_id();
  const std::string problem = in_child([&] {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 3;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return std::string("setrlimit failed");
    std::string result = expect_error(ErrorCode::no_space, "ulimit -n",
                                      [&] { (void)Segment::create(files, "t", SegmentKind::log, page, 1, 1); });
    result += expect_error(ErrorCode::no_space, "ulimit -n",
                           [&] { (void)Segment::attach(files, "s", SegmentKind::log, Access::read_only); });
    return result;
  });
  CHECK(problem == "");
}

TEST_CASE("a forked child does not have the mappings, and destroying its copies unmaps nothing (F8)") {
  MemoryDirectory memory;
  Segment segment = Segment::create(memory, "s", SegmentKind::log, 16 * page, 1, 1);
  REQUIRE(mapped(segment.data()));
  const std::string problem = in_child([&]() -> std::string {
    void* const address = segment.data();
    if (mapped(address)) return "the child has the mapping";
    // Something of the child's own now lies in the same place.
    void* const own =
        ::mmap(address, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (own != address) return "can't map there";
    segment = Segment();
    if (!mapped(address)) return "the child's own mapping was removed";
    const Segment fresh = Segment::attach(memory, "s", SegmentKind::log, Access::read_only);
    return mapped(fresh.data()) ? "" : "a child's own segment is not mapped";
  });
  CHECK(problem == "");
  CHECK(mapped(segment.data()));
  CHECK(segment.header().owner == 1);
}

TEST_CASE("the boot id is the kernel's") {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  REQUIRE(static_cast<bool>(file >> text));
  std::string made;
  for (const std::uint8_t byte : boot_id()) {
    constexpr const char* digits = "0123456789abcdef";
    made += {digits[byte >> 4], digits[byte & 15]};
  }
  text.erase(std::remove(text.begin(), text.end(), '-'), text.end());
  CHECK(made == text);
}
