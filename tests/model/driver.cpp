#include "tests/model/driver.hpp"

namespace ackring::test::model {

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
  return died;
}

void Driver::revive() {
  note("the exchange died");
  ++happened_["restarts"];
  while (true) {
    try {
      world_.x.reset();
      if (deaths_ && chance(30)) hook_.stores_left = below(60);
      shm::Environment::hook = &hook_;
      world_.x = std::make_unique<exchange::Exchange>(*world_.directory);
      break;
    } catch (const Death&) {
      note("… and again while it recovered");
      ++happened_["restarts in recovery"];
    }
  }
  hook_.stores_left = ~std::uint64_t{0};
  world_.run();
}

void Driver::restart_models() {
  for (const auto& receiver : receivers_) receiver->model.restart();
}

void Driver::act(const std::function<void()>& work) {
  exchange(false, work);
  look_at_drops();
}

void Driver::run_exchange() {
  const bool died = exchange(true, [this] { world_.run(); });
  look_at_drops();
  if (!died) return;
  restart_models();
  tick(0);
}

void Driver::tick(std::uint64_t ns) {
  world_.now_ns += ns;
  const std::uint64_t ticked = epoch_ + 1;
  const bool again = exchange(true, [this] { world_.x->tick(world_.now_ns); });
  if (again) {
    shm::Environment::hook = &hook_;
    world_.x->tick(world_.now_ns);
    world_.run();
    shm::Environment::hook = nullptr;
    look_at_routing();
  }
  for (const auto& receiver : receivers_) {
    receiver->model.tick(world_.now_ns, logs_of(receiver->model.options.name), ticked, again);
  }
  last_tick_ns_ = world_.now_ns;
  look_at_drops();
  if (!again) {
    const bool died = exchange(true, [this] { world_.run(); });
    look_at_drops();
    if (died) {
      restart_models();
      return tick(0);
    }
  }
  ++ticks_;
  check();
}

// What the exchange has routed since the last look went to whoever matches now.
void Driver::look_at_routing() {
  for (const auto& sender : senders_) {
    if (sender->pending.empty() || !world_.x->publishers()[sender->slot]) continue;
    const auto& ingress = world_.x->publishers()[sender->slot];
    while (!sender->pending.empty() && sender->pending.front().sequence <= ingress->block.sequence) {
      const Pending& event = sender->pending.front();
      bool matched = false;
      for (const auto& receiver : receivers_) {
        if (!receiver->model.matches(event.topic)) continue;
        receiver->model.route({sender->slot, event.sequence}, event.bytes, epoch_);
        matched = true;
      }
      ++(matched ? sender->routed : sender->unroutable);
      sender->pending.pop_front();
    }
  }
}

void Driver::look_at_drops() {
  if (!all_routed()) ++happened_["blocked"];
  for (const auto& receiver : receivers_) {
    const exchange::Queue* queue = world_.x->find_queue(receiver->model.options.name);
    if (queue == nullptr) continue;
    receiver->model.drops(queue->block.dropped_newest, queue->block.dropped_oldest);
    if (queue->dead_held != 0) ++happened_["held"];
  }
}

// What lies in the retry log and in the dead-letter log of a subscription.
Logs Driver::logs_of(const std::string& name) {
  const exchange::Queue& queue = *world_.x->find_queue(name);
  Logs logs;
  const auto keep = [&name](std::map<Id, Kept>& where, const ring::EventParts& event) {
    const exchange::Attempt attempt = exchange::attempt_of(event);
    Kept kept;
    kept.id = {event.header->publisher, event.header->sequence};
    kept.delivery = event.header->delivery;
    kept.attempt = attempt.info.attempt;
    for (std::size_t i = 0; i < attempt.info.history; ++i) kept.causes.push_back(attempt.past[i].cause);
    kept.due_ns = event.later->due_ns;
    kept.reason = exchange::reason_of(event);
    const std::string payload(reinterpret_cast<const char*>(event.payload), event.header->payload_bytes);
    if (payload != payload_of(kept.id, payload.size())) throw Complaint(name + ": a log holds another payload");
    if (!where.emplace(kept.id, kept).second) throw Complaint(name + ": an event is twice in a log");
  };
  std::uint64_t position = queue.block.retry_head;
  while (const shm::RecordHeader* record = queue.retry.at(position)) {
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    if (event.later->state.load(std::memory_order_relaxed) == 0) keep(logs.waiting, event);
    position = log::SegmentLog::next(position, *record);
  }
  (void)exchange::Exchange::walk_dead(queue, {}, [&](std::uint64_t, const ring::EventParts& event) {
    keep(logs.dead, event);
    logs.dead_bytes += event.header->bytes;
    return true;
  });
  return logs;
}

// Documents cost more than all the rest: every fourth tick, and the files every sixteenth; what is wrong stays wrong.
void Driver::check(bool certainly) {
  constexpr std::uint64_t often = 4;
  constexpr std::uint64_t seldom = 16;
  certainly = certainly || thorough_;
  if (ticks_ % often != 0 && !certainly) return;
  const auto live = exchange::stat_document(*world_.x, "model");
  compare_books(live);
  if (ticks_ % seldom != 0 && !certainly) return;
  const auto dead = exchange::stat_document(*world_.directory, "model");
  for (const char* part : {"publishers", "subscriptions"}) {
    if (live[part] != dead[part]) {
      throw Complaint(std::string("the files tell another story of ") + part + ": " + live[part].dump() + " / " +
                      dead[part].dump());
    }
  }
}

void Driver::compare_books(const nlohmann::ordered_json& stat) {
  for (const auto& receiver : receivers_) {
    Counters counters;
    for (const auto& row : stat["subscriptions"]) {
      if (row["name"] != receiver->model.options.name) continue;
      for (const auto& [name, value] : row.items()) {
        if (value.is_number()) counters[name] = value.get<std::uint64_t>();
      }
      for (const auto& [reason, value] : row["dropped"].items()) {
        counters["dropped." + reason] = value.get<std::uint64_t>();
      }
    }
    receiver->model.check(counters);
    if (drained_) {
      for (const auto& [name, value] : counters) happened_[name] += value;
    }
    if (counters["members"] != (receiver->member ? 1U : 0U)) throw Complaint("a member too many or too few");
  }
  for (const auto& sender : senders_) {
    for (const auto& row : stat["publishers"]) {
      if (row["name"] != sender->name) continue;
      const bool right = row["routed"] == sender->routed && row["unroutable"] == sender->unroutable &&
                         row["in_ring"] == sender->pending.size() && row["duplicates"] == 0 && row["discarded"] == 0;
      if (!right) throw Complaint("the counters of publisher " + row.dump() + " are wrong");
    }
  }
}

void Driver::run() {
  const std::uint64_t senders = 1 + below(3);
  for (std::uint64_t i = 0; i < senders; ++i) {
    senders_.push_back(std::make_unique<Sender>());
    senders_.back()->name = "p" + std::to_string(i);
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
