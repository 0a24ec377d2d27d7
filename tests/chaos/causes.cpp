#include "tests/chaos/causes.hpp"

#include <cmath>

#include "lib/shm/format.hpp"

namespace ackring::chaos {

using shm::DeliveryState;

std::string describe(const Note& note) {
  static constexpr const char* verdicts[] = {"no verdict", "ack", "nack", "reject"};
  const auto after_us = [&note](std::int64_t at) { return std::to_string((at - note.before_ns) / 1'000); };
  std::string text = publisher_name(note.publisher) + "/" + std::to_string(note.sequence) + " (delivery " +
                     std::to_string(note.delivery) + ", attempt " + std::to_string(note.attempt) + ", member " +
                     std::to_string(note.slot) + ", its life " + std::to_string(note.life) + ", asked for at " +
                     std::to_string(note.before_ns / 1'000) + " us, taken " + after_us(note.taken_ns) + " us later, " +
                     verdicts[static_cast<std::size_t>(note.verdict)];
  if (note.verdict != Verdict::none) text += " after " + after_us(note.decided_ns) + " us";
  if (note.verdict != Verdict::none)
    text += note.done_ns == 0 ? ", not answered" : ", answered after " + after_us(note.done_ns) + " us";
  return text + ")";
}

bool settled_in_time(const Role& role, const Note& note) {
  return note.done_ns != 0 && note.done_ns < note.before_ns + role.options.ack_timeout.count();
}

void Causes::without_cause(const Note& note, const std::string& why) {
  ++findings_.without_cause;
  findings_.tell(role_.options.name + ": " + describe(note) + ": " + why);
}
void Causes::broken(const Note& note, const std::string& why) {
  ++findings_.broken;
  findings_.tell(role_.options.name + ": " + describe(note) + ": " + why);
}

void Causes::explain(const Note* previous, const Note& note) {
  if (previous != nullptr && previous->attempt == note.attempt) {
    without_cause(note, "came with this attempt before: " + describe(*previous));
    return;
  }
  if (note.attempt > 1 && role_.at_most_once()) {
    without_cause(note, "at most once, and it came again");
    return;
  }
  if (note.attempt > role_.options.max_deliveries && !role_.requeued && !round_.room_was_short) {
    broken(note, "only " + std::to_string(role_.options.max_deliveries) + " attempts are allowed");
  }
  const std::uint32_t known = previous == nullptr ? 0 : previous->attempt;
  if (note.attempt > known + 1) {  // taken by somebody who was killed before noting it
    if (facts_.deaths.empty()) {
      without_cause(note, "nobody had attempt " + std::to_string(note.attempt - 1) + ", and nobody was killed");
    } else {
      not_noted_ += note.attempt - known - 1;
      ++findings_.duplicated["member_death"];
    }
    return;
  }
  if (note.attempt == 1) return;
  const std::string why = cause(*previous, note);
  if (why.empty()) {
    without_cause(note, "came again, though: " + describe(*previous));
    return;
  }
  ++findings_.duplicated[why];
  check_recorded(*previous, note);
  check_due(*previous, note);
}

bool Causes::died_before(const Note& holder, std::int64_t at_ns) const {
  for (const Death& death : facts_.deaths) {
    if (death.slot == holder.slot && death.life == holder.life) return death.ended_ns <= at_ns;
  }
  return false;
}

std::string Causes::cause(const Note& previous, const Note& note) const {
  const bool requeued = role_.requeued && round_.first_requeue_ns != 0 && round_.first_requeue_ns <= note.taken_ns;
  const bool in_time = settled_in_time(role_, previous);
  if (in_time && previous.verdict == Verdict::ack) return {};
  if (previous.verdict == Verdict::nack) return "nack";
  if (in_time && previous.verdict == Verdict::reject) return requeued ? "requeue" : "";
  if (died_before(previous, note.taken_ns)) return "member_death";
  if (note.taken_ns >= previous.before_ns + role_.options.ack_timeout.count()) return "timeout";
  if (previous.verdict == Verdict::reject && requeued) return "requeue";
  return {};
}

// The exchange's own account of it must be one that the member's notes allow.
void Causes::check_recorded(const Note& previous, const Note& note) {
  if (note.cause == 0) return;
  switch (static_cast<DeliveryState>(note.cause)) {
    case DeliveryState::nacked:
      if (previous.verdict != Verdict::nack) broken(note, "its record says nacked, but: " + describe(previous));
      return;
    case DeliveryState::timed_out:
      if (note.taken_ns < previous.before_ns + role_.options.ack_timeout.count()) {
        broken(note, "its record says timed out, but: " + describe(previous));
      }
      return;
    case DeliveryState::member_died:
      if (!died_before(previous, note.taken_ns)) {
        broken(note, "its record says that its member died, but: " + describe(previous));
      }
      return;
    case DeliveryState::rejected:
      if (!role_.requeued) broken(note, "its record says rejected, but nothing is requeued here");
      return;
    default:
      broken(note, "its record gives cause " + std::to_string(note.cause));
  }
}

// A nack that was given in time is followed by its delay, or by the back-off.
void Causes::check_due(const Note& previous, const Note& note) {
  if (role_.requeued || previous.verdict != Verdict::nack || !settled_in_time(role_, previous)) return;
  // Where the retry log had no room for what a dead member nacked, it went round at once.
  if (round_.room_was_short && note.cause == static_cast<std::uint32_t>(DeliveryState::member_died)) return;
  const SubscriptionOptions& options = role_.options;
  double delay_ns = static_cast<double>(previous.nack_ns);
  if (previous.nack_ns < 0) {
    const double grown = static_cast<double>(options.backoff_initial.count()) *
                         std::pow(options.backoff_multiplier, previous.attempt - 1);
    delay_ns = std::min(static_cast<double>(options.backoff_max.count()), grown) * (1 - options.jitter);
  }
  const std::int64_t due_ns = previous.decided_ns + static_cast<std::int64_t>(delay_ns);
  if (note.taken_ns < due_ns) {
    broken(note, "came " + std::to_string((due_ns - note.taken_ns) / 1'000) + " us before it was due, for cause " +
                     std::to_string(note.cause) + ": " + describe(previous));
  }
}

void Causes::finish() {
  const std::uint64_t most = facts_.deaths.size() * (role_.views ? 16 : 1);
  if (not_noted_ <= most) return;
  findings_.without_cause += not_noted_ - most;
  findings_.tell(role_.options.name + ": " + std::to_string(not_noted_) + " attempts that nobody noted, and only " +
                 std::to_string(facts_.deaths.size()) + " members that ended");
}

}  // namespace ackring::chaos
