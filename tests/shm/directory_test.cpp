#include "lib/shm/directory.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/shm/support.hpp"

using namespace ackring;
using namespace ackring::shm;
using namespace ackring::test;

namespace {

constexpr uid_t nobody = 65534;

unsigned mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777u;
}

// What both kinds of directory do alike.
void check_directory(Directory& directory) {
  CHECK_FALSE(directory.exists("a"));
  CHECK(error_of([&] { (void)directory.open("a", false); }).code() == ErrorCode::not_found);
  CHECK(error_of([&] { directory.rename("a", "b"); }).code() == ErrorCode::not_found);
  directory.remove("a");
  directory.write_file("a", "old");
  directory.write_file("a", std::string(10'000, 'x'));
  directory.write_file("ab", "");
  directory.write_file("b", "B");
  CHECK(directory.read_file("a") == std::string(10'000, 'x'));
  CHECK(directory.read_file("ab").empty());
  CHECK(directory.list("a") == std::vector<std::string>{"a", "ab"});
  CHECK(directory.list("") == std::vector<std::string>{"a", "ab", "b"});
  CHECK(directory.list("c").empty());

  const UniqueFd old = directory.open("b", false);
  UniqueFd file = directory.create("b.new");
  CHECK(::write(file.get(), "BB", 2) == 2);
  CHECK((::fcntl(file.get(), F_GETFD) & FD_CLOEXEC) != 0);
  directory.rename("b.new", "b");
  CHECK_FALSE(directory.exists("b.new"));
  CHECK(directory.read_file("b") == "BB");
  char byte = 0;
  CHECK(::pread(old.get(), &byte, 1, 0) == 1);  // who has the old file keeps it
  CHECK(byte == 'B');
  (void)directory.create("b");  // replaces it by an empty one
  CHECK(directory.read_file("b").empty());

  const UniqueFd reader = directory.open("a", false);
  CHECK(::pwrite(reader.get(), "y", 1, 0) == -1);
  const UniqueFd writer = directory.open("a", true);
  CHECK(::pwrite(writer.get(), "y", 1, 0) == 1);
  CHECK(directory.read_file("a").front() == 'y');

  directory.remove("a");
  CHECK_FALSE(directory.exists("a"));
  CHECK(::pread(reader.get(), &byte, 1, 0) == 1);
  for (const char* name : {"", ".", "..", "a/b", "/a"}) {
    CHECK(error_of([&] { (void)directory.create(name); }).code() == ErrorCode::invalid_argument);
    CHECK(error_of([&] { (void)directory.open(name, false); }).code() == ErrorCode::invalid_argument);
  }
}

}  // namespace

TEST_CASE("files are created, replaced, renamed, listed and removed") {
  const TemporaryDirectory temporary;
  FileDirectory files(temporary.path() + "/bus/", true);
  CHECK(files.path() == temporary.path() + "/bus");
  CHECK(files.path("a") == temporary.path() + "/bus/a");
  check_directory(files);
  files.write_file("mode", "");
  CHECK(mode_of(files.path("mode")) == 0600);
  MemoryDirectory memory;
  CHECK(memory.path() == "(memory)");
  check_directory(memory);
}

TEST_CASE("a directory and its parent are made with mode 0700, more is not") {
  const TemporaryDirectory temporary;
  const std::string parent = temporary.path() + "/parent";
  const FileDirectory made(parent + "/bus", true);
  CHECK(mode_of(parent) == 0700);
  CHECK(mode_of(parent + "/bus") == 0700);
  const FileDirectory again(parent + "/bus", true);
  const FileDirectory opened(parent + "/bus", false);
  const Error error = error_of([&] { FileDirectory(temporary.path() + "/x/y/bus", true); });
  CHECK(error.code() == ErrorCode::not_found);
  CHECK(contains(error.what(), temporary.path() + "/x "));
  CHECK_FALSE(std::filesystem::exists(temporary.path() + "/x"));
}

TEST_CASE("a missing directory is named") {
  const TemporaryDirectory temporary;
  const Error error = error_of([&] { FileDirectory(temporary.path() + "/none", false); });
  CHECK(error.code() == ErrorCode::not_found);
  CHECK(error.object() == temporary.path() + "/none");
  CHECK(error_of([&] { FileDirectory("", true); }).code() == ErrorCode::invalid_argument);
}

TEST_CASE("symbolic links are refused, as the directory and as a file in it") {
  const TemporaryDirectory temporary;
  const std::string real = temporary.path() + "/real";
  FileDirectory directory(real, true);
  const std::string link = temporary.path() + "/link";
  REQUIRE(::symlink(real.c_str(), link.c_str()) == 0);
  for (const char* end : {"", "/", "//"}) {
    const Error error = error_of([&] { FileDirectory(link + end, true); });
    CHECK(error.code() == ErrorCode::permission);
    CHECK(contains(error.what(), link));
    CHECK(contains(error.what(), "symbolic link"));
  }
  directory.write_file("target", "secret");
  REQUIRE(::symlink("target", (real + "/f").c_str()) == 0);
  CHECK(error_of([&] { (void)directory.open("f", false); }).code() == ErrorCode::permission);
  CHECK(directory.exists("f"));
  directory.write_file("f", "new");  // replaces the link, not what it points to
  CHECK(directory.read_file("target") == "secret");
  CHECK(directory.read_file("f") == "new");
}

TEST_CASE("what is no directory or no regular file is refused") {
  const TemporaryDirectory temporary;
  { std::ofstream(temporary.path() + "/file") << "x"; }
  CHECK(error_of([&] { FileDirectory(temporary.path() + "/file", false); }).system_errno() == ENOTDIR);
  const FileDirectory directory(temporary.path(), false);
  REQUIRE(::mkfifo((temporary.path() + "/fifo").c_str(), 0600) == 0);
  CHECK(error_of([&] { (void)directory.open("fifo", false); }).code() == ErrorCode::damaged);
  REQUIRE(::mkdir((temporary.path() + "/sub").c_str(), 0700) == 0);
  CHECK(error_of([&] { (void)directory.open("sub", false); }).code() == ErrorCode::damaged);
}

TEST_CASE("write rights of group or others are refused, and the message has path, owner and mode") {
  const TemporaryDirectory temporary;
  FileDirectory directory(temporary.path() + "/bus", true);
  directory.write_file("f", "x");
  for (const unsigned mode : {0620u, 0602u, 0666u}) {
    REQUIRE(::chmod(directory.path("f").c_str(), mode) == 0);
    const Error error = error_of([&] { (void)directory.open("f", false); });
    CHECK(error.code() == ErrorCode::permission);
    CHECK(contains(error.what(), directory.path("f")));
  }
  REQUIRE(::chmod(directory.path("f").c_str(), 0644) == 0);
  CHECK(directory.open("f", false));
  REQUIRE(::chmod(directory.path().c_str(), 0777) == 0);
  const Error error = error_of([&] { FileDirectory(directory.path(), true); });
  CHECK(error.code() == ErrorCode::permission);
  CHECK(contains(error.what(), directory.path()));
  CHECK(contains(error.what(), "owner " + std::to_string(::geteuid())));
  CHECK(contains(error.what(), "mode 0777"));
  REQUIRE(::chmod(directory.path().c_str(), 0711) == 0);
  const FileDirectory fine(directory.path(), false);
}

TEST_CASE("another user's directory is refused") {
  const std::string problem = in_child([] {
    if (::geteuid() == 0 && ::setresuid(nobody, nobody, nobody) != 0) return std::string("setresuid failed");
    return expect_error(ErrorCode::permission, "/usr: belongs to user 0 (mode 0755), this process runs as user ",
                        [] { FileDirectory("/usr", false); });
  });
  CHECK(problem == "");
}

TEST_CASE("leftovers of another user") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: only root can give files away");
    return;
  }
  const TemporaryDirectory temporary;
  REQUIRE(::chmod(temporary.path().c_str(), 0755) == 0);
  const std::string path = temporary.path() + "/bus";
  FileDirectory directory(path, true);
  directory.write_file("f", "x");
  REQUIRE(::chown(path.c_str(), nobody, nobody) == 0);
  const FileDirectory root_may(path, true);
  CHECK(root_may.read_file("f") == "x");
  const std::string problem = in_child([&] {
    if (::setresuid(nobody, nobody, nobody) != 0) return std::string("setresuid failed");
    // `nobody` owns the directory and may remove root's file in it, but not read it.
    FileDirectory mine(path, false);
    std::string result = expect_error(ErrorCode::permission, path + "/f", [&] { (void)mine.open("f", false); });
    // root's parent directory is trusted, but it is not nobody's to write in.
    result += expect_error(ErrorCode::permission, "belongs to user 0 (mode 0755)",
                           [&] { FileDirectory(temporary.path() + "/other", true); });
    return result;
  });
  CHECK(problem == "");
  // The directory of a stranger is not a place to create one's own in, whatever its mode is.
  REQUIRE(::chmod(path.c_str(), 0777) == 0);
  const std::string stranger = in_child([&] {
    if (::setresuid(12345, 12345, 12345) != 0) return std::string("setresuid failed");
    return expect_error(ErrorCode::permission, path + ": belongs to user 65534 (mode 0777)",
                        [&] { FileDirectory(path + "/mine", true); });
  });
  CHECK(stranger == "");
  CHECK_FALSE(std::filesystem::exists(path + "/mine"));
}

TEST_CASE("no descriptors left: the error says which limit") {
  const TemporaryDirectory temporary;
  FileDirectory files(temporary.path(), false);
  files.write_file("f", "x");
  MemoryDirectory memory;
  memory.write_file("f", "x");
  const std::string problem = in_child([&] {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 3;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return std::string("setrlimit failed");
    std::string result;
    for (Directory* directory : {static_cast<Directory*>(&files), static_cast<Directory*>(&memory)}) {
      result += expect_error(ErrorCode::no_space, "ulimit -n", [&] { (void)directory->open("f", false); });
      result += expect_error(ErrorCode::no_space, "ulimit -n", [&] { (void)directory->create("g"); });
    }
    result += expect_error(ErrorCode::no_space, "ulimit -n", [&] { (void)files.list(""); });
    result += expect_error(ErrorCode::no_space, "ulimit -n", [&] { FileDirectory(temporary.path(), false); });
    return result;
  });
  CHECK(problem == "");
}

TEST_CASE("a reopened memory directory shares content, a clone does not") {
  MemoryDirectory first;
  std::string content(3'000'000, '\0');  // with a hole in the middle
  content.front() = 'a';
  content.back() = 'z';
  first.write_file("f", "a");
  UniqueFd file = first.open("f", true);
  REQUIRE(::pwrite(file.get(), "z", 1, static_cast<off_t>(content.size()) - 1) == 1);
  first.write_file("empty", "");
  const auto shared = first.reopen();
  const auto copy = first.clone();
  CHECK(shared->list("") == first.list(""));
  CHECK(copy->list("") == first.list(""));
  CHECK(copy->read_file("f") == content);
  REQUIRE(::pwrite(file.get(), "A", 1, 0) == 1);
  CHECK(shared->read_file("f").front() == 'A');
  CHECK(copy->read_file("f").front() == 'a');
  first.remove("f");
  CHECK(shared->exists("f"));
  file = copy->open("f", true);
  REQUIRE(::ftruncate(file.get(), 1) == 0);
  CHECK(shared->read_file("f").size() == content.size());
}

TEST_CASE("the default directory is $ACKRING_DIR or named after the user") {
  const char* before = std::getenv("ACKRING_DIR");
  const std::string saved = before != nullptr ? before : "";
  ::setenv("ACKRING_DIR", "/somewhere", 1);
  CHECK(default_directory() == "/somewhere");
  ::setenv("ACKRING_DIR", "", 1);
  CHECK(default_directory() == "/dev/shm/ackring-" + std::to_string(::geteuid()));
  ::unsetenv("ACKRING_DIR");
  CHECK(default_directory() == "/dev/shm/ackring-" + std::to_string(::geteuid()));
  if (before != nullptr) ::setenv("ACKRING_DIR", saved.c_str(), 1);
}

TEST_CASE("names are 1 to 63 of [A-Za-z0-9_.-], not beginning with a dot") {
  for (const std::string& name : {std::string("a"), std::string("Z9_.-"), std::string("-"), std::string(63, 'x')}) {
    check_name("bus", name);
  }
  for (const std::string& name :
       {std::string(), std::string(64, 'x'), std::string(".a"), std::string("a/b"), std::string("a b"),
        std::string("a\n"), std::string("\xc3\xa4"), std::string("a\0b", 3)}) {
    const Error error = error_of([&] { check_name("publisher", name); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(contains(error.what(), "publisher name \""));
    CHECK(contains(error.what(), "63"));
  }
  CHECK(contains(error_of([] { check_name("bus", std::string(64, 'x')); }).what(), "has 64 bytes, the limit is 63"));
}
