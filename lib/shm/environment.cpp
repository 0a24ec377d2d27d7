#include "lib/shm/environment.hpp"

#include <time.h>

namespace ackring::shm {

std::uint64_t Environment::now_ns() {
#ifdef ACKRING_TEST_ENVIRONMENT
  if (hook != nullptr && hook->virtual_time) return hook->now_ns();
#endif
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail: the clock exists and the pointer is ours
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace ackring::shm
