// A bus in a directory of its own, with its exchange on a thread of the test.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "ackring/ackring.hpp"
#include "lib/exchange/host.hpp"

namespace ackring::test {

struct HostedBus {
  HostedBus() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~HostedBus() {
    stop();
    std::filesystem::remove_all(path);
  }
  HostedBus(const HostedBus&) = delete;
  HostedBus& operator=(const HostedBus&) = delete;

  void start(exchange::HostOptions options = {}) {
    options.guard_bus_errors = true;
    host = std::make_unique<exchange::Host>(std::make_shared<shm::FileDirectory>(path + "/b", true), "b", options);
    thread = std::thread([this] { host->run(); });
  }
  void stop() {
    if (!host) return;
    host->stop();
    thread.join();
    host.reset();
  }
  [[nodiscard]] Bus bus() const { return Bus::open("b", {.directory = path, .exchange = ExchangeMode::require}); }

  std::string path = "/tmp/ackring-hosted-test-XXXXXX";
  std::unique_ptr<exchange::Host> host;
  std::thread thread;
};

}  // namespace ackring::test
