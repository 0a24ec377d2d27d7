// The `stat` document of a bus that nobody serves, or of a copied directory: the same as a live exchange would say, read from
// the files. What the open transaction has half done counts as its sinks have it.
#include <algorithm>
#include <cstring>
#include <map>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/host.hpp"
#include "lib/exchange/latency.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/exchange/snapshot_members.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/utf8.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using Json = nlohmann::ordered_json;

namespace {
constexpr std::uint64_t stalled_after_ns = 3'000'000'000;
}  // namespace

const shm::Intent& last_intent(const shm::ExchangeSegment& page, std::size_t shard) {
  const auto& intents = page.intents[shard];
  const std::uint64_t first = intents[0].n.load(std::memory_order_acquire);   // acquire(intent.n): its record
  const std::uint64_t second = intents[1].n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  return first > second ? intents[0] : intents[1];
}

bool is_shard(const shm::ExchangeSegment& page, std::size_t shard) {
  // relaxed: it changes only while nobody serves the bus
  return ((page.shards.load(std::memory_order_relaxed) | 1) >> shard & 1) != 0;
}

std::size_t shard_of(const shm::SubscriptionSegment& state) {
  // acquire(subscription.shard): the bus has it
  const std::uint64_t shard = state.shard.load(std::memory_order_acquire);
  return shard < shm::max_shards ? shard : 0;
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
  view.ephemeral = definition.at("ephemeral");
  view.block = shm::read_block(subscription->version, subscription->blocks);
  view.invalid_acks = subscription->invalid_acks.load(std::memory_order_relaxed);  // relaxed: a notice
  view.shard = shard_of(*subscription);
  view.dead_reasons = shm::read_block(subscription->dead_version, subscription->dead_reasons);
  view.latency = kept_latency(*subscription);
  view.breaker_order = breaker_order_of(*subscription);
  const shm::Intent& intent = last_intent(page, view.shard);
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
      const std::uint64_t client = lane.ring->client.load(std::memory_order_relaxed);
      if (mapped.back().valid() && client != 0) {
        ++view.members;
        lane.client = client;
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
      const auto& words = *cursor.as<const shm::IngressCursor>();
      std::vector<shm::IngressBlock> blocks;
      for (std::size_t shard = 0; shard < shm::max_shards; ++shard) {
        const shm::ShardCursor& one = words.shards[shard];
        if (is_shard(page, shard)) blocks.push_back(shm::read_block(one.version, one.blocks));
      }
      const std::string ring_file = Exchange::ingress_name(static_cast<std::uint16_t>(slot), incarnation);
      const shm::Segment ring =
          shm::Segment::attach_client_file(directory, ring_file, shm::SegmentKind::ingress_ring, shm::page_bytes);
      const std::string name = shm::printable({entry.name.data(), ::strnlen(entry.name.data(), entry.name.size())});
      const bool quarantined = words.shards[0].quarantined.load(std::memory_order_relaxed) != 0;  // relaxed: a notice
      publishers.push_back(
          publisher_part(name, blocks, ring.valid() ? ring.as<const shm::IngressRing>() : nullptr, quarantined));
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
