#include "tests/interleave/explorer.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace ackring::test::interleave {

namespace {

constexpr std::uint64_t longest_execution = 5'000;  // steps: a role that loops without an end

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 0) : otherwise;
}

}  // namespace

void Scenario::expect(bool so, const char* what) {
  if (!so) explorer_->give_up(what);
}
void Scenario::pause() { explorer_->yield(Explorer::State::paused); }
void Scenario::sleep(bool& flag) {
  explorer_->roles_[explorer_->current_].flag = &flag;
  explorer_->yield(Explorer::State::asleep);
  flag = false;
}

Explorer::Explorer(const char* title, Scenario& scenario, const Bounds& bounds)
    : title_(title), scenario_(scenario), bounds_(bounds), names_(scenario.roles()) {
  scenario.explorer_ = this;
  for (const auto& [at, text] : scenario.named_) memory_.name(at, text);
  bounds_.preemptions += static_cast<unsigned>(number_of("ACKRING_PREEMPTIONS", 0));
  bounds_.old_values += static_cast<unsigned>(number_of("ACKRING_OLD_VALUES", 0));
}

Explorer::~Explorer() { scenario_.explorer_ = nullptr; }

// ------------------------------------------------------------------------------------------------------------- choices

// Replays what was chosen before; what is new begins with 0.
std::size_t Explorer::choose(std::size_t options) {
  if (options == 1) return 0;
  if (replayed_ != nullptr) {
    const std::size_t at = position_++;
    return at < replayed_->size() ? std::min<std::size_t>((*replayed_)[at] - '0', options - 1) : 0;
  }
  if (position_ == choices_.size()) choices_.push_back({0, static_cast<std::uint8_t>(options)});
  Choice& choice = choices_[position_++];
  if (choice.options != options) {
    give_up("the scenario does not do the same when it is replayed: has it a state that reset() forgets?");
  }
  return choice.chosen;
}

std::size_t Explorer::choose_value(std::size_t options) {
  if (old_values_ == 0 || roles_[current_].newest_only) return 0;
  const std::size_t chosen = choose(options);
  if (chosen != 0) --old_values_;
  return chosen;
}

// The next execution in depth-first order. False: that was all.
bool Explorer::next() {
  while (!choices_.empty() && choices_.back().chosen + 1 == choices_.back().options) choices_.pop_back();
  if (choices_.empty()) return false;
  ++choices_.back().chosen;
  return true;
}

// One character per choice.
std::string Explorer::trace() const {
  std::string text;
  for (std::size_t i = 0; i < position_; ++i) text += static_cast<char>('0' + choices_[i].chosen);
  text.erase(text.find_last_not_of('0') + 1);
  return text.empty() ? "0" : text;
}

// ------------------------------------------------------------------------------------------------------------ execution

void Explorer::execute() {
  roles_.assign(names_.size(), Role{});
  position_ = 0;
  preemptions_ = bounds_.preemptions;
  old_values_ = bounds_.old_values;
  steps_ = 0;
  failure_.clear();
  memory_.reset(names_.size(), bounds_.membarrier, *this);
  scenario_.reset();
  if (!fibres_) {
    fibres_ = std::make_unique<Fibres>(names_.size(), [this](std::size_t role) {
      while (true) {
        scenario_.run(role);
        yield(State::ended);
      }
    });
  }
  current_ = choose(names_.size());
  shm::memory_hook = this;
  fibres_->enter(current_);
  shm::memory_hook = nullptr;
  if (failure_.empty()) scenario_.finish();
  if (!failure_.empty()) fibres_.reset();  // what they were doing is left where it was
}

bool Explorer::can_run(std::size_t role) const {
  switch (roles_[role].state) {
    case State::ready:
      return true;
    case State::paused:
      return memory_.stores() != roles_[role].seen_stores;
    case State::asleep:
      return *roles_[role].flag;
    case State::ended:
      break;
  }
  return false;
}

void Explorer::go_on_with(std::size_t role) {
  roles_[role].state = State::ready;
  if (role == current_) return;
  const std::size_t from = std::exchange(current_, role);
  fibres_->change(from, role);
}

