// All that matters of a bus that has just been recovered, as text: the same text, the same future. Left out is what tells
// only how often there was a recovery: generations, versions of blocks, the moments at which letters died. So is which
// shard has a subscription: a death while the bus is divided may leave it where it was.
#pragma once

#include <algorithm>
#include <sstream>
#include <string>

#include "lib/exchange/attempt.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/snapshot.hpp"

namespace ackring::test {

inline void digest_record(std::ostream& out, const char* place, std::uint64_t at, const shm::RecordHeader& record) {
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  out << place << ' ' << at << ": kind " << record.kind << " bytes " << record.bytes << " of " << record.publisher
      << '/' << record.sequence << " delivery " << record.delivery << " topic " << record.topic << " payload "
      << record.payload_bytes << " published " << record.published_ns;
  if (event.attempt != nullptr) out << " attempt " << event.attempt->attempt;
  if (event.later != nullptr) {
    out << " state " << event.later->state.load(std::memory_order_relaxed) << " due " << event.later->due_ns;
  }
  out << ' ' << std::hash<std::string_view>{}({reinterpret_cast<const char*>(event.payload), record.payload_bytes})
      << '\n';
}

inline void digest_log(std::ostream& out, const char* place, const log::SegmentLog& log, std::uint64_t head) {
  std::uint64_t position = head;
  while (const shm::RecordHeader* record = log.at(position)) {
    digest_record(out, place, position, *record);
    position = log::SegmentLog::next(position, *record);
  }
  out << place << " ends at " << log.tail() << '\n';
}

inline void digest_lane(std::ostream& out, const exchange::Lane& lane) {
  out << "lane " << lane.number << " ring " << lane.ring_incarnation << " client " << lane.client << " page "
      << lane.ack_incarnation << " floor " << lane.floor_entry << " taken " << lane.taken << " entries " << lane.entries
      << " leaving " << lane.leaving << " revoked " << lane.revoked_to;
  for (const std::uint64_t total : lane.ring_block.totals) out << ' ' << total;
  out << '\n';
  for (std::uint64_t entry = lane.floor_entry; lane.has_ring && entry != lane.entries; ++entry) {
    digest_record(out, "entry", entry, *reinterpret_cast<const shm::RecordHeader*>(lane.record_of(entry)));
    out << "  state " << static_cast<unsigned>(lane.state_of(entry)) << '\n';
  }
}

inline std::string bus_digest(exchange::Exchange& x, const shm::Directory& directory) {
  std::ostringstream out;
  auto stat = exchange::stat_document(x, "digest");
  for (const char* key : {"subscriptions", "publishers"}) {
    for (auto& row : stat[key]) {
      row.erase("shard");
      out << row.dump() << '\n';
    }
  }
  for (const auto& queue : x.queues()) {
    if (!queue) continue;
    out << "subscription " << queue->id << ' ' << queue->options.name << '\n';
    queue->each_lane([&out](const exchange::Lane& lane) { digest_lane(out, lane); });
    digest_log(out, "backlog", queue->backlog, queue->block.backlog_head);
    digest_log(out, "retry", queue->retry, queue->block.retry_head);
    digest_log(out, "dead", queue->dead, queue->block.dead_head);
  }
  for (const auto& ingress : x.publishers()) {
    if (!ingress) continue;
    out << "publisher " << ingress->name << " slot " << ingress->slot << " incarnation " << ingress->incarnation
        << " client " << ingress->client << " consumed " << ingress->block.consumed << " sequence "
        << ingress->block.sequence << " topics " << ingress->routes.size();
    for (const exchange::Exchange* shard : x.shards()) {
      if (shard == nullptr || shard == &x) continue;
      const exchange::Ingress& same = *shard->publishers()[ingress->slot];
      out << ", another shard: " << same.block.consumed << ' ' << same.block.sequence << ' ' << same.routes.size();
    }
    out << '\n';
  }
  for (const std::string& name : directory.list("")) {
    // A log may have a segment before its head or behind its tail, or none; what lies in it is above.
    const auto is_of = [&name](const char* log) { return name.find(log) != std::string::npos; };
    if (!is_of(".backlog.") && !is_of(".retry.") && !is_of(".dead.")) out << name << '\n';
  }
  return out.str();
}

/// The first line in which two digests differ; empty: they are the same.
inline std::string difference(const std::string& left, const std::string& right) {
  std::istringstream lines[2] = {std::istringstream(left), std::istringstream(right)};
  std::string line[2];
  while (true) {
    const bool more[2] = {!!std::getline(lines[0], line[0]), !!std::getline(lines[1], line[1])};
    if (!more[0] && !more[1]) return {};
    if (more[0] != more[1] || line[0] != line[1]) {
      return (more[0] ? line[0] : "(nothing)") + "\n  instead: " + (more[1] ? line[1] : "(nothing)");
    }
  }
}

}  // namespace ackring::test
