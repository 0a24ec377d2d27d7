// Handlers whose events have an order by key.
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/runtime/support.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("events of a key are called in their order, by one worker, whatever the number of workers") {
  Bus bus = Bus::in_memory();
  EventBus events(bus, {.workers = 4});
  std::mutex mutex;
  std::map<std::string, std::vector<int>> seen;
  std::map<std::string, std::thread::id> worker;
  bool moved = false;
  events.on("t",
            [&](Delivery& delivery) {
              const std::string key(delivery.key());
              if (delivery.sequence() % 7 == 0) std::this_thread::yield();
              const std::lock_guard lock(mutex);
              seen[key].push_back(std::stoi(std::string(delivery.text())));
              const auto at = worker.try_emplace(key, std::this_thread::get_id()).first;
              moved = moved || at->second != std::this_thread::get_id();
            },
            {.subscription = {.name = "s", .ordered_by_key = true}});
  Publisher publisher = bus.publisher();
  constexpr int keys = 13;
  constexpr int each = 300;
  {
    const Running running(events);
    for (int i = 0; i < keys * each; ++i) {
      const std::string key = "k" + std::to_string(i % keys);
      REQUIRE(publisher.publish_wait("t", as_bytes(std::to_string(i)), std::chrono::seconds(10), {.key = key}) ==
              Outcome::ok);
    }
    CHECK(eventually([&] { return events.status().at(0).handled == keys * each; }));
  }
  CHECK(seen.size() == keys);
  CHECK_FALSE(moved);
  for (const auto& [key, values] : seen) {
    CHECK(values.size() == each);
    CHECK(std::is_sorted(values.begin(), values.end()));
  }
}
