#include "lib/exchange/counter_watch.hpp"

#include <algorithm>
#include <utility>

namespace ackring::exchange {

namespace {

struct Told {
  Notice::Level level;
  const char* event;
  const char* reason;
  const char* text;
};

// In the order of CounterWatch::Reason.
constexpr std::array told{
    Told{Notice::Level::warning, "subscription.dropped", "drop-newest", "events were dropped: its backlog was full"},
    Told{Notice::Level::warning, "subscription.dropped", "drop-oldest",
         "events were dropped, the oldest ones first: its backlog was full"},
    Told{Notice::Level::warning, "subscription.dropped", "too-large",
         "events were dropped: larger than a quarter of its member's ring"},
    Told{Notice::Level::info, "subscription.expired", "expired", "events expired: nobody took them in time"},
    Told{Notice::Level::warning, "subscription.dead_lettered", "dead-lettered", "events became dead letters"},
    Told{Notice::Level::error, "subscription.dead_letters_full", "dead-letters-full",
         "times there was no room for a dead letter: deliveries wait until some are requeued or purged"},
};

// Would one more event like those that wait there be too much for it, so that publishers wait?
bool is_blocked(const Queue& queue) noexcept {
  const shm::SubscriptionBlock& block = queue.block;
  if (queue.overflow() != Overflow::block || block.backlog_events == 0) return false;
  return block.backlog_events + block.delayed_events >= queue.options.max_events ||
         block.backlog_bytes + block.delayed_bytes + block.backlog_bytes / block.backlog_events >
             queue.options.max_bytes;
}

}  // namespace

CounterWatch::CounterWatch(Exchange& lead, NoticeSink sink) : lead_(lead), sink_(std::move(sink)) {
  publishers_.resize(lead.publishers().size());
  for (const auto& ingress : lead.publishers()) {
    if (!ingress) continue;
    publishers_[ingress->slot] = {ingress->incarnation, {ingress->block.discarded, 0}, {ingress->block.denied, 0}};
  }
  subscriptions_.resize(lead.queues().size());
  for (const auto& queue : lead.queues()) {
    if (!queue) continue;
    Subscription& seen = subscriptions_[queue->index];
    seen.id = queue->id;
    const auto counts = counts_of(*queue);
    for (std::size_t i = 0; i < reasons; ++i) seen.tallies[i].told = counts[i];
  }
}

std::array<std::uint64_t, CounterWatch::reasons> CounterWatch::counts_of(const Queue& queue) noexcept {
  const shm::SubscriptionBlock& block = queue.block;
  return {block.dropped_newest, block.dropped_oldest, block.dropped_too_large,
          block.expired,        block.dead_lettered,  queue.dead_held};
}

void CounterWatch::tick(std::uint64_t now_ns) {
  if (now_ns < next_round_ns_) return;
  const ShardHold held(lead_.peers());
  for (std::size_t looks = 0; at_ < places() && looks < looks_per_tick; ++at_)
    looks += look(at_, now_ns, false) ? 1 : 0;
  if (at_ < places()) return;  // the next tick goes on
  at_ = 0;
  next_round_ns_ = now_ns + round_ns;
}

void CounterWatch::finish(std::uint64_t now_ns) {
  const ShardHold held(lead_.peers());
  for (std::size_t place = 0; place < places(); ++place) (void)look(place, now_ns, true);
}

// False: nobody has this place.
bool CounterWatch::look(std::size_t place, std::uint64_t now_ns, bool all) {
  if (place < lead_.publishers().size()) {
    const auto& ingress = lead_.publishers()[place];
    if (ingress) look(*ingress, now_ns, all);
    return ingress != nullptr;
  }
  const auto& queue = lead_.queues()[place - lead_.publishers().size()];
  if (queue && queue->role == Role::ordinary)
    look(*queue, now_ns, all);  // X forgets what it keeps itself as it is asked
  return queue != nullptr;
}

// How many of them have not been told yet, if it is time to.
std::uint64_t CounterWatch::take(Tally& tally, std::uint64_t count, std::uint64_t now_ns, bool all) noexcept {
  if (count <= tally.told || (now_ns < tally.next_ns && !all)) return 0;
  tally.next_ns = now_ns + quiet_ns;
  return count - std::exchange(tally.told, count);
}

void CounterWatch::look(const Queue& queue, std::uint64_t now_ns, bool all) {
  if (queue.index >= subscriptions_.size()) subscriptions_.resize(queue.index + 1);
  Subscription& seen = subscriptions_[queue.index];
  if (seen.id != queue.id) seen = {.id = queue.id, .tallies = {}};  // one that was made since: it began with zeros
  const auto counts = counts_of(queue);
  for (std::size_t i = 0; i < reasons; ++i) {
    const std::uint64_t events = take(seen.tallies[i], counts[i], now_ns, all);
    if (events != 0) tell(queue, static_cast<Reason>(i), events, counts[i]);
  }
  look_whether_blocked(queue, seen, now_ns);
}

void CounterWatch::look_whether_blocked(const Queue& queue, Subscription& seen, std::uint64_t now_ns) {
  const std::string subscription = "subscription " + queue.options.name;
  if (is_blocked(queue)) {
    if (now_ns < seen.blocked_next_ns) return;
    seen.blocked = true;
    seen.blocked_next_ns = now_ns + quiet_ns;
    sink_({Notice::Level::warning,
           "subscription.blocked",
           subscription + ": its backlog is full: its publishers wait",
           {{"subscription", queue.options.name},
            {"waiting_events", queue.block.backlog_events},
            {"waiting_bytes", queue.block.backlog_bytes},
            {"members", std::uint64_t{queue.has_member() ? 1u : 0u}}}});
  } else if (seen.blocked && now_ns >= seen.blocked_next_ns) {  // a backlog that is about full is so now and then
    seen.blocked = false;
    sink_({Notice::Level::info,
           "subscription.unblocked",
           subscription + ": its backlog has room again",
           {{"subscription", queue.options.name}}});
  }
}

void CounterWatch::look(const Ingress& ingress, std::uint64_t now_ns, bool all) {
  Publisher& seen = publishers_[ingress.slot];
  const shm::IngressBlock& block = ingress.block;
  if (seen.incarnation != ingress.incarnation) {
    seen.incarnation = ingress.incarnation;  // a named one goes on counting, an anonymous one begins anew
    seen.discarded.told = std::min(seen.discarded.told, block.discarded);
    seen.denied.told = std::min(seen.denied.told, block.denied);
  }
  if (const std::uint64_t events = take(seen.discarded, block.discarded, now_ns, all); events != 0) {
    tell(ingress, "publisher.discarded", "events were discarded: they are not what a publisher writes", events,
         block.discarded);
  }
  if (const std::uint64_t events = take(seen.denied, block.denied, now_ns, all); events != 0) {
    tell(ingress, "publisher.denied", "events were denied: the access rules keep their topics from it", events,
         block.denied);
  }
}

void CounterWatch::tell(const Queue& queue, Reason reason, std::uint64_t events, std::uint64_t total) {
  const Told& what = told[reason];
  sink_({what.level,
         what.event,
         "subscription " + queue.options.name + ": " + std::to_string(events) + " " + what.text,
         {{"subscription", queue.options.name},
          {"reason", std::string(what.reason)},
          {"events", events},
          {"total", total}}});
}

void CounterWatch::tell(const Ingress& ingress, const char* event, std::string_view why, std::uint64_t events,
                        std::uint64_t total) {
  sink_({Notice::Level::warning,
         event,
         "publisher " + ingress.name + ": " + std::to_string(events) + " " + std::string(why),
         {{"publisher", ingress.name},
          {"slot", std::uint64_t{ingress.slot}},
          {"uid", std::uint64_t{ingress.owner.uid}},
          {"events", events},
          {"total", total}}});
}

}  // namespace ackring::exchange
