#include "lib/shm/lock.hpp"

#include <unistd.h>

#include <memory>

#include "lib/shm/directory.hpp"
#include "tests/shm/support.hpp"

using namespace ackring;
using namespace ackring::shm;
using namespace ackring::test;

namespace {

void check_locks(Directory& directory) {
  directory.write_file("l", "1");
  UniqueFd first = directory.open("l", true);
  const UniqueFd second = directory.open("l", true);
  const UniqueFd reader = directory.open("l", false);
  CHECK_FALSE(is_locked(reader.get()));
  CHECK(try_lock(first.get()));
  CHECK(try_lock(first.get()));  // the same description has it already
  CHECK_FALSE(try_lock(second.get()));
  CHECK(is_locked(second.get()));
  CHECK(is_locked(reader.get()));
  CHECK_FALSE(is_locked(first.get()));  // "some other description"
  first.reset();
  CHECK_FALSE(is_locked(reader.get()));
  CHECK(try_lock(second.get()));
}

}  // namespace

TEST_CASE("one open file description has the lock, until it is closed") {
  const TemporaryDirectory temporary;
  FileDirectory files(temporary.path(), false);
  check_locks(files);
  MemoryDirectory memory;
  check_locks(memory);
}

TEST_CASE("the descriptor that create() gives can be locked and lets go when closed") {
  MemoryDirectory memory;
  UniqueFd created = memory.create("l");
  CHECK(try_lock(created.get()));
  const UniqueFd other = memory.open("l", true);
  CHECK(is_locked(other.get()));
  created.reset();
  CHECK_FALSE(is_locked(other.get()));
  CHECK(try_lock(other.get()));
  CHECK(is_locked(memory.reopen()->open("l", true).get()));
}

TEST_CASE("a process that ends lets go of its lock") {
  MemoryDirectory memory;
  memory.write_file("l", "");
  const std::string problem = in_child([&] {
    const int fd = memory.open("l", true).release();  // open until the child ends
    return try_lock(fd) ? std::string() : std::string("not locked");
  });
  CHECK(problem == "");
  CHECK_FALSE(is_locked(memory.open("l", false).get()));
}

TEST_CASE("a lock lives as long as some process holds the description") {
  MemoryDirectory memory;
  memory.write_file("l", "");
  UniqueFd locked = memory.open("l", true);
  REQUIRE(try_lock(locked.get()));
  int go[2];
  REQUIRE(::pipe(go) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // it was handed `locked`; it holds it until the parent closes the pipe
    ::close(go[1]);
    char byte = 0;
    (void)!::read(go[0], &byte, 1);
    ::_exit(0);
  }
  ::close(go[0]);
  locked.reset();
  const UniqueFd other = memory.open("l", true);
  CHECK(is_locked(other.get()));
  CHECK_FALSE(try_lock(other.get()));
  ::close(go[1]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_FALSE(is_locked(other.get()));
  CHECK(try_lock(other.get()));
}

TEST_CASE("a descriptor that can't be locked is an error") {
  MemoryDirectory memory;
  memory.write_file("l", "");
  const UniqueFd reader = memory.open("l", false);
  CHECK(error_of([&] { (void)try_lock(reader.get()); }).code() == ErrorCode::system);
  CHECK(error_of([&] { (void)try_lock(-1); }).system_errno() == EBADF);
  CHECK(error_of([&] { (void)is_locked(-1); }).system_errno() == EBADF);
}
