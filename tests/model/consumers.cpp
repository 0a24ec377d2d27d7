// What members do, at random.
#include <algorithm>

#include "tests/model/driver.hpp"

namespace ackring::test::model {

void Driver::attach(Receiver& receiver) {
  SubscriptionOptions options = receiver.model.options;
  options.patterns.clear();
  auto consumer = std::make_unique<Consumer>();
  consumer->number = ++receiver.joined;
  consumer->releases = chance(30);
  consumer->lazy = options.group && chance(30);
  note("member " + std::to_string(consumer->number) + " for " + options.name);
  std::uint64_t entry = 0;
  act([&] {
    const exchange::MemberGrant grant = world_.x->attach_member(world_.x->new_client(), options, false, {});
    entry = grant.entry;
    consumer->revoked_to = entry;  // what is taken back from it lies beyond
    consumer->member = std::make_unique<CoreMember>(*world_.directory, grant);
  });
  receiver.model.join(consumer->number, entry, world_.now_ns);
  receiver.consumers.push_back(std::move(consumer));
}

void Driver::detach(Receiver& receiver, Consumer& consumer) {
  const std::string name = receiver.model.options.name;
  const std::uint64_t ring = consumer.member->ring;
  const std::uint64_t number = consumer.number;
  note("member " + std::to_string(number) + " of " + name + " is gone");
  look(receiver);
  const exchange::Lane& lane = *queue_of(receiver).find_lane(ring);
  receiver.model.move(ids_in(lane, lane.floor_entry, lane.entries));
  std::erase_if(receiver.consumers, [number](const auto& one) { return one->number == number; });
  const std::uint64_t left = epoch_ + 1;
  const bool died = surely([&] {
    const auto leaves = [ring](const exchange::Lane& one) { return one.ring_incarnation == ring; };
    (void)world_.x->detach_members(queue_of(receiver), leaves);
  });
  // A new exchange without a tick takes the time from the clock, others from their last tick.
  receiver.model.leave(number, last_tick_ns_, world_.now_ns, logs_of(name), left);
  look_at_drops();
  if (died) tick(0);
}

void Driver::take(Receiver& receiver, Consumer& consumer, std::uint64_t count) {
  look(receiver);
  Seen seen{};
  std::uint64_t taken = 0;
  for (; taken < count && consumer.member->take(seen); ++taken) tell_taken(receiver, consumer, seen);
  note(receiver.model.options.name + " member " + std::to_string(consumer.number) + " takes " + std::to_string(taken));
  if (receiver.model.options.guarantee == Guarantee::at_most_once && chance(80)) {
    consumer.member->release();
    consumer.views.clear();
  }
}

namespace {

Taken taken_of(std::uint64_t member, const Seen& seen) {
  Taken taken;
  taken.id = {static_cast<std::uint16_t>(std::stoul(seen.publisher)), seen.sequence};
  taken.member = member;
  taken.entry = seen.entry;
  taken.delivery = seen.delivery;
  taken.attempt = seen.attempt;
  taken.causes = seen.causes;
  taken.key = seen.key;
  taken.payload = seen.payload;
  return taken;
}

}  // namespace

void Driver::tell_taken(Receiver& receiver, Consumer& consumer, const Seen& seen) {
  std::vector<Taken> told{taken_of(consumer.number, seen)};
  consumer.views[seen.entry] = {seen.view, seen.payload};
  std::uint64_t now_ns = world_.now_ns;
  if (!lied_ && lie_ != Lie::none && chance(30)) lied_ = deceive(receiver, consumer, told, now_ns);
  for (const Taken& taken : told) receiver.model.take(taken, now_ns);
}

// True if what the model will be told is not so.
bool Driver::deceive(Receiver& receiver, Consumer& consumer, std::vector<Taken>& told, std::uint64_t& now_ns) {
  Taken& taken = told.front();
  switch (lie_) {
    case Lie::none:
      return false;
    case Lie::lost:
      told.clear();
      return true;
    case Lie::duplicated:
      told.push_back(taken);
      ++told.back().entry;
      return true;
    case Lie::wrong_attempt:
      ++taken.attempt;
      return true;
    case Lie::wrong_cause:
      if (taken.causes.empty()) return false;
      taken.causes.back() ^= 1;
      return true;
    case Lie::wrong_payload:
      if (taken.payload.empty()) return false;
      taken.payload.back() ^= 1;
      return true;
    case Lie::early:
      if (taken.attempt == 1 || (taken.causes.back() == member_died && !receiver.model.dispatched())) return false;
      now_ns = 0;
      return true;
    case Lie::reordered:
    case Lie::key_reordered:
      return reorder(receiver, consumer, told);
    case Lie::wrong_member:
      if (receiver.model.owner_of(taken.key) != consumer.number || receiver.consumers.size() < 2) return false;
      taken.member = receiver.consumers[receiver.consumers[0].get() == &consumer ? 1 : 0]->number;
      taken.entry += 1'000'000;
      return true;
    case Lie::unsettled:
      return hide_ack(receiver, consumer, told);
    case Lie::undue:
      if (receiver.model.not_before(taken.id) == 0) return false;
      now_ns = receiver.model.not_before(taken.id) - 1;
      return true;
    case Lie::expired:
      return false;  // told when it comes into the ring
  }
  return false;
}

// Takes on until there is one that may not come before the first, and exchanges the two.
bool Driver::reorder(Receiver& receiver, Consumer& consumer, std::vector<Taken>& told) {
  const bool by_key = lie_ == Lie::key_reordered;
  const std::string key = told.front().key;
  const bool fits = by_key ? receiver.model.options.ordered_by_key && !key.empty() : !receiver.model.dispatched();
  if (!fits || told.front().attempt != 1 || !receiver.model.in_line(told.front().id)) return false;
  Seen next{};
  while (consumer.member->take(next)) {
    told.push_back(taken_of(consumer.number, next));
    consumer.views[next.entry] = {next.view, next.payload};
    if (next.attempt != 1 || (by_key && next.key != key) || !receiver.model.in_line(told.back().id)) continue;
    std::swap(told.front(), told.back());
    std::swap(told.front().entry, told.back().entry);
    return true;
  }
  return false;
}

// Of what is ordered the next one comes when this one is acked, which the model does not know.
bool Driver::hide_ack(Receiver& receiver, Consumer& consumer, std::vector<Taken>& told) {
  if (!receiver.model.options.ordered) return false;
  const Taken taken = told.front();
  receiver.model.take(taken, world_.now_ns);
  told.clear();
  (void)consumer.member->verdict(taken.entry, ring::Verdict::ack);
  act([this] { world_.run(); });
  Seen next{};
  if (!consumer.member->take(next)) return true;
  told.push_back(taken_of(consumer.number, next));
  return true;
}

// A view shows the same bytes until the member lets go of it (F47).
void Driver::check_views(Receiver& receiver, Consumer& consumer) {
  for (auto at = consumer.views.begin(); at != consumer.views.end();) {
    const bool held =
        receiver.model.options.guarantee == Guarantee::at_most_once || receiver.model.holds(consumer.number, at->first);
    if (held && at->second.first != at->second.second) {
      throw Complaint(receiver.model.options.name + ": the bytes of a held view changed");
    }
    at = held ? std::next(at) : consumer.views.erase(at);
  }
}

void Driver::decide(Receiver& receiver, Consumer& consumer) {
  check_views(receiver, consumer);
  Subscription& model = receiver.model;
  CoreMember& member = *consumer.member;
  const std::uint64_t number = consumer.number;
  const std::string who = model.options.name + " member " + std::to_string(number);
  for (std::uint64_t i = 1 + below(6); i > 0; --i) {
    const std::vector<std::uint64_t> entries = model.open_entries(number);
    if (!consumer.past.empty() && chance(5)) {  // of a delivery long settled: means nothing
      const std::uint64_t entry = consumer.past[below(consumer.past.size())];
      if (std::find(entries.begin(), entries.end(), entry) == entries.end()) {
        (void)member.verdict(entry, pick({ring::Verdict::ack, ring::Verdict::nack, ring::Verdict::give_back}));
        note(who + " decides again on " + std::to_string(entry));
      }
    }
    if (entries.empty()) return;
    const std::uint64_t entry = entries[chance(50) ? 0 : below(entries.size())];
    const std::uint64_t choice = below(100);
    bool given = false;
    bool expected = false;
    const char* what = "acks";
    if (choice < 38) {
      given = member.verdict(entry, ring::Verdict::ack);
      expected = model.verdict(number, entry, Word::ack, {}, "");
    } else if (choice < 46) {
      what = "gives back";
      const auto delay_ms = static_cast<std::uint32_t>(pick<std::uint64_t>({0, 0, 1, 30}));
      given = member.give_back(entry, delay_ms);
      expected = model.verdict(number, entry, Word::give_back, delay_ms * ms, "");
      if (given) ++happened_["given back"];
    } else if (choice < 60) {
      what = "nacks";
      const std::string reason = chance(50) ? "" : "no luck with " + std::to_string(entry);
      given = reason.empty() ? member.verdict(entry, ring::Verdict::nack) : member.nack(entry, reason);
      expected = model.verdict(number, entry, Word::nack, {}, reason);
    } else if (choice < 68) {
      what = "nacks with a delay";
      const auto delay_ms = static_cast<std::uint32_t>(pick<std::uint64_t>({0, 1, 30}));
      given = member.nack(entry, delay_ms);
      expected = model.verdict(number, entry, Word::nack, delay_ms * ms, "");
    } else if (choice < 76) {
      what = "rejects";
      const std::string reason = chance(50) ? "" : "no use for " + std::to_string(entry);
      given = reason.empty() ? member.verdict(entry, ring::Verdict::reject) : member.reject(entry, reason);
      expected = model.verdict(number, entry, Word::reject, {}, reason);
    } else if (choice < 86) {
      what = "extends";
      const auto for_ms = static_cast<std::uint32_t>(1 + below(80));
      given = member.extend(entry, for_ms);
      expected = model.extend(number, entry, for_ms * ms);
    } else if (choice < 90) {
      if (consumer.releases) {
        note(who + " releases");
        member.release();
        model.release(number);
      } else {
        note(who + " acks through " + std::to_string(entry));
        member.ack_through(entry);
        model.ack_through(number, entry);
      }
      continue;
    } else {
      continue;  // no verdict: it will time out
    }
    note(who + " " + what + " " + std::to_string(entry));
    if (given != expected) throw Complaint(who + ": a verdict was " + (given ? "taken" : "refused"));
    if (what != std::string_view("extends")) consumer.past.push_back(entry);
  }
}

// True if there was something.
bool Driver::take_and_ack_all(Receiver& receiver) {
  bool any = false;
  look(receiver);
  for (const auto& consumer : receiver.consumers) {
    check_views(receiver, *consumer);
    Seen seen{};
    while (consumer->member->take(seen)) {
      tell_taken(receiver, *consumer, seen);
      any = true;
    }
    if (receiver.model.options.guarantee == Guarantee::at_most_once) {
      consumer->member->release();
      consumer->views.clear();
    }
    for (const std::uint64_t entry : receiver.model.open_entries(consumer->number)) {
      if (consumer->member->verdict(entry, ring::Verdict::ack)) {
        (void)receiver.model.verdict(consumer->number, entry, Word::ack, {}, "");
      }
    }
    if (consumer->releases) {
      consumer->member->release();
      receiver.model.release(consumer->number);
    }
  }
  return any || receiver.model.undecided();
}

}  // namespace ackring::test::model
