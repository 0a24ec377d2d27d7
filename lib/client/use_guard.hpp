// In debug builds: an endpoint for one thread at a time notices a second one inside it (F9). Two plain stores and a
// load, no locked instruction, so it catches an overlap with high probability, not for certain.
#pragma once

#if !defined(NDEBUG) && !defined(ACKRING_TEST_ENVIRONMENT)
#include <cstdio>
#include <cstdlib>

#include "lib/shm/format.hpp"
#endif

namespace ackring::client {

#if defined(NDEBUG) || defined(ACKRING_TEST_ENVIRONMENT)  // a test may stop at any store
struct UseFlag {};
class UseGuard {
 public:
  explicit UseGuard(UseFlag& /*flag*/, const char* /*what*/) noexcept {}
};
#else
struct UseFlag {
  shm::Word32 busy{};
};
class UseGuard {
 public:
  UseGuard(UseFlag& flag, const char* what) : flag_(flag) {
    // relaxed: a check, it orders nothing
    if (flag_.busy.load(std::memory_order_relaxed) != 0) [[unlikely]] {
      std::fprintf(stderr, "ackring: %s is used by two threads at a time: make one per thread\n", what);
      std::abort();
    }
    flag_.busy.store(1, std::memory_order_relaxed);  // relaxed: a check, it orders nothing
  }
  ~UseGuard() { flag_.busy.store(0, std::memory_order_relaxed); }  // relaxed: a check, it orders nothing
  UseGuard(const UseGuard&) = delete;
  UseGuard& operator=(const UseGuard&) = delete;

 private:
  UseFlag& flag_;
};
#endif

}  // namespace ackring::client
