// Endpoint: what a connection must know of a publisher's or a member's side to resume it at another exchange.
//
// Thread rules: `epoch` belongs to the connection's list of endpoints (its mutex); the virtual functions are called by
// the keeper thread, which keeps the endpoint from being destroyed meanwhile.
#pragma once

#include <cstdint>

#include "lib/client/fork_guard.hpp"
#include "lib/client/reply_error.hpp"
#include "lib/shm/descriptor.hpp"

namespace ackring::client {

class Connection;

class Endpoint {
 public:
  Endpoint() = default;
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  [[nodiscard]] ForkGuard& guard() noexcept { return guard_; }
  [[nodiscard]] const ForkGuard& guard() const noexcept { return guard_; }

  /// The request that makes a new exchange know this endpoint again.
  [[nodiscard]] virtual Json resume_request() const = 0;
  /// It does: here is the new doorbell. Throws Error (no_space, system): it is to be asked again.
  virtual void resumed(shm::UniqueFd bell) = 0;
  /// It does not, and never will.
  virtual void refused() = 0;

  /// Number of the hello under which the exchange knows it.
  std::uint64_t epoch = 0;

 protected:
  virtual ~Endpoint() = default;
  ForkGuard guard_;
};

}  // namespace ackring::client
