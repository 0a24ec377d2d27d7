// What clients and operators do, at random.
#include <algorithm>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "tests/model/driver.hpp"

namespace ackring::test::model {

namespace {

constexpr std::uint64_t ms = 1'000'000;

const char* const topics[] = {"a", "b", "a.b", "a.c", "b.c", "a.b.c", "a.x.c", "x.y.z", "x.z"};
const char* const patterns[] = {"#", "#", "a.#", "*.b", "a.*", "#.c", "*", "a.*.c", "x.#.z", "b"};

std::string describe(const SubscriptionOptions& options) {
  std::string text = options.name;
  for (const std::string& pattern : options.patterns) text += " " + pattern;
  return text + " " + control::options_to_json(options).dump();
}

}  // namespace

std::vector<std::string> Driver::any_patterns() {
  std::vector<std::string> chosen{patterns[below(std::size(patterns))]};
  if (chance(30)) chosen.emplace_back(patterns[below(std::size(patterns))]);
  if (chosen.size() == 2 && chosen[0] == chosen[1]) chosen.pop_back();
  return chosen;
}

SubscriptionOptions Driver::any_options() {
  const auto any_ms = [this](std::initializer_list<std::uint64_t> from) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(pick(from)));
  };
  SubscriptionOptions options;
  options.name = "s" + std::to_string(names_++);
  options.patterns = any_patterns();
  options.guarantee = chance(20) ? Guarantee::at_most_once : Guarantee::at_least_once;
  options.ack_timeout = any_ms({1, 5, 20, 60, 200});
  options.max_deliveries = pick<std::uint32_t>({1, 2, 3, 5, 30});
  // Where the exchange dies in a tick, nothing may time out and go back in that same tick: nobody could tell.
  options.backoff_initial = deaths_ ? any_ms({1, 10, 50}) : any_ms({0, 1, 10, 50});
  options.backoff_max = options.backoff_initial + any_ms({0, 10, 100});
  options.backoff_multiplier = pick({1.0, 1.5, 2.0, 10.0});
  options.jitter = deaths_ ? pick({0.0, 0.1, 0.5}) : pick({0.0, 0.1, 0.5, 1.0});
  options.max_in_flight = pick<std::uint32_t>({1, 2, 4, 16, 64});
  options.ring_bytes = pick<std::size_t>({4096, 4096, 8192, 16384});
  options.max_events = pick<std::uint64_t>({10'000'000, 10'000'000, 1, 3, 10});
  options.overflow = pick({Overflow::automatic, Overflow::block, Overflow::drop_newest, Overflow::drop_oldest});
  options.max_dead_bytes = pick<std::uint64_t>({1u << 30, 1u << 30, 1u << 30, 0, 300, 2000});
  return options;
}

void Driver::step() {
  const std::uint64_t choice = below(100);
  if (choice < 25) return publish();
  if (choice < 30) return tick(pick<std::uint64_t>({0, 1, 5, 20, 21, 50, 300}) * ms + below(1000));
  if (choice < 38) {
    for (std::uint64_t i = 2 + below(8); i > 0; --i) tick(pick<std::uint64_t>({2, 5, 10}) * ms);
    return;
  }
  if (choice < 40) {
    act([this] { revive(); });
    restart_models();
    return tick(0);
  }
  if (choice < 43) return open_or_close(*senders_[below(senders_.size())]);
  if (choice < 46) return change_subscription();
  if (receivers_.empty()) return;
  Receiver& receiver = *receivers_[below(receivers_.size())];
  if (choice < 50) return operate(receiver);
  if (!receiver.member) return attach(receiver);
  if (choice < 53) return detach(receiver);
  if (choice < 76) return take(receiver, 1 + below(8));
  decide(receiver);
}

