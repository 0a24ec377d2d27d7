#include "lib/exchange/snapshot.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/host.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/utf8.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using Json = nlohmann::ordered_json;
using shm::DeliveryState;

namespace {
constexpr std::uint64_t stalled_after_ns = 3'000'000'000;

std::size_t index(DeliveryState state) { return static_cast<std::size_t>(state); }

struct PublisherView {
  std::string name;
  shm::IngressBlock block{};
  std::uint64_t committed = 0;  // as the publisher says
  std::uint64_t back_pressured = 0;
  bool quarantined = false;
};

Json describe(const PublisherView& view) {
  const shm::IngressBlock& block = view.block;
  const std::uint64_t done = shm::events_of(block);
  const std::uint64_t in_ring = view.committed > done ? view.committed - done : 0;
  return {{"name", view.name},
          {"committed", done + in_ring},
          {"routed", block.routed},
          {"unroutable", block.unroutable},
          {"duplicates", block.duplicates},
          {"discarded", block.discarded},
          {"denied", block.denied},
          {"in_ring", in_ring},
          {"back_pressured", view.back_pressured},
          {"quarantined", view.quarantined}};
}

PublisherView view_of(std::string name, const shm::IngressBlock& block, const shm::IngressRing* ring,
                      bool quarantined) {
  PublisherView view{std::move(name), block, 0, 0, quarantined};
  if (ring != nullptr) {
    view.committed = ring->events.load(std::memory_order_relaxed);  // relaxed: for people; the publisher writes it
    view.back_pressured = ring->back_pressured.load(std::memory_order_relaxed);  // relaxed: as above
  }
  return view;
}

Json exchange_part(const shm::ExchangeSegment& page, const char* state) {
  // relaxed: all of these are notices for people
  const std::uint64_t started = page.started_unix_ns.load(std::memory_order_relaxed);
  const double uptime = static_cast<double>(std::max(unix_now_ns(), started) - started) / 1e9;  // the clock may be set
  const bool alive = std::string_view(state) != "stopped";
  return {{"state", state},
          {"pid", alive ? page.pid.load(std::memory_order_relaxed) : 0},    // relaxed: as above
          {"generation", page.generation.load(std::memory_order_relaxed)},  // relaxed: as above
          {"uptime_s", alive ? uptime : 0.0}};
}

}  // namespace

std::uint64_t unix_now_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
}

namespace {
// Of an entry that is not settled: does it belong to X again?
bool taken_back(const LaneView& lane, std::uint64_t entry) {
  if (static_cast<std::int64_t>(lane.revoked_to - entry) <= 0) return false;
  return static_cast<std::int64_t>(entry - lane.revoked_from) >= 0 ||
         (lane.acks.valid() && lane.acks.verdict(entry) == ring::Verdict::returned);
}
}  // namespace

