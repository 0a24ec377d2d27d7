#include "lib/shm/environment.hpp"

#include "lib/shm/clock.hpp"

namespace ackring::shm {

std::uint64_t Environment::now_ns() {
#ifdef ACKRING_TEST_ENVIRONMENT
  if (hook != nullptr && hook->virtual_time) return hook->now_ns();
#endif
  return monotonic_ns();
}

}  // namespace ackring::shm
