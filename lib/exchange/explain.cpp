// Explain: what can be said of the place where an event was found, and why it is there.
#include <algorithm>

#include "lib/exchange/attempt.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/inspect.hpp"
#include "lib/exchange/snapshot.hpp"

namespace ackring::exchange {

using control::Json;
using ring::Verdict;
using shm::DeliveryState;
using shm::LaterState;

namespace {

// Times of the monotonic clock in Unix time, as far as the two clocks agree now.
struct Times {
  std::uint64_t now_ns;
  std::uint64_t served_ns;
  std::uint64_t to_unix = unix_now_ns() - now_ns;

  /// Of a time that taken deliveries are judged by, if the exchange goes on without a break.
  [[nodiscard]] std::uint64_t monotonic(std::uint64_t of_served_ns) const noexcept {
    return now_ns + (of_served_ns - served_ns);
  }
  [[nodiscard]] std::uint64_t unix(std::uint64_t monotonic_ns) const noexcept { return monotonic_ns + to_unix; }
};

const char* why_in_backlog(const Queue& queue) {
  if (queue.paused) return "the subscription is paused";
  if (!queue.has_member()) return "no member is there";
  if (queue.parked_events != 0 || queue.has_orphans) return "what was taken back from a member goes first";
  if (queue.options.ordered && !queue.keys) return "one delivery at a time: one before it is not settled";
  return queue.dispatched() ? "no member has room" : "the ring of the member has no room";
}

const char* why_parked(const Queue& queue, const shm::RecordHeader& record) {
  if (queue.paused) return "the subscription is paused";
  if (!queue.has_member()) return "no member is there";
  const auto slot = queue.keys ? KeySlots::of(record) : std::nullopt;
  if (!slot) return "it was taken back from a member, and goes out again first";
  const bool busy = queue.options.ordered && queue.keys->in_rings[*slot] + queue.keys->waiting[*slot] != 0;
  return busy ? "a delivery of its key before it is not settled" : "the member of its key has no room";
}

void add_member(Json& body, const Lane& lane) {
  if (!lane.has_member()) return;
  body["member"] = {{"client", lane.client}};
  if (lane.number != 0) body["member"]["number"] = lane.number;
}

// Taken and not settled. A mark says that everything below its entry was taken before its time, and that is from when its
// time counts: at most a tick late.
void add_flight(Json& body, const Lane& lane, std::uint64_t entry, const Times& times) {
  const auto timeout_ns = static_cast<std::uint64_t>(lane.queue->options.ack_timeout.count());
  const auto mark = std::find_if(lane.marks.begin(), lane.marks.end(), [entry](const TakenMark& one) {
    return static_cast<std::int64_t>(one.taken - entry) > 0;
  });
  const bool over = static_cast<std::int64_t>(lane.timed_out_below - entry) > 0;
  std::uint64_t until = 0;
  if (mark != lane.marks.end() && !over) {
    body["since_ns"] = times.unix(times.monotonic(mark->time_ns));
    until = times.monotonic(mark->time_ns + timeout_ns);
  } else if (!over) {  // taken since the last tick
    body["since_ns"] = times.unix(times.now_ns);
    until = times.now_ns + timeout_ns;
  }
  body["reason"] = "taken, and no verdict yet";
  const auto extension = lane.extended.find(entry);
  if (extension != lane.extended.end() && extension->second.count != 0) {
    until = std::max(until, times.monotonic(extension->second.deadline_ns));
    body["reason"] = "taken, and its member asked for more time";
  }
  const Verdict verdict = lane.acks.valid() ? lane.acks.verdict(entry) : Verdict::none;
  if (ring::is_final(verdict) && verdict != Verdict::ack && verdict != Verdict::returned) {
    body["reason"] = verdict == Verdict::reject ? "it was rejected, and there is no room in the dead-letter log"
                     : verdict == Verdict::give_back
                         ? "its member gave it back, and there is no room yet for where it has to go"
                         : "it was nacked, and there is no room yet for where it has to go";
  } else if (over && (extension == lane.extended.end() || extension->second.count == 0)) {
    body["reason"] = "its time is over, and there is no room yet for where it has to go";
  } else if (until != 0) {
    body["until_ns"] = times.unix(until);
  }
}

void explain_entry(Json& body, const Queue& queue, const Found& found, const Times& times) {
  const Lane& lane = *found.lane;
  const bool untaken = static_cast<std::int64_t>(found.entry - lane.taken) >= 0;
  const bool returned = lane.is_returned(found.entry);
  if ((lane.state_of(found.entry) & shm::state_mask) == static_cast<std::uint8_t>(DeliveryState::acked)) {
    body["state"] = "settled";
    body["reason"] = "acked";
  } else if (untaken || returned) {
    body["state"] = "queued";
    body["where"] = "ring";
    body["position"] = found.before;
    if (returned || (!lane.has_member() && queue.dispatched())) {
      body["reason"] = "it was taken back from a member, and goes to another one";
    } else if (!lane.has_member()) {
      body["reason"] = "no member is there";
    } else {
      body["reason"] = found.before == 0 ? "its member has not taken it yet" : "its member takes those before it first";
    }
    add_member(body, lane);
  } else if (queue.at_most_once()) {
    body["state"] = "settled";
    body["reason"] = "acked: taken, at most once";
  } else {
    body["state"] = "in_flight";
    add_member(body, lane);
    add_flight(body, lane, found.entry, times);
  }
}

void explain_retry(Json& body, const Queue& queue, const Found& found, const Times& times) {
  const shm::LaterInfo& later = *found.event.later;
  const LaterState left = later_state_of(found.event);
  if (left == LaterState::acked) {
    body["state"] = "settled";
    body["reason"] = "acked late, while it waited for a retry";
  } else if (left != LaterState::waiting) {
    body["state"] = "gone";
    body["reason"] = "purged";
  } else if (later.due_ns == 0) {
    body["state"] = "parked";
    body["reason"] = why_parked(queue, *found.event.header);
  } else {
    const bool first = is_untaken(found.event);
    body["state"] = first ? "delayed" : "retry_waiting";
    body["due_ns"] = times.unix(later.due_ns);
    if (!first) body["attempt"] = body["attempt"].get<std::uint64_t>() + 1;  // the one it waits for
    if (later.due_ns <= times.now_ns) {
      body["reason"] = queue.paused          ? "the subscription is paused"
                       : !queue.has_member() ? "it is due; no member is there"
                                             : "it is due, and waits for room";
    }
  }
}

}  // namespace

Json explain(const Queue& queue, const Found& found, std::uint64_t now_ns, std::uint64_t served_ns) {
  Json body = Json::object();
  if (found.where == Found::Where::nowhere) return body;
  const Times times{now_ns, served_ns};
  body["delivery"] = found.event.header->delivery;
  body["attempt"] = attempt_of(found.event).info.attempt;
  switch (found.where) {
    case Found::Where::ring:
      explain_entry(body, queue, found, times);
      break;
    case Found::Where::backlog:
      body["state"] = "queued";
      body["where"] = "backlog";
      body["position"] = found.before;
      body["reason"] = why_in_backlog(queue);
      break;
    case Found::Where::retry:
      explain_retry(body, queue, found, times);
      break;
    case Found::Where::dead:
      if (later_state_of(found.event) == LaterState::waiting) {
        body["state"] = "dead";
        body["since_ns"] = found.event.later->dead_unix_ns;
        body["reason"] = reason_of(found.event);
      } else {
        body["state"] = "gone";
        body["reason"] = "purged from the dead letters";
      }
      break;
    case Found::Where::nowhere:
      break;
  }
  return body;
}

// It is nowhere any more: how it may have left. Everything that a subscription matched is in one place, so what no counter
// speaks of did not happen.
Json explain_gone(const Queue& queue) {
  const shm::SubscriptionBlock& block = queue.block;
  std::string others;
  const auto add = [&others](const char* what, std::uint64_t count) {
    if (count != 0) others += std::string(others.empty() ? "" : ", ") + what + " (" + std::to_string(count) + " were)";
  };
  add("dropped", block.dropped_newest + block.dropped_oldest + block.dropped_too_large);
  add("expired", block.expired);
  add("purged", block.purged);
  add("purged from the dead letters", block.dead_removed);
  if (others.empty()) return {{"state", "settled"}, {"reason", "acked"}};
  return {{"state", "gone"}, {"reason", "not there any more: it was acked, or else " + others}};
}

}  // namespace ackring::exchange
