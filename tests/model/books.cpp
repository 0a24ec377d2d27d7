// What the driver sees of the exchange's books.
#include "tests/model/driver.hpp"

namespace ackring::test::model {

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
    kept.untaken = exchange::is_untaken(event);
    kept.reason = exchange::reason_of(event);
    const std::string payload(reinterpret_cast<const char*>(event.payload), event.header->payload_bytes);
    if (payload != payload_of(kept.id, payload.size())) throw Complaint(name + ": a log holds another payload");
    if (!where.emplace(kept.id, kept).second) throw Complaint(name + ": an event is twice in a log");
  };
  std::uint64_t position = queue.block.retry_head;
  while (const shm::RecordHeader* record = queue.retry.at(position)) {
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    const bool first = exchange::is_untaken(event);
    const bool aside = event.later->due_ns == 0 && first;
    if (event.later->state.load(std::memory_order_relaxed) == 0) {
      keep(aside ? logs.aside : first ? logs.delayed : logs.waiting, event);
    }
    if (first && !aside) ++happened_["delayed"];
    if (aside) ++happened_["set aside"];
    position = log::SegmentLog::next(position, *record);
  }
  (void)exchange::Exchange::walk_dead(queue, {}, [&](std::uint64_t, const ring::EventParts& event) {
    keep(logs.dead, event);
    if (exchange::is_untaken(event)) ++happened_["dead: " + std::string(exchange::reason_of(event))];
    if (exchange::reason_of(event).starts_with("max_deliveries: ")) ++happened_["dead: max_deliveries with a reason"];
    logs.dead_bytes += event.header->bytes;
    return true;
  });
  return logs;
}

// The events of those entries of a ring that are still there.
std::vector<Id> Driver::ids_in(const exchange::Lane& lane, std::uint64_t from, std::uint64_t to) {
  std::vector<Id> ids;
  for (std::uint64_t entry = std::max(from, lane.floor_entry); entry < to; ++entry) {
    const auto* record = reinterpret_cast<const shm::RecordHeader*>(lane.record_of(entry));
    ids.push_back({record->publisher, record->sequence});
  }
  return ids;
}

// Documents cost more than all the rest: every fourth tick, and the files every sixteenth, all of
// them byte by byte more rarely; what is wrong stays wrong.
void Driver::check(bool certainly) {
  constexpr std::uint64_t often = 4;
  constexpr std::uint64_t seldom = 16;
  constexpr std::uint64_t rarely = 112;
  certainly = certainly || thorough_;
  if (ticks_ % often != 0 && !certainly) return;
  for (const auto& receiver : receivers_) look(*receiver);
  const auto live = exchange::stat_document(*world_.x, "model");
  compare_books(live);
  if (ticks_ % seldom != 0 && !certainly) return;
  if (ticks_ % rarely == 0 || thorough_) {
    const std::string violations = findings_of(exchange::examine(*world_.directory));
    if (!violations.empty()) throw Complaint("the doctor finds: " + violations);
  }
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
      if (!receiver->model.options.retry_delays.empty()) happened_["listed delays"] += counters["redelivered"];
    }
  }
  for (const auto& sender : senders_) {
    for (const auto& row : stat["publishers"]) {
      if (row["name"] != sender->name) continue;
      const bool right = row["routed"] == sender->routed && row["unroutable"] == sender->unroutable &&
                         row["in_ring"] == sender->pending.size() && row["duplicates"] == sender->duplicates &&
                         row["discarded"] == 0;
      if (!right) throw Complaint("the counters of publisher " + row.dump() + " are wrong");
    }
  }
}

}  // namespace ackring::test::model