// Before an access: another role may go on first.
void Explorer::point() {
  check_memory();
  if (++steps_ > longest_execution) give_up("it does not end");
  if (preemptions_ == 0) return;
  std::size_t options = 1;
  for (std::size_t role = 0; role < roles_.size(); ++role) options += role != current_ && can_run(role) ? 1 : 0;
  std::size_t chosen = choose(options);
  if (chosen == 0) return;
  --preemptions_;
  for (std::size_t role = 0; role < roles_.size(); ++role) {
    if (role != current_ && can_run(role) && --chosen == 0) return go_on_with(role);
  }
}

// The current role can't go on, or is through.
void Explorer::yield(State state) {
  check_memory();
  Role& self = roles_[current_];
  self.in_vain = state == State::paused && self.newest_only && self.seen_stores == memory_.stores();
  self.state = state;
  self.seen_stores = memory_.stores();
  self.newest_only = false;
  std::size_t options = 0;
  for (std::size_t role = 0; role < roles_.size(); ++role) options += can_run(role) ? 1 : 0;
  if (options == 0) {
    bool all_ended = true;
    std::size_t waiting = roles_.size();
    for (std::size_t role = 0; role < roles_.size(); ++role) {
      all_ended = all_ended && roles_[role].state == State::ended;
      if (roles_[role].state == State::paused && !roles_[role].in_vain) waiting = role;
    }
    if (all_ended) {
      fibres_->leave(current_);
      return;
    }
    if (waiting == roles_.size())
      give_up("a role waits for what never comes: a wake-up was lost, or a store is missing");
    roles_[waiting].newest_only = true;  // old values do not stay for ever
    return go_on_with(waiting);
  }
  std::size_t chosen = choose(options);
  for (std::size_t role = 0; role < roles_.size(); ++role) {
    if (can_run(role) && chosen-- == 0) return go_on_with(role);
  }
}

// Ends the execution; the fibres are never gone on with. In finish() there is nothing to leave.
void Explorer::give_up(std::string why) {
  // A race comes before what it leads to.
  if (failure_.empty()) failure_ = memory_.failure().empty() ? std::move(why) : memory_.failure();
  if (shm::memory_hook != this) return;
  tell("fails", nullptr, 0);
  fibres_->leave(current_);
}

void Explorer::check_memory() {
  if (!memory_.failure().empty()) give_up(memory_.failure());
}

Result Explorer::explore() {
  Result result;
  const char* given = std::getenv("ACKRING_REPLAY");
  const std::string prefix = std::string(title_) + ":";
  if (given != nullptr && std::string_view(given).starts_with(prefix)) {
    replay(std::string(given).substr(prefix.size()), result);
    return result;
  }
  const std::uint64_t most = number_of("ACKRING_EXECUTIONS", ~std::uint64_t{0});
  choices_.clear();
  do {
    ++result.executions;
    execute();
    if (failure_.empty()) continue;
    result.failure = failure_;
    replay(trace(), result);
    break;
  } while (next() && result.executions != most);
  result.exhausted = choices_.empty();
  const char* outcome = !result.failure.empty() ? "the last one fails" : result.exhausted ? "all" : "of more";
  std::printf("%s: %" PRIu64 " executions (%s) with up to %u preemptions and %u old values\n", title_,
              result.executions, outcome, bounds_.preemptions, bounds_.old_values);
  std::fflush(stdout);
  return result;
}

// One execution, told step by step.
void Explorer::replay(const std::string& trace, Result& result) {
  std::string story;
  replayed_ = &trace;
  story_ = &story;
  execute();
  replayed_ = nullptr;
  story_ = nullptr;
  result.trace = trace;
  result.story = story;
  if (!failure_.empty()) result.failure = failure_;
}

void Explorer::tell(const char* what, const void* at, std::uint64_t value) {
  if (story_ == nullptr) return;
  *story_ += "  " + names_[current_] + ": " + what;
  if (at != nullptr) *story_ += " " + memory_.name_of(at) + " = " + std::to_string(value);
  *story_ += "\n";
}

}  // namespace ackring::test::interleave
