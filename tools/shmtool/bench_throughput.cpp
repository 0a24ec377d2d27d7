// shmtool bench throughput and fanout: a flow as fast as possible, of about three seconds unless a count was given; and the
// open loop between processes, which is a flow at a rate.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>

#include "tools/shmtool/bench_flow.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t calibration_events = 200'000;

std::string run_name() { return fmt::format("run{}", ::getpid()); }

}  // namespace

BenchResult bench_throughput(const BenchOptions& options) {
  const std::string name = fmt::format("{}-{}", run_name(), options.size);
  std::uint64_t count = options.count;
  if (count == 0) {
    // A small run first tells how many events three seconds take; large events take fewer. It is the warm-up too.
    const std::uint64_t few =
        options.warm_up.value_or(0) > 0
            ? *options.warm_up
            : std::clamp<std::uint64_t>((256u << 20) / (options.size + 64), 100, calibration_events);
    const BenchResult calibration = flow(options, name + "a", few, 0);
    count =
        std::max<std::uint64_t>(few, std::llround(static_cast<double>(few) / calibration.seconds * default_seconds));
  } else if (options.warm_up.value_or(0) > 0) {
    static_cast<void>(flow(options, name + "a", *options.warm_up, 0));
  }
  return flow(options, name + "b", count, 0);
}

BenchResult bench_open_loop(const BenchOptions& options) {
  const std::uint64_t count =
      options.count > 0 ? options.count : std::max<std::uint64_t>(1, std::llround(default_seconds * options.rate));
  const std::uint64_t warm_up =
      options.warm_up.value_or(static_cast<std::uint64_t>(std::llround(open_loop_warm_up_seconds * options.rate)));
  return flow(options, fmt::format("{}-{}", run_name(), options.size), count, warm_up);
}

}  // namespace ackring::tools