Json describe(const SubscriptionView& view) {
  const shm::SubscriptionBlock& block = view.block;
  std::array<std::uint64_t, shm::delivery_states> totals = block.totals;
  std::uint64_t queued = block.backlog_events + block.delayed_events;
  std::uint64_t in_flight = 0;
  std::uint64_t delivered = block.delivered;
  std::uint64_t oldest = block.matched + 1;  // smallest delivery number that is not settled
  const bool at_most_once = view.options->guarantee == Guarantee::at_most_once;
  for (const LaneView& lane : view.lanes) {
    for (std::size_t i = 0; i < totals.size(); ++i) totals[i] += lane.ring_block.totals[i];
    delivered += lane.taken - lane.ring->start_entry - lane.ring_block.totals[index(DeliveryState::returned)];
    const std::uint64_t slots = lane.ring->slots;
    const auto* base = reinterpret_cast<const std::byte*>(lane.ring);
    const auto* states = reinterpret_cast<const shm::Word8*>(base + shm::page_bytes);
    const std::byte* data = base + shm::page_bytes + ((slots + shm::page_bytes - 1) & ~(shm::page_bytes - 1));
    RingWalk walk(data, *lane.ring, lane.ring_block.floor_position);
    for (std::uint64_t entry = lane.ring_block.floor_entry; entry != lane.entries; ++entry) {
      const shm::RecordHeader* header = walk.next();
      if (header == nullptr) break;
      std::uint8_t state = states[entry & (slots - 1)].load(std::memory_order_relaxed);  // relaxed: X is between stores
      if (state == 0 && lane.moved_state != 0 && entry == lane.moved_entry) state = lane.moved_state;
      const bool passed = static_cast<std::int64_t>(lane.taken - entry) > 0;
      const bool taken = passed && !taken_back(lane, entry);
      const bool returned = state == 0 ? !taken : (state & shm::state_mask) == index(DeliveryState::returned);
      if (passed && returned) --delivered;
      if (!passed && !returned) ++delivered;  // by a member that is gone
      if (state != 0) {
        ++totals[state & shm::state_mask];
        if ((state & shm::late_ack_bit) != 0) ++totals[index(DeliveryState::late_ack)];
      } else if (taken && at_most_once) {
        ++totals[index(DeliveryState::acked)];
      } else {
        ++(taken ? in_flight : queued);
        oldest = std::min(oldest, header->delivery);
      }
    }
  }
  if (block.backlog_events != 0) {
    // First deliveries are in order; redelivered, requeued and delayed ones may stand anywhere.
    view.walk_backlog([&](const shm::RecordHeader& record) {
      oldest = std::min(oldest, record.delivery);
      return block.redelivered != 0 || block.requeued != 0 || block.backlog_expires != 0;
    });
  }
  if (block.retry_events != 0) {
    view.walk_retry([&](const shm::RecordHeader& record) {
      const auto* later = ring::parts(reinterpret_cast<const std::byte*>(&record)).later;
      // relaxed: a notice; X is between stores, or dead
      if (later != nullptr && later->state.load(std::memory_order_relaxed) == 0) {
        oldest = std::min(oldest, record.delivery);
      }
      return true;
    });
  }
  Json dropped = Json::object();
  if (block.dropped_newest != 0) dropped["drop-newest"] = block.dropped_newest;
  if (block.dropped_oldest != 0) dropped["drop-oldest"] = block.dropped_oldest;
  if (block.dropped_too_large != 0) dropped["too-large"] = block.dropped_too_large;
  return {{"name", view.options->name},
          {"patterns", view.options->patterns},
          {"guarantee", control::to_string(view.options->guarantee)},
          {"members", view.members},
          {"paused", view.paused},
          {"matched", block.matched},
          {"delivered", delivered},
          {"acked", totals[index(DeliveryState::acked)]},
          {"nacked", totals[index(DeliveryState::nacked)]},
          {"rejected", totals[index(DeliveryState::rejected)]},
          {"timed_out", totals[index(DeliveryState::timed_out)]},
          {"redelivered", block.redelivered},
          {"requeued", block.requeued},
          {"late_acks", totals[index(DeliveryState::late_ack)]},
          {"invalid_acks", view.invalid_acks},
          {"dead_lettered", block.dead_lettered},
          {"dropped", dropped},
          {"expired", block.expired},
          {"purged", block.purged},
          {"queued", queued},
          {"in_flight", in_flight},
          {"retry_waiting", block.retry_events - block.delayed_events},
          {"dlq_size", block.dead_events},
          {"dlq_removed", block.dead_removed},
          {"last", block.matched},
          {"committed", oldest - 1},
          {"lag", block.matched + 1 - oldest}};
}

