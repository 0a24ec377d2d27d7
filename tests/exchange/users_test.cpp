// What other users get of X's time and places (F46).
#include "lib/exchange/users.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <vector>

using namespace ackring::exchange;

namespace {
constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t later = 1'000'000 * ms;
}  // namespace

TEST_CASE("an account has a credit, and is paid back at a 64th of the time") {
  Account account;
  CHECK_FALSE(account.overdrawn(later));
  account.charge(Account::credit_ns, later);
  CHECK_FALSE(account.overdrawn(later));
  account.charge(1, later);
  CHECK(account.overdrawn(later));
  CHECK(account.overdrawn(later + 63));
  CHECK_FALSE(account.overdrawn(later + 64));
  account.charge(10 * ms, later + 64);
  CHECK(account.overdrawn(later + 64 + 64 * 10 * ms - 1));
  CHECK_FALSE(account.overdrawn(later + 64 + 64 * 10 * ms));
}

TEST_CASE("looks in between lose nothing of what is paid back, and a clock that stands still pays nothing") {
  Account account;
  account.charge(Account::credit_ns + 1'000, later);
  for (std::uint64_t ns = 0; ns < 64 * 1'000; ns += 7) CHECK(account.overdrawn(later + ns));
  CHECK_FALSE(account.overdrawn(later + 64 * 1'000));
  account.charge(1, later);  // earlier than the last look
  CHECK(account.overdrawn(later));
}

TEST_CASE("whoever asks without end gets no more than its share") {
  Account account;
  std::uint64_t now = later;
  std::uint64_t served = 0;
  while (now < later + 60'000 * ms) {
    if (account.overdrawn(now)) {
      now += 5 * ms;
    } else {
      account.charge(ms, now += ms);
      served += ms;
    }
  }
  CHECK(served <= Account::credit_ns + 60'000 * ms / Account::share + 2 * ms);
  CHECK(served >= 60'000 * ms / Account::share);
}

TEST_CASE("X's own user and root are not counted; others have a number of clients") {
  Users users;
  CHECK(users.find(0) == nullptr);
  CHECK(users.find(::geteuid()) == nullptr);
  CHECK_FALSE(users.full(nullptr));
  CHECK(users.may_have(nullptr, 1 << 30));
  constexpr uid_t other = 65533;
  CHECK(users.find(other) == users.find(other));
  std::vector<std::shared_ptr<User>> clients;
  for (std::size_t i = 0; i < users.most_clients(); ++i) {
    auto client = users.find(other);
    CHECK_FALSE(users.full(client));
    clients.push_back(std::move(client));
  }
  CHECK(users.full(users.find(other)));
  CHECK_FALSE(users.full(users.find(other - 1)));
  clients.pop_back();
  CHECK_FALSE(users.full(users.find(other)));
  CHECK(users.may_have(clients[0], 3));
  CHECK_FALSE(users.may_have(clients[0], 1 << 30));
}
