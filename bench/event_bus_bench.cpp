// Handlers beside a loop that takes and acks: events of 64 bytes per second, from one publisher through an exchange on a
// thread of its own. On two cores the exchange has one, publisher and consumers share the other.
//
//   build/release/bench/event_bus_bench --benchmark_repetitions=7 --benchmark_enable_random_interleaving=true
//       --benchmark_report_aggregates_only=true
//
// docs/performance.md quotes medians of `items_per_second`: of inline handlers, or of one worker, to that of the loop.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <thread>

#include "ackring/ackring.hpp"

namespace {

using namespace ackring;

SubscriptionOptions options() {
  SubscriptionOptions options;
  options.name = "s";
  options.patterns = {"#"};
  options.max_events = 1;  // flow through the rings, not the backlog
  return options;
}

// Publishes as long as it lives.
class Source {
 public:
  explicit Source(Bus& bus) : publisher_(bus.publisher()), thread_([this](std::stop_token stop) { run(stop); }) {}

 private:
  void run(const std::stop_token& stop) {
    std::array<char, 64> payload{};
    const Bytes bytes = std::as_bytes(std::span<const char>(payload));
    while (!stop.stop_requested()) {
      for (int i = 0; i < 64; ++i) {
        if (publisher_.add("bench.t", bytes) == Outcome::ok) continue;
        (void)publisher_.commit_batch();
        ::sched_yield();
      }
      (void)publisher_.commit_batch();
    }
  }

  Publisher publisher_;
  std::jthread thread_;
};

constexpr std::int64_t events_per_iteration = 200'000;

// What a program without the EventBus does.
void take_and_ack(benchmark::State& state) {
  Bus bus = Bus::in_memory();
  Subscriber subscriber = bus.subscribe(options());
  const Source source(bus);
  std::uint64_t sum = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < events_per_iteration;) {
      auto delivery = subscriber.take(std::chrono::seconds(1));
      if (!delivery) continue;
      sum += delivery->payload().size();
      (void)delivery->ack();
      ++i;
    }
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations() * events_per_iteration);
}

void handled(benchmark::State& state) {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = static_cast<std::size_t>(state.range(0))});
  std::int64_t count = 0;  // one thread at a time calls it
  events.on("",
            [&count, &events](Delivery& delivery) {
              benchmark::DoNotOptimize(delivery.payload().size());
              if (++count % events_per_iteration == 0) events.stop();
            },
            {.subscription = options()});
  const Source source(bus);
  for (auto _ : state) events.run();
  state.SetItemsProcessed(count);
}

}  // namespace

BENCHMARK(take_and_ack)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(handled)->Arg(0)->Arg(1)->ArgName("workers")->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_MAIN();
