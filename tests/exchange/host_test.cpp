#include "lib/exchange/host.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"

using namespace ackring;

TEST_CASE("several that begin to serve a new bus at once: one gets it, the others learn that it is served (F12)") {
  constexpr int contenders = 3;
  for (int round = 0; round < 100; ++round) {
    std::string path = "/dev/shm/ackring-host-test-XXXXXX";
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    std::atomic<int> ready{0};
    std::atomic<int> refused{0};
    std::vector<std::unique_ptr<exchange::Host>> hosts(contenders);
    std::vector<std::string> problems(contenders);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < contenders; ++i) {
      threads.emplace_back([&, i] {
        auto directory = std::make_shared<shm::FileDirectory>(path, true);
        ready.fetch_add(1, std::memory_order_relaxed);
        while (ready.load(std::memory_order_relaxed) != contenders) std::this_thread::yield();
        try {
          hosts[i] = std::make_unique<exchange::Host>(std::move(directory), "b");
        } catch (const Error& error) {
          if (error.code() == ErrorCode::exchange_exists) refused.fetch_add(1, std::memory_order_relaxed);
          problems[i] = error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    INFO(problems[0], "; ", problems[1], "; ", problems[2]);
    CHECK(refused.load(std::memory_order_relaxed) == contenders - 1);
    hosts.clear();
    std::filesystem::remove_all(path);
  }
}

TEST_CASE("where one process has no membarrier all others fence, and so does the next exchange") {
  shm::MemoryDirectory directory;
  for (const bool begun : {false, true}) {
    exchange::Exchange x(directory);
    const shm::Word32& required = x.page().fence_required;
    CHECK(required.load(std::memory_order_relaxed) == (begun ? 1 : 0));
    x.set_fence_required(false);
    CHECK(required.load(std::memory_order_relaxed) == (begun ? 1 : 0));
    x.set_fence_required(true);
    CHECK(required.load(std::memory_order_relaxed) == 1);
  }
}

TEST_CASE("a host does on its own thread what others ask it to, and tells what happens") {
  exchange::HostOptions options;
  std::vector<std::string> told;
  options.on_notice = [&told](const exchange::Notice& notice) { told.emplace_back(notice.event); };
  options.listen = false;
  exchange::Host host(std::make_shared<shm::MemoryDirectory>(), "b", options);
  std::thread::id ran_on;
  host.call([&] {
    ran_on = std::this_thread::get_id();
    host.stop();
  });
  std::thread runner([&host] { host.run(); });
  const std::thread::id expected = runner.get_id();
  {
    const control::Socket stranger = host.connect();
    runner.join();
  }
  CHECK(ran_on == expected);
  CHECK(told.empty());  // a connection that says nothing is nobody yet
}
