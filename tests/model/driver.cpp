#include "tests/model/driver.hpp"

namespace ackring::test::model {

namespace {

constexpr std::uint64_t longest_gap_ns = 20'000'000;

}  // namespace

void Driver::Hook::before_store(const void* /*where*/, std::size_t /*bytes*/) {
  if (stores_left != ~std::uint64_t{0} && stores_left-- == 0) {
    stores_left = ~std::uint64_t{0};
    throw Death{};
  }
}

Driver::Driver(std::uint64_t seed, bool thorough, Lie lie) : random_(seed), thorough_(thorough), lie_(lie) {
  hook_.clock = &world_.now_ns;
  hook_.virtual_time = true;
  deaths_ = chance(30);
  timed_ = chance(50) || lie == Lie::undue || lie == Lie::expired;
}

Driver::~Driver() { shm::Environment::hook = nullptr; }

void Driver::note(std::string text) {
  notes_.push_back(std::to_string(world_.now_ns / 1000) + " us: " + std::move(text));
}

// Does one thing of the exchange's. True if it died in it, in which case there is a new one.
bool Driver::exchange(bool may_die, const std::function<void()>& work) {
  ++epoch_;
  if (may_die && deaths_ && chance(10)) hook_.stores_left = below(pick<std::uint64_t>({5, 50, 400}));
  shm::Environment::hook = &hook_;
  bool died = false;
  try {
    work();
  } catch (const Death&) {
    died = true;
  }
  hook_.stores_left = ~std::uint64_t{0};
  if (died) ++happened_["deaths"];
  if (died) revive();
  shm::Environment::hook = nullptr;
  look_at_routing();
  look_at_revoked();
  look_at_rings();
  return died;
}

// Does one thing of the exchange's, and once more if it died in it. True if it did.
bool Driver::surely(const std::function<void()>& work) {
  const bool died = exchange(true, work);
  if (died) {
    exchange(false, work);
  }
  return died;
}

exchange::Queue& Driver::queue_of(const Receiver& receiver) {
  return *world_.x->find_queue(receiver.model.options.name);
}

void Driver::revive() {
  note("the exchange died");
  first_tick_ = true;
  ++happened_["restarts"];
  while (true) {
    try {
      world_.x.reset();
      if (deaths_ && chance(30)) hook_.stores_left = below(60);
      shm::Environment::hook = &hook_;
      world_.x = std::make_unique<exchange::Exchange>(*world_.directory);
      world_.x->set_full_ring_grace(0);
      test::check_found_sound(*world_.x);
      break;
    } catch (const Death&) {
      note("… and again while it recovered");
      ++happened_["restarts in recovery"];
    }
  }
  hook_.stores_left = ~std::uint64_t{0};
  world_.run();
}

void Driver::act(const std::function<void()>& work) {
  exchange(false, work);
  look_at_drops();
}

void Driver::run_exchange() {
  const bool died = exchange(true, [this] { world_.run(); });
  look_at_drops();
  if (died) tick(0);
}

void Driver::tick(std::uint64_t ns) {
  for (const auto& receiver : receivers_) look(*receiver);
  world_.now_ns += ns;
  const std::uint64_t ticked = epoch_ + 1;
  const std::uint64_t served_ns =
      served_ns_ + (first_tick_ ? 0 : std::min(world_.now_ns - last_tick_ns_, longest_gap_ns));
  first_tick_ = false;
  const bool again = exchange(true, [this] { world_.x->tick(world_.now_ns); });
  if (again) {
    shm::Environment::hook = &hook_;
    world_.x->tick(world_.now_ns);
    world_.run();
    shm::Environment::hook = nullptr;
    first_tick_ = false;
    look_at_routing();
    look_at_revoked();  // how long a member has taken nothing is known over restarts
    look_at_rings();
  }
  const std::uint64_t told_ns = world_.x->page().served_ns.load(std::memory_order_relaxed);
  // One that died in its tick may have died before it told.
  if (told_ns != served_ns && !(again && told_ns == served_ns_)) {
    throw Complaint("the clock of what is taken went wrong: " + std::to_string(told_ns) + " instead of " +
                    std::to_string(served_ns));
  }
  served_ns_ = told_ns;
  look_at_ends();
  for (const auto& receiver : receivers_) {
    receiver->model.tick(world_.now_ns, served_ns_, logs_of(receiver->model.options.name), ticked, again);
  }
  last_tick_ns_ = world_.now_ns;
  look_at_drops();
  if (!again) {
    const bool died = exchange(true, [this] { world_.run(); });
    look_at_drops();
    if (died) return tick(0);
  }
  ++ticks_;
  check();
}

// What the exchange has routed since the last look went to whoever matches now.
void Driver::look_at_routing() {
  for (const auto& sender : senders_) {
    if (sender->pending.empty() || !world_.x->publishers()[sender->slot]) continue;
    const auto& ingress = world_.x->publishers()[sender->slot];
    for (; sender->read != shm::events_of(ingress->block); ++sender->read) {
      const Pending event = sender->pending.front();
      sender->pending.pop_front();
      if (event.sequence <= sender->sequence) {
        ++sender->duplicates;
        ++happened_["duplicates"];
        continue;
      }
      sender->sequence = event.sequence;
      bool matched = false;
      for (const auto& receiver : receivers_) {
        if (!receiver->model.matches(event.topic)) continue;
        receiver->model.route({sender->slot, event.sequence}, event.bytes, event.key, event.times, epoch_);
        matched = true;
      }
      ++(matched ? sender->routed : sender->unroutable);
    }
  }
}

void Driver::look_at_drops() {
  if (!all_routed()) ++happened_["blocked"];
  for (const auto& receiver : receivers_) {
    const exchange::Queue* queue = world_.x->find_queue(receiver->model.options.name);
    if (queue == nullptr) continue;
    const shm::SubscriptionBlock& block = queue->block;
    receiver->model.losses(block.dropped_newest, block.dropped_oldest, block.expired, world_.now_ns);
    if (receiver->model.may_bury() && !purging_) look(*receiver);
    if (queue->dead_held != 0) ++happened_["held"];
  }
}

// What a member has yet to take goes to others when it is taken back; that comes out of turn.
void Driver::look_at_revoked() {
  for (const auto& receiver : receivers_) {
    exchange::Queue* queue = world_.x->find_queue(receiver->model.options.name);
    if (queue == nullptr) continue;
    for (const auto& consumer : receiver->consumers) {
      const exchange::Lane* lane = queue->find_lane(consumer->member->ring);
      if (lane == nullptr || lane->revoked_to == consumer->revoked_to) continue;
      consumer->revoked_to = lane->revoked_to;
      if (!queue->paused && !purging_) {
        receiver->model.take_back(consumer->number, world_.now_ns);
        ++happened_["idle"];
      }
      receiver->model.move(ids_in(*lane, lane->revoked_from, lane->revoked_to));
    }
  }
}

// Subscriptions that end, and are empty now.
void Driver::look_at_ends() {
  std::erase_if(receivers_, [this](const auto& receiver) {
    if (world_.x->find_queue(receiver->model.options.name) != nullptr) return false;
    if (!receiver->ending || !receiver->consumers.empty()) throw Complaint("a subscription is gone");
    receiver->model.drained();
    note(receiver->model.options.name + " has ended");
    ++happened_["ended"];
    return true;
  });
}

// What has come into a ring since the last look.
void Driver::look_at_rings() {
  for (const auto& receiver : receivers_) {
    exchange::Queue* queue = world_.x->find_queue(receiver->model.options.name);
    if (queue == nullptr) continue;
    queue->each_lane([&](const exchange::Lane& lane) {
      if (!lane.has_ring) return;
      std::uint64_t& known = receiver->entered[lane.ring_incarnation];
      for (const Id id : ids_in(lane, known, lane.entries)) tell_entered(*receiver, id);
      known = lane.entries;
    });
  }
}

void Driver::tell_entered(Receiver& receiver, Id id) {
  const std::uint64_t until = receiver.model.deadline(id);
  const bool lies = lie_ == Lie::expired && !lied_ && until > world_.now_ns && chance(30);
  lied_ = lied_ || lies;
  receiver.model.enter(id, lies ? until : world_.now_ns);
}

// Between ticks, what is due may go back in subscriptions that are ordered, and what is too late or too much may become a
// dead letter.
void Driver::look(Receiver& receiver) {
  const SubscriptionOptions& options = receiver.model.options;
  const bool moves = options.ordered_by_key || options.ordered || receiver.model.may_bury();
  if (moves && world_.x->find_queue(options.name) != nullptr)
    receiver.model.look(logs_of(options.name), last_tick_ns_, epoch_);
}

void Driver::run() {
  const std::uint64_t senders = 1 + below(3);
  for (std::uint64_t i = 0; i < senders; ++i) {
    senders_.push_back(std::make_unique<Sender>());
    senders_.back()->name = "p" + std::to_string(i);
    senders_.back()->numbers = chance(30);
    open_or_close(*senders_.back());
  }
  const std::uint64_t receivers = 1 + below(3);
  for (std::uint64_t i = 0; i < receivers; ++i) change_subscription();
  const std::uint64_t steps = 60 + below(80);
  for (std::uint64_t i = 0; i < steps; ++i) {
    step();
    if (chance(70)) tick(below(3) * 1'000'000);
  }
  drain();
}

}  // namespace ackring::test::model