Json stat_document(const Exchange& exchange, const std::string& bus) {
  Json publishers = Json::array();
  for (const auto& ingress : exchange.publishers()) {
    if (ingress)
      publishers.push_back(describe(view_of(ingress->name, ingress->block, ingress->ring_page, ingress->quarantined)));
  }
  std::map<std::string, Json> subscriptions;
  for (const auto& queue : exchange.queues()) {
    if (!queue) continue;
    SubscriptionView view;
    view.options = &queue->options;
    view.paused = queue->paused;
    view.block = queue->block;
    view.invalid_acks = queue->state->invalid_acks.load(std::memory_order_relaxed);  // relaxed: X's own word
    queue->each_lane([&view](const Lane& lane) {
      if (lane.has_ring) {
        view.lanes.push_back({lane.ring_page, lane.ring_block, lane.entries, lane.taken, lane.revoked_from,
                              lane.revoked_to, lane.acks, 0, 0});
      }
      view.members += lane.has_member() ? 1 : 0;
    });
    const auto walk = [](const log::SegmentLog& log, std::uint64_t position, const auto& each) {
      while (const shm::RecordHeader* record = log.at(position)) {
        if (!each(*record)) return;
        position = log::SegmentLog::next(position, *record);
      }
    };
    view.walk_backlog = [&](const auto& each) { walk(queue->backlog, queue->block.backlog_head, each); };
    view.walk_retry = [&](const auto& each) { walk(queue->retry, queue->block.retry_head, each); };
    subscriptions[queue->options.name] = describe(view);
  }
  Json rows = Json::array();
  for (auto& [name, row] : subscriptions) rows.push_back(std::move(row));
  return {{"bus", bus},
          {"exchange", exchange_part(const_cast<Exchange&>(exchange).page(), "running")},
          {"publishers", std::move(publishers)},
          {"subscriptions", std::move(rows)}};
}

// ----------------------------------------------------------------------------------------------------------- from files

const shm::Intent& last_intent(const shm::ExchangeSegment& page) {
  const auto& intents = page.intents[0];
  const std::uint64_t first = intents[0].n.load(std::memory_order_acquire);   // acquire(intent.n): its record
  const std::uint64_t second = intents[1].n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  return first > second ? intents[0] : intents[1];
}

