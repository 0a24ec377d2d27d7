// F9: in debug builds an endpoint notices that two threads are in it. This program links nothing of the library, so that the
// check is there in every build.
#undef NDEBUG
#include "lib/client/use_guard.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <thread>

using namespace ackring::client;

namespace {

struct End {
  int signal = 0;
  std::string message;
};

// Runs `body` in a child; by which signal that ended (0: by itself), and what it wrote to stderr.
End end_of(const std::function<void()>& body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);  // doctest's report is not for a death that is wanted
    ::dup2(ends[1], STDERR_FILENO);
    body();
    ::_exit(0);
  }
  ::close(ends[1]);
  End end;
  char buffer[512];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    end.message.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return end;
}

}  // namespace

TEST_CASE("a second thread in an endpoint ends the program, with a message that says what to do (F9)") {
  const End end = end_of([] {
    UseFlag flag;
    const UseGuard inside(flag, "a Publisher");
    std::thread([&flag] { const UseGuard second(flag, "a Publisher"); }).join();
  });
  CHECK(end.signal == SIGABRT);
  CHECK(end.message.find("ackring: a Publisher is used by two threads at a time: make one per thread") !=
        std::string::npos);
}

TEST_CASE("threads that take turns, and endpoints of their own, are no offence") {
  const End end = end_of([] {
    UseFlag flag;
    for (int i = 0; i < 3; ++i) {
      { const UseGuard first(flag, "a Publisher"); }
      std::thread([&flag] { const UseGuard later(flag, "a Publisher"); }).join();
    }
    UseFlag other;
    const UseGuard inside(flag, "a Publisher");
    const UseGuard elsewhere(other, "a Publisher");
  });
  CHECK(end.signal == 0);
  CHECK(end.message.empty());
}
