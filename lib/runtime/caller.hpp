// Caller: calls a handler with one delivery, and makes a verdict of how that ends.
//
// Thread rules: call() from any worker; the counts are words of this process.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>

#include "ackring/event_bus.hpp"
#include "lib/client/access.hpp"
#include "lib/runtime/circuit_breaker.hpp"

namespace ackring::runtime {

class Caller {
 public:
  Caller(Handler handler, const HandlerOptions& options, std::shared_ptr<client::Member> member,
         CircuitBreaker& breaker);

  /// Calls it. True: the handler returned. `succeeded`: calls of this worker that returned and that the breaker has not been told of; it is told of them
  /// before a failure.
  bool call(Delivery& delivery, std::shared_ptr<client::Member>& member, const DeliveryView& view, bool probe,
            std::uint64_t& succeeded);
  /// A delivery that was taken and will not be tried now.
  void give_back(const DeliveryView& view);

  [[nodiscard]] std::uint64_t failed() const noexcept { return count(failed_); }
  [[nodiscard]] std::uint64_t rejected() const noexcept { return count(rejected_); }
  [[nodiscard]] std::uint64_t given_back() const noexcept { return count(given_back_); }

 private:
  void fail(Delivery& delivery, std::string_view what, bool probe, std::uint64_t& succeeded);
  void reject(Delivery& delivery, std::string_view what);
  [[nodiscard]] bool has_free_probe(std::uint64_t delivery);
  static std::uint64_t count(const shm::Word64& word) noexcept {
    return word.load(std::memory_order_relaxed);  // relaxed: a number for people
  }

  const Handler handler_;
  const std::function<void(const Delivery&, std::string_view)> on_failure_;
  const std::uint32_t free_probes_;
  const std::shared_ptr<client::Member> member_;
  CircuitBreaker& breaker_;
  shm::Word64 failed_{};
  shm::Word64 rejected_{};
  shm::Word64 given_back_{};
  std::mutex mutex_;
  std::map<std::uint64_t, std::uint32_t> probed_;  // by delivery number: probes that failed without counting
};

}  // namespace ackring::runtime
