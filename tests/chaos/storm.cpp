#include "tests/chaos/storm.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "tests/chaos/bus_tools.hpp"
#include "tools/common/program.hpp"

namespace ackring::chaos {

namespace {
constexpr std::int64_t ms = 1'000'000;
}

std::uint64_t Tally::all_kills() const {
  std::uint64_t sum = 0;
  for (const auto& [role, count] : kills) {
    if (role != "host") sum += count;  // a host is a client, and counted as that
  }
  return sum;
}

Storm::Storm(const Settings& settings, SharedNotes& notes, Tally& tally)
    : settings_(settings), notes_(notes), tally_(tally), random_(mix(settings.seed)) {
  for (std::size_t p = 0; p < publishers; ++p) actors_.push_back({.kind = ActorKind::publisher, .index = p});
  std::size_t slot = 0;
  for (const Role& role : roles_) {
    for (std::size_t i = 0; i < role.members; ++i) {
      actors_.push_back({.kind = ActorKind::member, .index = slot++, .role = &role});
    }
  }
  actors_.push_back({.kind = ActorKind::person, .index = 0});
  actors_.push_back({.kind = ActorKind::visitor, .index = 1});
  actors_.push_back({.kind = ActorKind::visitor, .index = 2});
  actors_.push_back({.kind = ActorKind::observer, .index = 3});
}

Storm::~Storm() {
  for (Actor& actor : actors_) {
    if (actor.child) ::kill(actor.child->pid(), SIGKILL);
  }
  if (exchange_) ::kill(exchange_->pid(), SIGCONT);
  free_room();
}

const char* Storm::role_name(ActorKind kind) {
  static constexpr const char* names[] = {"publisher", "subscriber", "operator", "visitor", "observer"};
  return names[static_cast<std::size_t>(kind)];
}

std::vector<std::string> Storm::shmtool(std::vector<std::string> arguments) const {
  std::vector<std::string> command{settings_.shmtool, "--dir", settings_.directory, "--bus", bus_name};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

ActorNotes& Storm::notes_of(const Actor& actor) {
  if (actor.kind == ActorKind::publisher) return notes_->of_publishers[actor.index].actor;
  if (actor.kind == ActorKind::member) return notes_->of_members[actor.index].actor;
  return notes_->of_others[actor.index];
}

void Storm::start(Actor& actor) {
  Place place{.directory = settings_.directory,
              .mode = kind_ == Kind::embedded ? ExchangeMode::automatic : ExchangeMode::require,
              .seed = settings_.seed,
              .randomness = random_(),
              .life = actor.life,
              .notes = notes_.notes};
  if (actor.life == lives_of_actor - 1) throw std::runtime_error("no room for more lives: run a shorter round");
  ++actor.life;
  notes_of(actor).moments_left.store(0, std::memory_order_seq_cst);
  actor.killed = false;
  actor.child = std::make_unique<tools::Child>(tools::Child::start(role_name(actor.kind), [&](tools::Channel&) {
    switch (actor.kind) {
      case ActorKind::publisher:
        return be_publisher(place, actor.index);
      case ActorKind::member:
        return be_member(place, *actor.role, actor.index);
      case ActorKind::person:
        return be_operator(place, actor.index);
      case ActorKind::visitor:
        return be_visitor(place, actor.index);
      case ActorKind::observer:
        return be_observer(place, actor.index, settings_.shmtool);
    }
  }));
}

// Whoever ends is started again; but for a death that this driver has ordered it has to be an end with status 0.
void Storm::reap(Actor& actor) {
  if (!actor.child) return;
  const auto status = actor.child->wait(0ns);
  if (!status) return;
  ActorNotes& notes = notes_of(actor);
  const bool itself = notes.ended_ns[actor.life - 1].load(std::memory_order_seq_cst) != 0;  // or it was told to
  if (*status == -1 && (actor.killed || itself)) {
    ++tally_.kills[role_name(actor.kind)];
  } else if (*status != 0) {
    std::string why = "ended with status " + std::to_string(*status);
    try {
      (void)actor.child->channel().receive(10ms);
    } catch (const std::exception& error) {
      why += ": " + std::string(error.what());
    }
    tally_.surprises.push_back(std::string(role_name(actor.kind)) + " " + std::to_string(actor.index) + " " + why);
  }
  notes.end_life(actor.life - 1);
  actor.child.reset();
  const Phase phase = notes_->phase.load(std::memory_order_seq_cst);
  // Publishers and operator have to come to an end by themselves once; members stay until all is done.
  actor.done = phase != Phase::storm && *status == 0 && (actor.kind != ActorKind::member || phase == Phase::leave);
  if (phase != Phase::storm && (actor.kind == ActorKind::visitor || actor.kind == ActorKind::observer))
    actor.done = true;
  const bool surprise = *status != 0 && *status != -1;
  actor.start_at = now_ns() + (surprise ? 500 * ms : 0) +
                   (phase == Phase::storm && in(50) ? static_cast<std::int64_t>(up_to(100)) * ms : 0);
}

void Storm::start_exchange() {
  // Of other shards than the one before, now and then: what cannot be divided under load stays as it was.
  const char* const shards = std::array{"1", "1", "2", "4"}[up_to(3)];
  exchange_ = std::make_unique<tools::Child>(
      tools::Child::execute({settings_.exchange, "--dir", settings_.directory, "--bus", bus_name, "--shards", shards}));
  exchange_started_ = now_ns();
  exchange_killed_ = false;
}

int Storm::stop_exchange() {
  if (!exchange_) return 0;
  exchange_start_at_ = 0;
  const int status = exchange_->stop(10s);
  exchange_.reset();
  return status;
}

void Storm::reap_exchange() {
  if (!exchange_) {
    if (exchange_start_at_ != 0 && now_ns() >= exchange_start_at_) start_exchange();
    return;
  }
  const pid_t pid = exchange_->pid();
  const auto status = exchange_->wait(0ns);
  if (!status) return;
  if (exchange_killed_ && *status == -1) {
    ++tally_.kills["exchange"];
  } else if (*status == 3 && ballast_freed_ns_ >= exchange_started_) {
    // There was no room for what it needs to start.
  } else if (*status == 3 && pid == last_without_descriptors_) {
    // It had none while it started.
  } else {
    tally_.surprises.push_back("the exchange ended with status " + std::to_string(*status));
  }
  exchange_.reset();
  const std::uint64_t dice = up_to(99);
  const std::uint64_t away_ms = dice < 50 ? 0 : dice < 85 ? up_to(200) : up_to(800);
  const bool storm = notes_->phase.load(std::memory_order_seq_cst) == Phase::storm;
  exchange_start_at_ = now_ns() + (storm ? static_cast<std::int64_t>(away_ms) * ms : 0);
}

void Storm::look_after_all() {
  if (ballast_ >= 0) ballast_freed_ns_ = now_ns();
  reap_exchange();
  for (Actor& actor : actors_) {
    reap(actor);
    if (!actor.child && !actor.done && now_ns() >= actor.start_at) start(actor);
  }
}

void Storm::at(std::int64_t when, std::function<void()> what) { timeline_.emplace(when, std::move(what)); }

void Storm::run_due() {
  while (!timeline_.empty() && timeline_.begin()->first <= now_ns()) {
    const auto what = std::move(timeline_.begin()->second);
    timeline_.erase(timeline_.begin());
    what();
  }
}

void Storm::rage(Kind kind, Nanoseconds duration) {
  kind_ = kind;
  room_was_short_ = false;
  if (kind == Kind::embedded && exchange_) {
    if (const int status = stop_exchange(); status != 0) {
      tally_.surprises.push_back("the exchange ended with status " + std::to_string(status) + " on SIGTERM");
    }
  }
  for (Actor& actor : actors_) {
    actor.life = 0;
    actor.done = false;
    actor.start_at = 0;
  }
  notes_->phase.store(Phase::storm, std::memory_order_seq_cst);
  const std::int64_t end = now_ns() + duration.count();
  std::exponential_distribution<double> pause(settings_.kills_per_second);
  std::int64_t next = now_ns();
  while (now_ns() < end) {
    look_after_all();
    run_due();
    if (now_ns() >= next) {
      strike();
      next += static_cast<std::int64_t>(pause(random_) * 1e9);
    }
    ::poll(nullptr, 0, 1);
  }
  while (!timeline_.empty()) {  // who is stopped goes on
    const auto what = std::move(timeline_.begin()->second);
    timeline_.erase(timeline_.begin());  // first: it may put something before all others
    what();
  }
}

std::string Storm::wait_for(const std::string& what, const std::function<bool()>& done) {
  const std::int64_t deadline = now_ns() + patience.count();
  while (!done()) {
    look_after_all();
    if (now_ns() > deadline) {
      std::string who;
      for (const Actor& actor : actors_) {
        if (!actor.done) who += std::string(" ") + role_name(actor.kind) + " " + std::to_string(actor.index);
      }
      return what + ": not within " + std::to_string(patience.count() / 1'000'000'000) + " s; still there:" + who;
    }
    ::poll(nullptr, 0, 2);
  }
  return {};
}

std::string Storm::calm() {
  notes_->phase.store(Phase::drain, std::memory_order_seq_cst);
  std::string stuck = wait_for("publishers route their last events, the operator resumes all", [this] {
    return std::all_of(actors_.begin(), actors_.end(),
                       [](const Actor& actor) { return actor.kind == ActorKind::member || actor.done; });
  });
  if (!stuck.empty()) return stuck + "; " + run(shmtool({"stat", "--json"})).output;
  std::string rows;
  std::int64_t next_look = 0;
  stuck = wait_for("subscriptions become empty", [&] {
    if (now_ns() < next_look) return false;
    next_look = now_ns() + 50 * ms;
    const Ran ran = run(shmtool({"stat", "--json"}));
    rows = ran.status == 0 ? "" : "; shmtool stat: status " + std::to_string(ran.status) + ", -1 after a minute";
    if (ran.status != 0) return false;
    const Json document = Json::parse(ran.output);
    for (const Json& row : document.at("subscriptions")) {
      if (waiting(row) != 0) rows += "; " + row.dump();
    }
    return rows.empty();
  });
  if (!stuck.empty()) return stuck + rows;
  notes_->phase.store(Phase::leave, std::memory_order_seq_cst);
  stuck = wait_for("members leave", [this] {
    return std::all_of(actors_.begin(), actors_.end(), [](const Actor& actor) { return actor.done; });
  });
  if (stuck.empty() && !exchange_) start_exchange();
  return stuck;
}

}  // namespace ackring::chaos
