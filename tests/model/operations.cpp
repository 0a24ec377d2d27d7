// What clients and operators do, at random.
#include <algorithm>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "tests/model/driver.hpp"

namespace ackring::test::model {

namespace {

const char* const topics[] = {"a", "b", "a.b", "a.c", "b.c", "a.b.c", "a.x.c", "x.y.z", "x.z"};
const char* const keys[] = {"", "k0", "k1", "k2", "k3", "k4"};
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
  options.group = chance(35) || lie_ == Lie::wrong_member;
  options.ordered_by_key = chance(25) || lie_ == Lie::wrong_member || lie_ == Lie::key_reordered;
  options.ordered = chance(25) || lie_ == Lie::unsettled;
  options.guarantee = chance(20) && !options.ordered ? Guarantee::at_most_once : Guarantee::at_least_once;
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
  options.overflow =
      pick({Overflow::automatic, Overflow::block, Overflow::drop_newest, Overflow::drop_oldest, Overflow::dead_letter});
  options.max_dead_bytes = pick<std::uint64_t>({1u << 30, 1u << 30, 1u << 30, 0, 300, 2000});
  any_timing(options);
  return options;
}

void Driver::any_timing(SubscriptionOptions& options) {
  if (chance(25)) {
    for (std::uint64_t i = 1 + below(3); i > 0; --i) {
      options.retry_delays.push_back(pick<std::uint64_t>({deaths_ ? 1u : 0u, 1, 7, 40}) * std::chrono::milliseconds(1));
    }
  }
  if (!timed_) return;
  if (chance(30)) options.ttl = pick<std::uint64_t>({1, 20, 60, 200}) * std::chrono::milliseconds(1);
  options.dead_letter_expired = chance(40);
}

Times Driver::any_times() {
  Times times;
  times.published_ns = world_.now_ns;
  if (!timed_) return times;
  if (chance(20)) times.expires_ns = world_.now_ns + pick<std::uint64_t>({0, 1, 10, 40, 150}) * ms;
  if (chance(20)) times.not_before_ns = world_.now_ns + pick<std::uint64_t>({1, 5, 20, 60}) * ms + below(1000);
  return times;
}

// A program that numbers its events itself leaves some out, and after a look into its own books repeats some.
void Driver::choose_number(Sender& sender) {
  if (!sender.numbers || !chance(20)) return;
  const std::uint64_t last = sender.publisher->sequence();
  sender.publisher->number_from(chance(50) ? last + below(5) : last - std::min(last, 1 + below(6)));
}

void Driver::step() {
  const std::uint64_t choice = below(100);
  if (choice < 25) return publish();
  if (choice < 38) return let_time_pass();
  if (choice < 40) {
    act([this] { revive(); });
    return tick(0);
  }
  if (choice < 43) return open_or_close(*senders_[below(senders_.size())]);
  if (choice < 46) return change_subscription();
  if (receivers_.empty()) return;
  Receiver& receiver = *receivers_[below(receivers_.size())];
  auto& consumers = receiver.consumers;
  if (choice < 50) return operate(receiver);
  if (receiver.model.paused && chance(10)) return pause_or_resume(receiver);
  if (consumers.empty() || (receiver.model.options.group && consumers.size() < 4 && chance(15))) {
    return attach(receiver);
  }
  Consumer& consumer = *consumers[below(consumers.size())];
  if (choice < 53) return detach(receiver, consumer);
  if (consumer.lazy && chance(90)) return;
  if (choice < 76) return take(receiver, consumer, 1 + below(8));
  decide(receiver, consumer);
}

void Driver::let_time_pass() {
  const std::uint64_t choice = below(100);
  if (choice < 30) return tick(pick<std::uint64_t>({0, 1, 5, 20, 21, 50, 300}) * ms + below(1000));
  if (choice < 70) {
    for (std::uint64_t i = 2 + below(8); i > 0; --i) tick(pick<std::uint64_t>({2, 5, 10}) * ms);
    return;
  }
  std::optional<std::uint64_t> next;  // up to the moment at which something happens, and then not a nanosecond more
  for (const auto& receiver : receivers_) {
    const auto moment = receiver->model.next_moment(world_.now_ns);
    if (moment && (!next || *moment < *next)) next = moment;
  }
  if (!next) return;
  if (*next - world_.now_ns > 1) tick(*next - world_.now_ns - 1);
  tick(1);
}

void Driver::publish() {
  Sender& sender = *senders_[below(senders_.size())];
  if (!sender.publisher) return;
  std::vector<Pending> added;
  sender.publisher->published_ns = world_.now_ns;
  choose_number(sender);
  for (std::uint64_t i = 1 + below(8); i > 0; --i) {
    const std::string topic = topics[below(std::size(topics))];
    // Sizes near a quarter of a ring are left out: whether they are too large is for other tests.
    const std::size_t bytes =
        pick<std::size_t>({0, below(40), below(300), below(900), chance(20) ? 1'100 + below(700) : 1});
    const std::uint64_t sequence = sender.publisher->sequence() + 1;
    const std::string key = keys[below(std::size(keys))];
    const Times times = any_times();
    const shm::TimingInfo timing{times.expires_ns, times.not_before_ns};
    if (!sender.publisher->add(topic, payload_of({sender.slot, sequence}, bytes), key, timing)) break;
    added.push_back({sequence, topic, key, bytes, times});
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
    act([&] { world_.x->create_subscription(receiver->model.options, false); });
    receivers_.push_back(std::move(receiver));
    if (chance(80)) attach(*receivers_.back());
    return;
  }
  const std::size_t index = below(receivers_.size());
  Receiver& receiver = *receivers_[index];
  const std::string name = receiver.model.options.name;
  if (chance(70) && !receiver.ending) {
    SubscriptionOptions options = receiver.model.options;
    options.patterns = any_patterns();
    note("new patterns for " + name);
    act([&] { world_.x->update_subscription(options, {}); });
    receiver.model.options.patterns = options.patterns;
    return;
  }
  if (lie_ != Lie::none) return;  // what is gone can't be found out
  if (receiver.consumers.empty() && !receiver.ending && chance(70)) {
    return end(receiver, chance(50));
  }
  note("remove " + name);
  act([&] { world_.x->remove_subscription(*world_.x->find_queue(name)); });
  receivers_.erase(receivers_.begin() + static_cast<std::ptrdiff_t>(index));
}

bool Driver::all_routed() const {
  return std::all_of(senders_.begin(), senders_.end(), [](const auto& sender) { return sender->pending.empty(); });
}

// Everybody does what they should: in the end nothing is left.
void Driver::drain() {
  note("from here on, everything is taken and acked");
  for (const auto& receiver : receivers_) {  // what waits for room among dead letters gets it
    SubscriptionOptions& options = receiver->model.options;
    options.max_dead_bytes = 1u << 30;
    act([&] { world_.x->update_subscription(options, {"max_dead_bytes"}); });
    if (!receiver->model.paused) continue;
    act([&] { world_.x->resume(queue_of(*receiver)); });
    receiver->model.resume();
  }
  int idle_rounds = 0;  // what was taken back from one member needs a few to come to another
  for (int round = 0; idle_rounds < 5 && round < 300; ++round) {
    tick(10 * ms);
    bool idle = all_routed();
    for (const auto& receiver : receivers_) {
      if (receiver->consumers.empty()) attach(*receiver);
      if (take_and_ack_all(*receiver)) idle = false;
    }
    idle_rounds = idle ? idle_rounds + 1 : 0;
  }
  tick(0);
  if (!all_routed()) throw Complaint("an event is stuck in the ring of its publisher");
  for (const auto& receiver : receivers_) receiver->model.drained();
  drained_ = true;
  check(true);
  end_all();
}

// What ends goes with its last member, if no dead letter is left.
void Driver::end_all() {
  purging_ = true;  // all of it was looked at
  std::vector<std::string> ending;
  for (const auto& receiver : receivers_) {
    if (receiver->ending) ending.push_back(receiver->model.options.name);
  }
  for (const std::string& name : ending) {
    exchange::Queue& queue = *world_.x->find_queue(name);
    act([&] { (void)world_.x->purge_dead(queue, {}); });
    act([&] { (void)world_.x->detach_members(queue, [](const exchange::Lane&) { return true; }); });
    world_.x->tick(world_.now_ns);
    if (world_.x->find_queue(name) != nullptr) throw Complaint(name + " is empty, but does not end");
  }
}

}  // namespace ackring::test::model
