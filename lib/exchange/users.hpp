// Users: what X gives to clients of other users than its own: a number of places, and a share of its time.
//
// X's own user (and root) could end X anyway, so nothing is counted there. Everybody else has, over all connections of one
// uid, an account of the time that X has spent on it: while events flow, who has overdrawn it waits until it has been paid
// back, at 1/64 of the time that passes. A flood of requests is answered like anybody's, but slowly.
//
// Thread rules: X's thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace ackring::exchange {

/// Time that X has spent on somebody and has not been paid back for.
class Account {
 public:
  void charge(std::uint64_t spent_ns, std::uint64_t now_ns) noexcept;
  /// Has it to wait?
  [[nodiscard]] bool overdrawn(std::uint64_t now_ns) noexcept;

  static constexpr std::uint64_t credit_ns = 100'000'000;
  static constexpr std::uint64_t share = 64;  // one part of so many

 private:
  void pay_back(std::uint64_t now_ns) noexcept;

  std::uint64_t owed_ns_ = 0;
  std::uint64_t paid_until_ns_ = 0;
};

struct User {
  uid_t uid = 0;
  Account account;
};

class Users {
 public:
  Users();
  /// The user behind a connection, held by each of its clients; nullptr: one that nothing is counted of.
  [[nodiscard]] std::shared_ptr<User> find(uid_t uid);
  /// Has this user as many clients as it may have?
  [[nodiscard]] bool full(const std::shared_ptr<User>& user) const noexcept;
  /// May a descriptor with this number be used for it? The last quarter is kept for X and its own user. They are given out
  /// lowest first, so that the number says how many are in use.
  [[nodiscard]] bool may_have(const std::shared_ptr<User>& user, int fd) const noexcept;
  /// Clients that one user may have: an eighth of X's descriptors, and no more than 1,024.
  [[nodiscard]] std::size_t most_clients() const noexcept { return most_clients_; }

 private:
  uid_t own_;
  std::size_t most_clients_;
  std::size_t most_descriptors_;
  std::unordered_map<uid_t, std::shared_ptr<User>> users_;
};

}  // namespace ackring::exchange