void Driver::publish() {
  Sender& sender = *senders_[below(senders_.size())];
  if (!sender.publisher) return;
  std::vector<Pending> added;
  for (std::uint64_t i = 1 + below(8); i > 0; --i) {
    const std::string topic = topics[below(std::size(topics))];
    // Sizes near a quarter of a ring are left out: whether they are too large is for other tests.
    const std::size_t bytes =
        pick<std::size_t>({0, below(40), below(300), below(900), chance(20) ? 1'100 + below(700) : 1});
    const std::uint64_t sequence = sender.publisher->sequence() + 1;
    if (!sender.publisher->add(topic, payload_of({sender.slot, sequence}, bytes))) break;
    added.push_back({sequence, topic, bytes});
  }
  if (chance(3)) {  // dies before it commits
    note(sender.name + " writes " + std::to_string(added.size()) + " events, and is gone");
    return open_or_close(sender);
  }
  sender.publisher->commit();
  note(sender.name + " publishes " + std::to_string(added.size()));
  sender.pending.insert(sender.pending.end(), added.begin(), added.end());
  if (chance(60)) run_exchange();
}

void Driver::open_or_close(Sender& sender) {
  if (sender.publisher) {
    note(sender.name + " closes");
    sender.publisher.reset();
    act([&] { world_.x->detach_publisher(*world_.x->publishers()[sender.slot]); });
    return;
  }
  const std::uint64_t ring_bytes = pick<std::uint64_t>({4096, 8192, 65536});
  act([&] {
    try {
      const auto grant = world_.x->attach_publisher(world_.client, sender.name, ring_bytes);
      sender.publisher = std::make_unique<CorePublisher>(*world_.directory, grant);
      sender.slot = grant.slot;
      note(sender.name + " opens");
    } catch (const Error&) {  // its old ring can't be drained while a subscription blocks
      note(sender.name + " is refused");
      if (sender.pending.empty()) throw Complaint("publisher " + sender.name + " is refused");
    }
  });
}

void Driver::change_subscription() {
  if (receivers_.size() < 3 && (receivers_.empty() || chance(60))) {
    auto receiver = std::make_unique<Receiver>(any_options());
    note("subscription " + describe(receiver->model.options));
    receiver->releases = chance(30);
    act([&] { world_.x->create_subscription(receiver->model.options, false); });
    receivers_.push_back(std::move(receiver));
    if (chance(80)) attach(*receivers_.back());
    return;
  }
  const std::size_t index = below(receivers_.size());
  Receiver& receiver = *receivers_[index];
  const std::string name = receiver.model.options.name;
  if (chance(70)) {
    SubscriptionOptions options = receiver.model.options;
    options.patterns = any_patterns();
    note("new patterns for " + name);
    act([&] { world_.x->update_subscription(options, {}); });
    receiver.model.options.patterns = options.patterns;
    return;
  }
  note("remove " + name);
  act([&] { world_.x->remove_subscription(*world_.x->find_queue(name)); });
  receivers_.erase(receivers_.begin() + static_cast<std::ptrdiff_t>(index));
}

void Driver::attach(Receiver& receiver) {
  note("a member for " + receiver.model.options.name);
  SubscriptionOptions options = receiver.model.options;
  options.patterns.clear();
  act([&] {
    receiver.member = std::make_unique<CoreMember>(*world_.directory,
                                                   world_.x->attach_member(world_.x->new_client(), options, false, {}));
  });
  receiver.model.join();
}

void Driver::detach(Receiver& receiver) {
  const std::string name = receiver.model.options.name;
  note("the member of " + name + " is gone");
  receiver.member.reset();
  receiver.views.clear();
  receiver.past.clear();
  const std::uint64_t left = epoch_ + 1;
  const auto leave = [&] {
    (void)world_.x->detach_members(*world_.x->find_queue(name), [](const exchange::Lane&) { return true; });
  };
  const bool died = exchange(true, leave);
  if (died) {
    exchange(false, leave);
    restart_models();
  }
  // A new exchange without a tick takes the time from the clock, others from their last tick.
  receiver.model.leave(last_tick_ns_, world_.now_ns, logs_of(name), left);
  look_at_drops();
  if (died) tick(0);
}

void Driver::take(Receiver& receiver, std::uint64_t count) {
  Seen seen{};
  std::uint64_t taken = 0;
  for (; taken < count && receiver.member->take(seen); ++taken) tell_taken(receiver, seen);
  note(receiver.model.options.name + " takes " + std::to_string(taken));
  if (receiver.model.options.guarantee == Guarantee::at_most_once && chance(80)) {
    receiver.member->release();
    receiver.views.clear();
  }
}

void Driver::tell_taken(Receiver& receiver, Seen seen) {
  Taken taken;
  taken.id = {static_cast<std::uint16_t>(std::stoul(seen.publisher)), seen.sequence};
  taken.entry = seen.entry;
  taken.delivery = seen.delivery;
  taken.attempt = seen.attempt;
  taken.causes = seen.causes;
  taken.payload = seen.payload;
  receiver.views[seen.entry] = {seen.view, seen.payload};
  std::uint64_t now_ns = world_.now_ns;
  if (!lied_ && lie_ != Lie::none && chance(30)) {
    lied_ = true;
    if (lie_ == Lie::lost) return;
    if (lie_ == Lie::duplicated) {
      receiver.model.take(taken, now_ns);
      ++taken.entry;
    } else if (lie_ == Lie::wrong_attempt) {
      ++taken.attempt;
    } else if (lie_ == Lie::wrong_cause && !taken.causes.empty()) {
      taken.causes.back() ^= 1;
    } else if (lie_ == Lie::wrong_payload && !taken.payload.empty()) {
      taken.payload.back() ^= 1;
    } else if (lie_ == Lie::early && taken.attempt > 1 && taken.causes.back() != member_died) {
      now_ns = 0;
    } else if (lie_ == Lie::reordered) {
      Seen next{};
      if (receiver.member->take(next)) {
        tell_taken(receiver, next);
      } else {
        lied_ = false;
      }
    } else {
      lied_ = false;
    }
  }
  receiver.model.take(taken, now_ns);
}

// A view shows the same bytes until the member lets go of it (F47).
void Driver::check_views(Receiver& receiver) {
  for (auto at = receiver.views.begin(); at != receiver.views.end();) {
    const bool held = receiver.model.options.guarantee == Guarantee::at_most_once || receiver.model.holds(at->first);
    if (held && at->second.first != at->second.second) {
      throw Complaint(receiver.model.options.name + ": the bytes of a held view changed");
    }
    at = held ? std::next(at) : receiver.views.erase(at);
  }
}

void Driver::decide(Receiver& receiver) {
  check_views(receiver);
  Subscription& model = receiver.model;
  CoreMember& member = *receiver.member;
  for (std::uint64_t i = 1 + below(6); i > 0; --i) {
    const std::vector<std::uint64_t> entries = model.open_entries();
    if (!receiver.past.empty() && chance(5)) {  // of a delivery long settled: means nothing
      const std::uint64_t entry = receiver.past[below(receiver.past.size())];
      if (std::find(entries.begin(), entries.end(), entry) == entries.end()) {
        (void)member.verdict(entry, pick({ring::Verdict::ack, ring::Verdict::nack}));
        note(model.options.name + " decides again on " + std::to_string(entry));
      }
    }
    if (entries.empty()) return;
    const std::uint64_t entry = entries[chance(50) ? 0 : below(entries.size())];
    const std::uint64_t choice = below(100);
    bool given = false;
    bool expected = false;
    const char* what = "acks";
    if (choice < 45) {
      given = member.verdict(entry, ring::Verdict::ack);
      expected = model.verdict(entry, Word::ack, {}, "");
    } else if (choice < 60) {
      what = "nacks";
      given = member.verdict(entry, ring::Verdict::nack);
      expected = model.verdict(entry, Word::nack, {}, "");
    } else if (choice < 68) {
      what = "nacks with a delay";
      const auto delay_ms = static_cast<std::uint32_t>(pick<std::uint64_t>({0, 1, 30}));
      given = member.nack(entry, delay_ms);
      expected = model.verdict(entry, Word::nack, delay_ms * ms, "");
    } else if (choice < 76) {
      what = "rejects";
      const std::string reason = chance(50) ? "" : "no use for " + std::to_string(entry);
      given = reason.empty() ? member.verdict(entry, ring::Verdict::reject) : member.reject(entry, reason);
      expected = model.verdict(entry, Word::reject, {}, reason);
    } else if (choice < 86) {
      what = "extends";
      const auto for_ms = static_cast<std::uint32_t>(1 + below(80));
      given = member.extend(entry, for_ms);
      expected = model.extend(entry, for_ms * ms);
    } else if (choice < 90) {
      if (receiver.releases) {
        note(model.options.name + " releases");
        member.release();
        model.release();
      } else {
        note(model.options.name + " acks through " + std::to_string(entry));
        member.ack_through(entry);
        model.ack_through(entry);
      }
      continue;
    } else {
      continue;  // no verdict: it will time out
    }
    note(model.options.name + " " + what + " " + std::to_string(entry));
    if (given != expected) throw Complaint(model.options.name + ": a verdict was " + (given ? "taken" : "refused"));
    if (what != std::string_view("extends")) receiver.past.push_back(entry);
  }
}

void Driver::operate(Receiver& receiver) {
  const std::string name = receiver.model.options.name;
  exchange::Queue& queue = *world_.x->find_queue(name);
  const Logs before = logs_of(name);
  exchange::DeadLetterFilter filter;
  std::vector<Id> ids;
  if (!before.dead.empty() && chance(60)) {
    const Kept& chosen = std::next(before.dead.begin(), static_cast<std::ptrdiff_t>(below(before.dead.size())))->second;
    if (chance(50)) {
      filter.delivery = chosen.delivery;
    } else {
      filter.publisher = chosen.id.publisher;
      filter.sequence = chosen.id.sequence;
    }
    ids.push_back(chosen.id);
  } else {
    filter.reason = pick<const char*>({"", "rejected", "max_deliveries", "reject"});
    for (const auto& [id, kept] : before.dead) {
      const bool meant =
          filter.reason.empty() || kept.reason == filter.reason || kept.reason.starts_with(filter.reason + ":");
      if (meant) ids.push_back(id);
    }
  }
  const bool requeue = chance(60);
  note((requeue ? "requeue of " : "purge of ") + name + ": " + std::to_string(ids.size()));
  std::uint64_t done = 0;
  act([&] {
    done =
        requeue ? world_.x->requeue_dead(queue, filter, world_.now_ns).done : world_.x->purge_dead(queue, filter).done;
  });
  if (done != ids.size()) throw Complaint(name + ": " + std::to_string(done) + " dead letters went");
  if (requeue) {
    receiver.model.requeue(ids, world_.now_ns, logs_of(name));
  } else {
    receiver.model.purge(ids, logs_of(name));
  }
}

bool Driver::all_routed() const {
  return std::all_of(senders_.begin(), senders_.end(), [](const auto& sender) { return sender->pending.empty(); });
}

// Everybody does what they should: in the end nothing is left.
void Driver::drain() {
  note("from here on, everything is taken and acked");
  bool idle = false;
  for (const auto& receiver : receivers_) {  // what waits for room among dead letters gets it
    SubscriptionOptions& options = receiver->model.options;
    options.max_dead_bytes = 1u << 30;
    act([&] { world_.x->update_subscription(options, {"max_dead_bytes"}); });
  }
  bool was_idle = false;
  for (int round = 0; !(idle && was_idle) && round < 300; ++round) {
    tick(10 * ms);
    was_idle = idle;
    idle = all_routed();
    for (const auto& receiver : receivers_) {
      if (!receiver->member) attach(*receiver);
      check_views(*receiver);
      Seen seen{};
      while (receiver->member->take(seen)) {
        tell_taken(*receiver, seen);
        idle = false;
      }
      if (receiver->model.options.guarantee == Guarantee::at_most_once) {
        receiver->member->release();
        receiver->views.clear();
      }
      for (const std::uint64_t entry : receiver->model.open_entries()) {
        if (receiver->member->verdict(entry, ring::Verdict::ack))
          (void)receiver->model.verdict(entry, Word::ack, {}, "");
      }
      if (receiver->releases) {
        receiver->member->release();
        receiver->model.release();
      }
      if (receiver->model.undecided()) idle = false;
    }
  }
  tick(0);
  if (!all_routed()) throw Complaint("an event is stuck in the ring of its publisher");
  for (const auto& receiver : receivers_) receiver->model.drained();
  drained_ = true;
  check(true);
}

}  // namespace ackring::test::model
