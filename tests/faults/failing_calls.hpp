// System calls that fail when a test says so. The program that links failing_calls.cpp has its own open, fallocate, mmap,
// rename, …: each asks the plan of the calling thread whether it is its turn, and else goes on to the C library. So the
// library under test is the one that is shipped, and no call of it is left out.
//
// Thread rules: a plan is of the threads that were told of it; its counters are atomic.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace ackring::test {

struct CallPlan {
  int error = 0;                              // with which a call fails, where it may fail with that
  std::uint64_t fail_at = ~std::uint64_t{0};  // the position, counted from 0, of the call that fails
  bool lasting = false;                       // so do all behind it
  std::atomic<std::uint64_t> positions{0};    // calls seen that may fail with `error`
  std::atomic<std::uint64_t> waits{0};        // of those that are made again and again
  std::atomic<bool> failed{false};
  std::atomic<const char*> call{""};  // the first that failed
};

/// For as long as it lives, the calls of this thread go by `plan`.
class Armed {
 public:
  explicit Armed(CallPlan& plan) noexcept;
  ~Armed();
  Armed(const Armed&) = delete;
  Armed& operator=(const Armed&) = delete;

 private:
  CallPlan* before_;
};

/// For as long as it lives, the calls of all threads that are not exempt go by `plan`.
class ArmedEverywhere {
 public:
  explicit ArmedEverywhere(CallPlan& plan) noexcept;
  ~ArmedEverywhere();
  ArmedEverywhere(const ArmedEverywhere&) = delete;
  ArmedEverywhere& operator=(const ArmedEverywhere&) = delete;
};

/// This thread's calls never fail by ArmedEverywhere.
void exempt_this_thread() noexcept;

/// The errors that are injected, each where it is possible.
const std::vector<int>& injected_errors();
std::string error_name(int error);

/// Open descriptors of this process.
std::size_t open_descriptors();
/// Its mappings of files of buses that BusFolder made (served_bus.hpp).
std::size_t mapped_files();

}  // namespace ackring::test
