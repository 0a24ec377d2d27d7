// What tests of handlers share.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "ackring/ackring.hpp"

namespace ackring::test {

/// A number or a flag that handlers on several threads change, and the test reads.
template <class T>
class Shared {
 public:
  explicit Shared(T value = {}) : value_(value) {}
  Shared& operator=(T value) {
    const std::lock_guard lock(mutex_);
    value_ = value;
    return *this;
  }
  T operator++() { return *this += 1; }
  T operator+=(T value) {
    const std::lock_guard lock(mutex_);
    return value_ += value;
  }
  operator T() const {  // NOLINT(google-explicit-constructor)
    const std::lock_guard lock(mutex_);
    return value_;
  }

 private:
  mutable std::mutex mutex_;
  T value_;
};

/// Waits until `done` says so, up to 10 s.
template <class Done>
bool eventually(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// How many files or threads a directory of /proc lists.
inline std::size_t entries_of(const char* directory) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}

/// The row of a subscription in the bus's stat document.
inline nlohmann::json row(Bus& bus, const std::string& name) {
  const auto document = nlohmann::json::parse(bus.stat_json());
  for (const auto& row : document.at("subscriptions")) {
    if (row.at("name") == name) return row;
  }
  return nullptr;
}

inline void publish_some(Publisher& publisher, const std::string& topic, int count, int from = 0) {
  for (int i = from; i < from + count; ++i) {
    REQUIRE(publisher.publish_wait(topic, as_bytes(std::to_string(i)), std::chrono::seconds(10)) == Outcome::ok);
  }
}

/// Runs handlers on their own threads as long as it lives.
class Running {
 public:
  explicit Running(EventBus& events) : events_(events) { events_.start(); }
  ~Running() {
    events_.stop();
    events_.join();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  EventBus& events_;
};

}  // namespace ackring::test
