#include "lib/exchange/users.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace ackring::exchange {

void Account::charge(std::uint64_t spent_ns, std::uint64_t now_ns) noexcept {
  pay_back(now_ns);
  owed_ns_ += spent_ns;
}

bool Account::overdrawn(std::uint64_t now_ns) noexcept {
  pay_back(now_ns);
  return owed_ns_ > credit_ns;
}

void Account::pay_back(std::uint64_t now_ns) noexcept {
  if (now_ns <= paid_until_ns_) return;
  const std::uint64_t paid_ns = (now_ns - paid_until_ns_) / share;
  if (paid_ns >= owed_ns_) {
    owed_ns_ = 0;
    paid_until_ns_ = now_ns;
  } else {
    owed_ns_ -= paid_ns;
    paid_until_ns_ += paid_ns * share;  // what is left of a division counts at the next look
  }
}

Users::Users() : own_(::geteuid()) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = 1024;
  const auto descriptors = static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_cur, 1u << 30));
  most_clients_ = std::clamp<std::size_t>(descriptors / 8, 8, 1024);
  most_descriptors_ = descriptors - descriptors / 4;
}

std::shared_ptr<User> Users::find(uid_t uid) {
  if (uid == own_ || uid == 0) return nullptr;
  std::shared_ptr<User>& user = users_[uid];
  if (!user) user = std::make_shared<User>(User{uid, {}});
  return user;
}

bool Users::full(const std::shared_ptr<User>& user) const noexcept {
  return user &&
         static_cast<std::size_t>(user.use_count()) > most_clients_ + 1;  // the table and the caller hold it, too
}

bool Users::may_have(const std::shared_ptr<User>& user, int fd) const noexcept {
  return !user || static_cast<std::size_t>(fd) < most_descriptors_;
}

}  // namespace ackring::exchange
