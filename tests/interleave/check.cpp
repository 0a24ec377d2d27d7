// What a test says of an exploration.
#include <doctest/doctest.h>

#include <string>

#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {

void check_all(const char* title, Scenario& scenario, const Bounds& bounds) {
  Explorer explorer(title, scenario, bounds);
  const Result result = explorer.explore();
  if (!result.story.empty()) {
    const std::string story = std::string(title) + ": " + result.failure + "\nreplay it with ACKRING_REPLAY='" + title +
                              ":" + result.trace + "'\n" + result.story;
    MESSAGE(story);
  }
  CHECK(result.failure.empty());
  CHECK(result.executions != 1);  // a scenario in which nothing can go differently shows nothing
}

void check_caught(const char* title, Scenario& scenario, const char* why, const Bounds& bounds) {
  Explorer explorer(title, scenario, bounds);
  const Result result = explorer.explore();
  CAPTURE(result.failure);
  CAPTURE(result.story);
  CHECK(result.failure.find(why) != std::string::npos);
}

}  // namespace ackring::test::interleave
