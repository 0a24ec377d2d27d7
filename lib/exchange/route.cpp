// Route: reads a publisher's ring, finds the subscriptions of each event's topic and delivers it to them.
#include <algorithm>
#include <cstring>

#include "ackring/error.hpp"
#include "lib/exchange/deliver.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/file_sizes.hpp"
#include "lib/exchange/route_scout.hpp"
#include "lib/shm/probe.hpp"

namespace ackring::exchange {

using ring::ReadStatus;
using shm::RecordHeader;
using shm::RecordKind;

// Reads one batch of a publisher's ring, routes each event and delivers it: one transaction.
bool Exchange::drain(Ingress& ingress, std::uint64_t now_ns, std::uint64_t until, bool redoing) {
  if (ingress.quarantined) return false;
  ring::RingReader& reader = ingress.reader;
  if (!reader.refresh()) {
    quarantine(ingress, "its tail is not a possible one");
    return false;
  }
  const std::uint64_t from = reader.position();
  const std::uint64_t committed = reader.limit();
  if (from == committed) return false;
  if (!redoing) {
    until = committed - from > batch_bytes ? from + batch_bytes : committed;
    begin(shm::TransactionKind::route, ingress.slot, from, until);
  }
  shm::IngressBlock& counts = ingress.block;
  const char* damage = nullptr;
  std::uint64_t events = 0;
  const bool scouts = ingress.routes.size() >= RouteScout::many_topics;
  std::uint64_t scouted = scouts ? RouteScout::go_on(reader, ingress.routes, from, RouteScout::distance) : 0;
  while (static_cast<std::int64_t>(until - reader.position()) > 0 && (redoing || events < batch_events)) {
    if (scouts) [[unlikely]]
      scouted = RouteScout::go_on(reader, ingress.routes, scouted, 1);
    RecordHeader header;
    const std::byte* record = nullptr;
    const ReadStatus status = reader.read_checked(header, record);
    if (status == ReadStatus::empty) break;
    if (status == ReadStatus::damaged) {
      damage = "a record's header is not a possible one";
      break;
    }
    if (header.kind != static_cast<std::uint16_t>(RecordKind::event)) [[unlikely]] {
      const RecordHeader copy = header;  // the header itself stays in registers
      const bool is_topic = header.kind == static_cast<std::uint16_t>(RecordKind::topic);
      if (is_topic && !topic_ready(ingress, copy)) break;
      if (!is_topic || !define_topic(ingress, copy, record + sizeof(RecordHeader))) {
        damage = "a record is neither an event nor a topic in order";
        break;
      }
      reader.advance(header.bytes);
      continue;
    }
    ++events;
    if (header.sequence <= counts.sequence) [[unlikely]] {
      ++counts.duplicates;
      reader.advance(header.bytes);
      continue;
    }
    if (header.topic - 1 >= ingress.routes.size() || ingress.routes[header.topic - 1] == nullptr) [[unlikely]] {
      // A topic that was never defined, or for which the table had no room; or one that is not for this publisher.
      ++(ingress.is_denied(header.topic) ? counts.denied : counts.discarded);
      counts.sequence = header.sequence;
      reader.advance(header.bytes);
      continue;
    }
    Route& route = *ingress.routes[header.topic - 1];
    if (!routes_.current(route)) [[unlikely]]
      routes_.refresh(route, peers_->topics->text(route.topic), queues_, shard_);
    header.publisher = ingress.slot;
    if (header.flags != 0 || route.timed) [[unlikely]] {
      const RecordHeader copy = header;  // as above
      const std::byte* body = record + sizeof(RecordHeader);
      if (route.ids) {
        const Familiar known = is_known(ingress, route, copy, body, redoing);
        if (known == Familiar::not_yet) {
          waits_for_shard_ = true;
          break;
        }
        if (known == Familiar::yes) {
          ++counts.duplicates;
          counts.sequence = copy.sequence;
          reader.advance(copy.bytes);
          continue;
        }
      }
      if (!route_timed(route, copy, body, now_ns, redoing)) break;
      if (route.ids && shard_ == 0) remember_id(route, copy, now_ns, redoing);
    } else if (route.only != nullptr) {
      Queue& only = *route.only;
      if (!ready(only, header.bytes, now_ns, redoing)) break;
      header.topic = route.topic;
      put(only, header, record + sizeof(RecordHeader));
    } else {
      bool blocked = false;
      for (Queue* queue : route.sinks) blocked = blocked || !ready(*queue, header.bytes, now_ns, redoing);
      if (blocked) break;
      header.topic = route.topic;
      for (Queue* queue : route.sinks) put(*queue, header, record + sizeof(RecordHeader));
    }
    counts.sequence = header.sequence;
    ACKRING_PROBE_ROUTE(ingress.slot, header.sequence, route.matched, header.bytes);
    if (route.matched) {
      ++counts.routed;
    } else {
      ++counts.unroutable;
    }
    reader.advance(header.bytes);
  }
  const bool moved = reader.position() != from;
  const bool more = static_cast<std::int64_t>(until - reader.position()) > 0;
  short_of_room_ = more && events < batch_events;
  if (moved || redoing) {
    commit_sinks();
    if (redoing) [[unlikely]]
      check_redone(ingress, damage);
    commit_ingress(ingress);
    wake_members();
  } else {
    for (Queue* queue : touched_) close_window(*queue);
  }
  if (damage != nullptr) quarantine(ingress, damage);
  return moved;
}

// False: the file system has no room for the number of one more topic just now. Its publisher waits, as for a full ring.
bool Exchange::topic_ready(Ingress& ingress, const RecordHeader& header) {
  const std::lock_guard guard(peers_->topics_mutex);
  // relaxed: written under the mutex
  if (header.topic != ingress.first().topics.load(std::memory_order_relaxed) + 1) return true;
  const std::size_t needed = shm::page_bytes + header.topic * sizeof(shm::Word32);
  shm::Segment& file = *ingress.cursor_segment;
  if (needed <= file.bytes() || needed > cursor_reserve_bytes) return true;
  try {
    file.grow(cursor_grown_bytes(file.bytes(), header.topic));
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Whichever shard comes to a topic first gives it its number; the others find it there, as a redo does.
bool Exchange::define_topic(Ingress& ingress, const RecordHeader& header, const std::byte* text) {
  const std::uint64_t known = ingress.routes.size();
  if (header.topic - 1 < known) return true;  // a redo comes by again
  if (header.topic != known + 1 || header.payload_bytes > 255) return false;
  const std::lock_guard guard(peers_->topics_mutex);
  // relaxed: written under the mutex
  const std::uint64_t defined = ingress.first().topics.load(std::memory_order_relaxed);
  if (defined < known) return false;
  if (defined == known) {
    if (shm::page_bytes + header.topic * sizeof(shm::Word32) > ingress.cursor_segment->bytes()) return false;
    char copy[256];
    std::memcpy(copy, text, header.payload_bytes);  // read once: what is validated is what is interned
    asm volatile("" ::: "memory");
    const std::string_view topic(copy, header.payload_bytes);
    if (!control::valid_topic(topic)) return false;
    shm::Environment::at(shm::CrashPoint::route_topic);
    const bool allowed = ingress.permissions.may_publish(topic);
    const std::uint32_t number = allowed ? peers_->topics->intern(topic) : shm::denied_topic;
    // relaxed: published by `topics`
    ingress.topic_map[header.topic - 1].store(number, std::memory_order_relaxed);
    // release(cursor.topics): the map's entries below it
    ingress.first().topics.store(defined + 1, std::memory_order_release);
  }
  const std::uint32_t number = ingress.topic_map[known].load(std::memory_order_relaxed);  // relaxed: under the mutex
  const bool routed = number != shm::no_topic && number != shm::denied_topic;
  ingress.routes.push_back(routed ? routes_.route_of(number) : nullptr);
  return true;
}

void Exchange::quarantine(Ingress& ingress, const std::string& why) {
  ingress.quarantined = true;
  // relaxed: a notice, nothing depends on its order
  const bool known = ingress.first().quarantined.load(std::memory_order_relaxed) != 0;
  ingress.first().quarantined.store(1, std::memory_order_relaxed);  // relaxed: as above
  if (known) return;
  const std::string reason = ingress.ring_segment.cut_short() ? cut_short : why;
  note({Notice::Level::warning,
        "publisher.quarantined",
        "publisher " + ingress.name + ": quarantined: " + reason,
        {{"publisher", ingress.name}, {"slot", std::uint64_t{ingress.slot}}, {"why", reason}}});
}

}  // namespace ackring::exchange