namespace {

bool moves_an_entry(std::uint32_t kind) {
  const auto move = static_cast<shm::TransactionKind>(kind);
  return move == shm::TransactionKind::set_aside || move == shm::TransactionKind::discard ||
         move == shm::TransactionKind::redeliver || move == shm::TransactionKind::retry ||
         move == shm::TransactionKind::bury || move == shm::TransactionKind::hand;
}

// The entry number behind the last record of a ring that counts: what transaction `uncounted` put there does not.
std::uint64_t count_entries(const shm::MemberRing& ring, const shm::RingBlock& block, std::uint64_t uncounted) {
  const auto* base = reinterpret_cast<const std::byte*>(&ring);
  const std::byte* data = base + shm::page_bytes + ((ring.slots + shm::page_bytes - 1) & ~(shm::page_bytes - 1));
  // acquire(sink.n): base belongs to n
  const bool open = uncounted != 0 && ring.sink.n.load(std::memory_order_acquire) == uncounted;
  const std::uint64_t end = ring.sink.base.load(std::memory_order_relaxed);  // relaxed: after n
  std::uint64_t entries = block.floor_entry;
  RingWalk walk(data, ring, block.floor_position);
  while (walk.next() != nullptr && (!open || static_cast<std::int64_t>(walk.position() - end) <= 0)) ++entries;
  return entries;
}

Json describe_files(const shm::Directory& directory, std::uint64_t id, const std::vector<std::string>& names,
                    const shm::ExchangeSegment& page) {
  const std::string prefix = "sub." + std::to_string(id);
  const Json definition = Json::parse(directory.read_file(prefix + ".json"));
  const SubscriptionOptions options = control::options_from_json(definition.at("name"), definition.at("patterns"),
                                                                 control::Json::parse(definition.at("options").dump()));
  const shm::Segment state =
      shm::Segment::attach(directory, prefix + ".state", shm::SegmentKind::subscription, shm::Access::read_only);
  check_bytes(state, sizeof(shm::SubscriptionSegment));
  const auto* subscription = state.as<const shm::SubscriptionSegment>();
  SubscriptionView view;
  view.options = &options;
  view.paused = definition.at("paused");
  view.block = shm::read_block(subscription->version, subscription->blocks);
  view.invalid_acks = subscription->invalid_acks.load(std::memory_order_relaxed);  // relaxed: a notice
  const shm::Intent& intent = last_intent(page);
  const std::uint64_t n = intent.n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  const bool counted = view.block.n == n;
  std::vector<shm::Segment> mapped;
  for (const std::string& name : names) {
    if (!name.starts_with(prefix + ".ring.") || name.ends_with(".tmp")) continue;
    const std::uint64_t incarnation = number_after(name, prefix.size() + 6);
    if (incarnation == view.block.retired_ring) continue;
    mapped.push_back(shm::Segment::attach(directory, name, shm::SegmentKind::member_ring, shm::Access::read_only));
    check_ring_sizes(mapped.back(), options);
    LaneView& lane = view.lanes.emplace_back();
    lane.ring = mapped.back().as<const shm::MemberRing>();
    lane.ring_block = shm::read_block(lane.ring->version, lane.ring->blocks);
    // A redo may go on behind what its block knows; the rings of members see whole moves only.
    const bool dispatched = options.group || options.ordered || options.ordered_by_key;
    lane.entries = dispatched ? count_entries(*lane.ring, lane.ring_block, counted ? 0 : n) : view.block.entries;
    lane.taken = lane.ring_block.floor_entry;
    // acquire(ring.ack_page): client belongs to it
    const std::uint64_t ack_page = lane.ring->ack_page.load(std::memory_order_acquire);
    const std::string ack_file = Exchange::ack_name(id, ack_page);
    if (ack_page != 0 && directory.exists(ack_file)) {
      mapped.push_back(shm::Segment::attach_client_file(directory, ack_file, shm::SegmentKind::ack_page,
                                                        ring::ack_page_bytes(lane.ring->slots)));
      // relaxed: published by ack_page
      if (mapped.back().valid() && lane.ring->client.load(std::memory_order_relaxed) != 0) {
        ++view.members;
        lane.acks = ring::AckReader(mapped.back().as<const shm::AckPage>(), lane.ring->slots);
        const std::uint64_t taken = lane.acks.taken();
        if (taken - lane.taken <= lane.entries - lane.taken) lane.taken = taken;
      } else {
        lane.taken = lane.entries;  // as the next exchange will see it: recover.cpp
      }
    }
    lane.revoked_from = lane.taken;
    lane.revoked_to = lane.ring->revoked.load(std::memory_order_relaxed);  // relaxed: a number of X's
    // A move out of the ring that a dead exchange left half done: its copy counts, so its source does not.
    const std::uint64_t to = intent.to.load(std::memory_order_relaxed);                      // relaxed: after n
    if (counted && n != 0 && moves_an_entry(intent.kind.load(std::memory_order_relaxed)) &&  // relaxed: after n
        to >> 8 == incarnation) {
      lane.moved_entry = intent.from.load(std::memory_order_relaxed);  // relaxed: after n
      lane.moved_state = static_cast<std::uint8_t>(to);
    }
  }
  view.walk_backlog = [&](const auto& each) {
    // acquire(backlog.tail): the records before it
    const std::uint64_t tail = subscription->backlog_tail.load(std::memory_order_acquire);
    walk_log(directory, prefix + ".backlog", view.block.backlog_head, tail,
             [&each](std::uint64_t, const shm::RecordHeader& record) { return each(record); });
  };
  view.walk_retry = [&](const auto& each) {
    // acquire(retry.tail): the records before it
    const std::uint64_t tail = subscription->retry_tail.load(std::memory_order_acquire);
    walk_log(directory, prefix + ".retry", view.block.retry_head, tail,
             [&each](std::uint64_t, const shm::RecordHeader& record) { return each(record); });
  };
  return describe(view);
}

}  // namespace

