// What operators do, at random.
#include "tests/model/driver.hpp"

namespace ackring::test::model {

void Driver::operate(Receiver& receiver) {
  const std::uint64_t choice = below(100);
  if (choice < 50) return operate_dead(receiver);
  if (choice < 90) return pause_or_resume(receiver);
  purge(receiver);
}

void Driver::pause_or_resume(Receiver& receiver) {
  Subscription& model = receiver.model;
  note((model.paused ? "resume of " : "pause of ") + model.options.name);
  look(receiver);
  if (model.paused) {
    const bool died = surely([&] { world_.x->resume(queue_of(receiver)); });
    model.resume();
    look_at_drops();
    if (died) tick(0);
    return;
  }
  model.pause();
  ++happened_["paused"];
  const bool died = surely([&] { world_.x->pause(queue_of(receiver)); });
  look_at_drops();
  if (died) tick(0);
}

void Driver::purge(Receiver& receiver) {
  const std::string name = receiver.model.options.name;
  tick(0);
  if (world_.x->find_queue(name) == nullptr) return;
  note("purge of " + name);
  look(receiver);
  const std::uint64_t purged = queue_of(receiver).block.purged;
  const std::uint64_t redelivered = queue_of(receiver).block.redelivered;
  purging_ = true;
  const bool died = surely([&] { (void)world_.x->purge(queue_of(receiver), world_.now_ns); });
  look_at_drops();
  purging_ = false;
  const shm::SubscriptionBlock& block = queue_of(receiver).block;
  receiver.model.purge(block.purged - purged, block.redelivered - redelivered, world_.now_ns, logs_of(name));
  if (died) tick(0);
}

void Driver::end(Receiver& receiver, bool bury) {
  const std::string name = receiver.model.options.name;
  note("the end of " + name + (bury ? ", what it holds becomes dead letters" : ""));
  receiver.ending = true;
  receiver.model.burying = bury;
  receiver.model.options.patterns.clear();
  act([&] { world_.x->end_subscription(queue_of(receiver), bury); });
}

void Driver::operate_dead(Receiver& receiver) {
  const std::string name = receiver.model.options.name;
  look(receiver);
  exchange::Queue& queue = queue_of(receiver);
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
    filter.reason = pick<const char*>({"", "rejected", "max_deliveries", "reject", "expired", "overflow", "removed"});
    for (const auto& [id, kept] : before.dead) {
      const bool meant =
          filter.reason.empty() || kept.reason == filter.reason || kept.reason.starts_with(filter.reason + ":");
      if (meant) ids.push_back(id);
    }
  }
  const bool requeue = chance(60);
  note((requeue ? "requeue of " : "purge of the dead letters of ") + name + ": " + std::to_string(ids.size()));
  std::uint64_t done = 0;
  exchange(false, [&] {
    done =
        requeue ? world_.x->requeue_dead(queue, filter, world_.now_ns).done : world_.x->purge_dead(queue, filter).done;
  });
  if (done != ids.size()) throw Complaint(name + ": " + std::to_string(done) + " dead letters went");
  if (requeue) {
    receiver.model.requeue(ids, world_.now_ns, logs_of(name));
  } else {
    receiver.model.purge_dead(ids, logs_of(name));
  }
  look_at_drops();
}

}  // namespace ackring::test::model
