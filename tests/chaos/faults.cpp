// What Storm does to its actors.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "tests/chaos/storm.hpp"

namespace ackring::chaos {

namespace {
constexpr std::int64_t ms = 1'000'000;
}

Storm::Actor* Storm::any_running(bool observers) {
  std::vector<Actor*> running;
  for (Actor& actor : actors_) {
    if (actor.child && !actor.killed && (observers || actor.kind != ActorKind::observer)) running.push_back(&actor);
  }
  return running.empty() ? nullptr : running[random_() % running.size()];
}

// One blow: mostly the death of somebody, sometimes of several at once; stops and shortages beside it.
void Storm::strike() {
  const std::uint64_t victims = in(10) ? 2 + up_to(4) : 1;
  for (std::uint64_t i = 0; i < victims; ++i) {
    if (kind_ == Kind::all && in(40) && exchange_ && !exchange_killed_) {
      kill_exchange();
    } else if (Actor* actor = any_running(false)) {
      kill_actor(*actor);
    }
  }
  if (in(20)) {
    for (std::uint64_t i = in(20) ? 1 + up_to(3) : 0; i + 1 > 0; --i) {
      stop_somebody();
      if (i == 0) break;
    }
  }
  if (settings_.own_room && in(3)) fill_room();
  if (in(2)) take_descriptors();
}

void Storm::kill_actor(Actor& actor) {
  if (kind_ == Kind::embedded) {
    std::ifstream owner(bus_directory() + "/exchange.lock");
    pid_t pid = 0;
    if (owner >> pid && pid == actor.child->pid()) ++tally_.kills["host"];
  }
  if (in(30)) {  // between two steps of its work, if it comes so far; else right now, the next time
    notes_of(actor).moments_left.store(1 + up_to(8), std::memory_order_seq_cst);
    return;
  }
  notes_of(actor).end_life(actor.life - 1);
  actor.killed = true;
  ::kill(actor.child->pid(), SIGKILL);
}

void Storm::kill_exchange() {
  if (now_ns() - exchange_started_ < 30 * ms) ++tally_.in_recovery;
  exchange_killed_ = true;
  ::kill(exchange_->pid(), SIGKILL);
  if (!in(35)) return;
  // And again, while its successor recovers.
  const std::int64_t delay = static_cast<std::int64_t>(up_to(in(50) ? 3'000 : 30'000)) * 1'000;
  const std::int64_t killed = now_ns();
  std::function<void()> again = [this, killed, delay] {
    if (!exchange_ || exchange_killed_) return;
    const std::int64_t since = now_ns() - exchange_started_;
    if (exchange_started_ < killed) return;
    if (since < delay) {
      at(exchange_started_ + delay, [this] {
        if (exchange_ && !exchange_killed_) kill_exchange();
      });
    } else {
      kill_exchange();
    }
  };
  at(now_ns() + 2 * ms, again);
}

void Storm::stop_somebody() {
  const std::int64_t until =
      now_ns() + (in(50) ? static_cast<std::int64_t>(up_to(60)) : static_cast<std::int64_t>(up_to(700))) * ms;
  ++tally_.stops;
  if (exchange_ && in(15)) {
    const pid_t pid = exchange_->pid();
    ::kill(pid, SIGSTOP);
    at(until, [this, pid] {
      if (exchange_ && exchange_->pid() == pid) ::kill(pid, SIGCONT);
    });
    return;
  }
  Actor* actor = any_running(false);
  if (actor == nullptr) return;
  const pid_t pid = actor->child->pid();
  ::kill(pid, SIGSTOP);
  at(until, [actor, pid] {
    if (actor->child && actor->child->pid() == pid) ::kill(pid, SIGCONT);
  });
}

// All the room that is left is taken, so that whatever needs a page gets an error.
void Storm::fill_room() {
  if (ballast_ >= 0) return;
  const std::string path = settings_.directory + "/ballast";
  ballast_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (ballast_ < 0) return;  // not even room for its name: full it is
  off_t size = 0;
  for (off_t step = 16 << 20; step >= 4096;) {
    if (::posix_fallocate(ballast_, size, step) == 0) {
      size += step;
    } else {
      step /= 2;
    }
  }
  ++tally_.full;
  room_was_short_ = true;
  at(now_ns() + static_cast<std::int64_t>(5 + up_to(400)) * ms, [this] { free_room(); });
}

void Storm::free_room() {
  if (ballast_ < 0) return;
  ballast_freed_ns_ = now_ns();
  ::unlink((settings_.directory + "/ballast").c_str());
  // Actors that were forked meanwhile have the descriptor, too: what is closed here alone would stay full until they end.
  if (::ftruncate(ballast_, 0) != 0) throw std::runtime_error("the ballast can't be given back");
  ::close(ballast_);
  ballast_ = -1;
}

void Storm::take_descriptors() {
  if (!exchange_ || exchange_killed_) return;
  const pid_t pid = exchange_->pid();
  if (pid == without_descriptors_) return;
  rlimit before{};
  if (::prlimit(pid, RLIMIT_NOFILE, nullptr, &before) != 0) return;
  const rlimit few{16, before.rlim_max};  // it has more already: each new one is refused
  if (::prlimit(pid, RLIMIT_NOFILE, &few, nullptr) != 0) return;
  ++tally_.descriptors;
  room_was_short_ = true;  // a log can't grow without one, either
  without_descriptors_ = last_without_descriptors_ = pid;
  at(now_ns() + static_cast<std::int64_t>(5 + up_to(200)) * ms, [this, pid, before] {
    if (exchange_ && exchange_->pid() == pid) ::prlimit(pid, RLIMIT_NOFILE, &before, nullptr);
    without_descriptors_ = -1;
  });
}

}  // namespace ackring::chaos