namespace {

shm::Segment exchange_page(const shm::Directory& directory, const std::string& bus) {
  if (!directory.exists("exchange")) {
    throw Error(ErrorCode::not_found, "bus '" + bus + "'", "there is none in " + directory.path(),
                "start one with ackring-exchange");
  }
  shm::Segment segment =
      shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  check_bytes(segment, sizeof(shm::ExchangeSegment));
  return segment;
}

const char* state_of(const shm::Directory& directory, const shm::ExchangeSegment& page) {
  if (!is_served(directory)) return "stopped";
  const std::uint64_t tick = page.tick_ns.load(std::memory_order_relaxed);  // relaxed: a sign of life
  return shm::Environment::now_ns() - tick > stalled_after_ns ? "stalled" : "running";
}

}  // namespace

const char* exchange_state(const shm::Directory& directory, const std::string& bus) {
  const shm::Segment segment = exchange_page(directory, bus);
  return state_of(directory, *segment.as<const shm::ExchangeSegment>());
}

Json stat_document(const shm::Directory& directory, const std::string& bus) {
  const shm::Segment segment = exchange_page(directory, bus);
  const auto& page = *segment.as<const shm::ExchangeSegment>();
  const char* state = state_of(directory, page);
  Json publishers = Json::array();
  Json damaged = Json::array();  // what can't be read, and why
  for (std::size_t slot = 0; slot < shm::max_publishers; ++slot) {
    const shm::PublisherEntry& entry = page.publishers[slot];
    const std::uint64_t incarnation =
        entry.incarnation.load(std::memory_order_acquire);  // acquire(publisher.incarnation): its files
    const std::string cursor_file = Exchange::cursor_name(static_cast<std::uint16_t>(slot), incarnation);
    if (incarnation == 0 || !directory.exists(cursor_file)) continue;
    try {
      const shm::Segment cursor =
          shm::Segment::attach(directory, cursor_file, shm::SegmentKind::ingress_cursor, shm::Access::read_only);
      check_bytes(cursor, shm::page_bytes);
      const auto* words = cursor.as<const shm::IngressCursor>();
      const std::string ring_file = Exchange::ingress_name(static_cast<std::uint16_t>(slot), incarnation);
      const shm::Segment ring =
          shm::Segment::attach_client_file(directory, ring_file, shm::SegmentKind::ingress_ring, shm::page_bytes);
      const std::string name = shm::printable({entry.name.data(), ::strnlen(entry.name.data(), entry.name.size())});
      publishers.push_back(describe(view_of(name, shm::read_block(words->version, words->blocks),
                                            ring.valid() ? ring.as<const shm::IngressRing>() : nullptr,
                                            // relaxed: a notice
                                            words->quarantined.load(std::memory_order_relaxed) != 0)));
    } catch (const Error& error) {
      if (passes(error.code())) throw;
      damaged.push_back(cursor_file + ": " + error.what());
    }
  }
  std::map<std::uint64_t, std::vector<std::string>> files;
  for (const std::string& name : directory.list("sub.")) files[number_after(name, 4)].push_back(name);
  std::map<std::string, Json> subscriptions;
  for (const auto& [id, names] : files) {
    const std::string definition = "sub." + std::to_string(id) + ".json";
    if (std::find(names.begin(), names.end(), definition) == names.end()) continue;
    try {
      const Json row = describe_files(directory, id, names, page);
      subscriptions[row["name"].get<std::string>()] = row;
    } catch (const Error& error) {
      if (passes(error.code())) throw;
      if (directory.exists(definition)) damaged.push_back(definition + ": " + error.what());  // else it has just gone
    } catch (const nlohmann::json::exception&) {
      damaged.push_back(definition + ": it is no definition of a subscription");
    }
  }
  Json rows = Json::array();
  for (auto& [name, row] : subscriptions) rows.push_back(std::move(row));
  Json document = {{"bus", bus},
                   {"exchange", exchange_part(page, state)},
                   {"publishers", std::move(publishers)},
                   {"subscriptions", std::move(rows)}};
  if (!damaged.empty()) document["damaged"] = std::move(damaged);
  return document;
}

}  // namespace ackring::exchange
