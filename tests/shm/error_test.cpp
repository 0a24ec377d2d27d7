#include "ackring/error.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <set>
#include <string>

#include "ackring/outcome.hpp"
#include "lib/shm/system_error.hpp"

using namespace ackring;

TEST_CASE("an Error keeps its parts and says them in one line") {
  const Error error(ErrorCode::busy, "publisher \"a\"", "held by a live client", "choose another name", 11);
  CHECK(std::string(error.what()) == "publisher \"a\": held by a live client: choose another name");
  CHECK(error.code() == ErrorCode::busy);
  CHECK(error.object() == "publisher \"a\"");
  CHECK(error.why() == "held by a live client");
  CHECK(error.advice() == "choose another name");
  CHECK(error.system_errno() == 11);
  CHECK(std::string(Error(ErrorCode::system, "x", "why").what()) == "x: why");
  CHECK(std::string(Error(ErrorCode::system, "a\nb", "c\td").what()) == "a?b: c?d");
}

TEST_CASE("every code and outcome has a name of its own") {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(ErrorCode::system); ++i) names.insert(to_string(static_cast<ErrorCode>(i)));
  CHECK(names.size() == static_cast<std::size_t>(ErrorCode::system) + 1);
  CHECK(names.count("unknown") == 0);
  CHECK(names.count("no_exchange") == 1);
  names.clear();
  for (int i = 0; i <= static_cast<int>(Outcome::closed); ++i) names.insert(to_string(static_cast<Outcome>(i)));
  CHECK(names.size() == static_cast<std::size_t>(Outcome::closed) + 1);
  CHECK(names.count("unknown") == 0);
  CHECK(std::string(to_string(static_cast<ErrorCode>(999))) == "unknown");
}

TEST_CASE("system errors get the code and the advice that fit") {
  CHECK(shm::system_error("f", "can't open it", ENOENT).code() == ErrorCode::not_found);
  CHECK(shm::system_error("f", "can't open it", EACCES).code() == ErrorCode::permission);
  const Error full = shm::system_error("f", "can't allocate its 7 bytes", ENOSPC);
  CHECK(full.code() == ErrorCode::no_space);
  CHECK(full.system_errno() == ENOSPC);
  CHECK(std::string(full.what()) ==
        "f: can't allocate its 7 bytes: No space left on device: free space there, or use a larger file system");
  CHECK(shm::system_error("f", "x", EMFILE).advice().find("ulimit -n") != std::string::npos);
  CHECK(shm::system_error("f", "x", EIO).code() == ErrorCode::system);
}
