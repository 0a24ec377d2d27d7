// The sampler: what it measures stands for about as many events as there were.
#include "lib/client/sampler.hpp"

#include <doctest/doctest.h>

#include <array>
#include <memory>

using namespace ackring;
using client::Sampler;

namespace {

struct Sampled {
  std::unique_ptr<shm::MemberLatency> latency = std::make_unique<shm::MemberLatency>();
  shm::RecordHeader header{};
  Sampler sampler;
  Sampled() { sampler.measure_into(*latency); }

  [[nodiscard]] const std::byte* record() const { return reinterpret_cast<const std::byte*>(&header); }
  void ack(std::uint64_t entry) {
    if (sampler.wants(entry)) sampler.acked(entry, record());
  }
  static std::uint64_t count(const shm::LatencyHistogram& histogram) {
    shm::LatencyCounts counts{};
    shm::accumulate(counts, histogram);
    return shm::count_of(counts);
  }
  [[nodiscard]] std::uint64_t taken() const { return count(latency->take); }
  [[nodiscard]] std::uint64_t acked() const { return count(latency->ack); }
};

constexpr std::uint64_t events = 40 * Sampler::stride;

}  // namespace

TEST_CASE("taken and acked one by one: the weights add up to the events, whether the member sleeps or not") {
  for (const bool sleeps : {false, true}) {
    CAPTURE(sleeps);
    Sampled sampled;
    for (std::uint64_t entry = 0; entry < events; ++entry) {
      if (sleeps) sampled.sampler.slept();
      sampled.sampler.taken(entry, entry + 1, sampled.record());
      sampled.ack(entry);
    }
    CHECK(sampled.taken() == (Sampler::enabled ? events : 0));
    CHECK(sampled.acked() == (Sampler::enabled ? events : 0));
  }
}

TEST_CASE("taken in batches and acked through: the weights add up to the events, within a stride") {
  for (const std::uint64_t batch : {1, 3, 16, 40, 64}) {
    for (const bool sleeps : {false, true}) {
      CAPTURE(batch);
      CAPTURE(sleeps);
      Sampled sampled;
      for (std::uint64_t first = 0; first < events; first += batch) {
        if (sleeps) sampled.sampler.slept();
        sampled.sampler.taken(first, first + batch, sampled.record());
        sampled.sampler.acked_through(first, first + batch - 1, sampled.record());
      }
      if (!Sampler::enabled) continue;
      CHECK(sampled.taken() >= events - Sampler::stride);
      CHECK(sampled.taken() <= events + batch + Sampler::stride);
      CHECK(sampled.acked() >= events - Sampler::stride);
      CHECK(sampled.acked() <= events + batch + Sampler::stride);
    }
  }
}

TEST_CASE("acked through again, or backwards, counts nothing") {
  Sampled sampled;
  sampled.sampler.taken(0, 64, sampled.record());
  sampled.sampler.acked_through(0, 63, sampled.record());
  const std::uint64_t acked = sampled.acked();
  sampled.sampler.acked_through(64, 63, sampled.record());
  sampled.sampler.acked_through(64, 10, sampled.record());
  CHECK(sampled.acked() == acked);
}
