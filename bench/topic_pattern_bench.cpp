// Patterns and topics: matches(), PatternTree::find with few and many patterns, TopicTable::intern of a known topic.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lib/control/topic_pattern.hpp"
#include "lib/control/topic_table.hpp"

namespace {

using namespace ackring;

void plain_match(benchmark::State& state, const char* pattern, const char* topic) {
  for (auto _ : state) benchmark::DoNotOptimize(control::matches(pattern, topic));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(plain_match, exact, "orders.eu.created", "orders.eu.created");
BENCHMARK_CAPTURE(plain_match, prefix, "orders.#", "orders.eu.created");
BENCHMARK_CAPTURE(plain_match, suffix, "#.created", "orders.eu.retail.web.created");
BENCHMARK_CAPTURE(plain_match, back_and_forth, "#.a.#.b.#.c", "a.b.a.b.a.b.a.b.a.b.a.b.a.b.a.b");

// The mix of a busy bus: nine of ten patterns name a service, the tenth listens to a kind of event across all of them.
control::PatternTree tree_of(std::uint32_t patterns) {
  control::PatternTree tree;
  for (std::uint32_t i = 0; i < patterns; ++i) {
    const std::string service = "service" + std::to_string(i);
    switch (i % 10) {
      case 0:
        tree.insert("#.event" + std::to_string(i), i);
        break;
      case 1:
        tree.insert(service + ".*.created", i);
        break;
      case 2:
        tree.insert(service + ".eu.created", i);
        break;
      default:
        tree.insert(service + ".#", i);
        break;
    }
  }
  return tree;
}

void tree_find(benchmark::State& state) {
  const auto patterns = static_cast<std::uint32_t>(state.range(0));
  const control::PatternTree tree = tree_of(patterns);
  std::vector<std::string> topics;
  for (std::uint32_t i = 0; i < 64; ++i) {
    topics.push_back("service" + std::to_string(i * 7919 % patterns) +
                     (i % 2 == 0 ? ".eu.created" : ".us.web.deleted"));
  }
  std::vector<std::uint32_t> found;
  std::size_t next = 0;
  for (auto _ : state) {
    tree.find(topics[next++ % topics.size()], found);
    benchmark::DoNotOptimize(found.data());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(tree_find)->Arg(10)->Arg(1'000)->Arg(10'000);

void intern_known(benchmark::State& state) {
  shm::MemoryDirectory directory;
  control::TopicTable table(directory, 1);
  std::vector<std::string> topics;
  for (int i = 0; i < 10'000; ++i) {
    topics.push_back("orders.eu.shop" + std::to_string(i) + ".created");
    if (table.intern(topics.back()) == 0) return state.SkipWithError("no room for topics");
  }
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(table.intern(topics[next]));
    next = next + 1 == topics.size() ? 0 : next + 1;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(intern_known);

}  // namespace

BENCHMARK_MAIN();
