#include "lib/exchange/exchange.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ackring/error.hpp"
#include "lib/exchange/deliver.hpp"
#include "lib/exchange/route_scout.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/bus_error_guard.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

using ring::ReadStatus;
using shm::RecordHeader;
using shm::RecordKind;

Exchange::Exchange(shm::Directory& directory, control::AccessRules access)
    : directory_(directory), access_(std::move(access)) {
  if (directory.exists("exchange")) {
    segment_ = shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_write);
    if (segment_.header().boot_id != shm::boot_id()) {
      throw Error(ErrorCode::damaged, directory.path(), "the bus was left by an earlier boot of this machine",
                  "move the directory away and start again");
    }
    check_exchange(segment_);
  } else {
    segment_ =
        shm::Segment::create(directory, "exchange", shm::SegmentKind::exchange, sizeof(shm::ExchangeSegment), 0, 0);
  }
  page_ = segment_.as<shm::ExchangeSegment>();
  // relaxed: X is the only writer of this file; a predecessor's stores are ordered by the kernel lock
  generation_ = page_->generation.load(std::memory_order_relaxed) + 1;
  shm::Environment::at(shm::CrashPoint::recover_begin);
  page_->state.store(static_cast<std::uint32_t>(shm::ExchangeState::recovering), std::memory_order_relaxed);
  page_->generation.store(generation_, std::memory_order_relaxed);  // relaxed: for people and messages
  served_ns_ = page_->served_ns.load(std::memory_order_relaxed);    // relaxed: as above

  topics_ = std::make_unique<control::TopicTable>(directory, generation_);
  publishers_.resize(shm::max_publishers);
  const std::vector<std::string> files = directory.list("");  // once: a bus may have tens of thousands
  raise_numbers(files);
  shm::Environment::at(shm::CrashPoint::recover_subscriptions);
  recover_subscriptions(files);
  shm::Environment::at(shm::CrashPoint::recover_publishers);
  recover_publishers();
  redo();  // decides as before; what the rules allow by now is for what comes
  redone_ = true;
  for (const auto& ingress : publishers_) {
    if (ingress && ingress->ring_page != nullptr) withdraw_topics(*ingress);
  }
  for (const auto& queue : queues_) {
    if (!queue) continue;
    if (is_moving(*queue)) recount(*queue, report_);  // what the redo has completed is to be counted by now
    if (queue->ephemeral && !queue->has_member()) {   // its member left while the exchange was dying
      remove_subscription(*queue);
      continue;
    }
    recover_slots(*queue);
    index_retries(*queue);
    queue->to_backlog = queue->goes_to_backlog();
    activate(*queue);
  }
  shm::Environment::at(shm::CrashPoint::recover_strays);
  remove_strays(files);
  shm::Environment::at(shm::CrashPoint::recover_end);
  // relaxed: read by people and tools only
  page_->state.store(static_cast<std::uint32_t>(shm::ExchangeState::running), std::memory_order_relaxed);
}

Exchange::~Exchange() = default;

void Exchange::close() {
  // relaxed: read by people and tools only
  page_->state.store(static_cast<std::uint32_t>(shm::ExchangeState::stopped), std::memory_order_relaxed);
}

void Exchange::activate(Queue& queue) {
  if (queue.active) return;
  queue.active = true;
  active_.push_back(&queue);
}

bool Exchange::step(std::uint64_t now_ns) {
  clock_ns_ = now_ns;
  std::size_t drained = 0;
  const std::size_t count = hot_.size();
  std::size_t held_up = count;
  // Always in the same order, so that between two looks at one publisher there is one batch of each other.
  for (std::size_t i = 0; i < count && i < hot_.size(); ++i) {
    Ingress& ingress = *hot_[i];
    if (!ingress.reader.readable()) {
      if (count == 1) ingress.reader.prefetch();  // so that the next record travels together with its tail
      continue;
    }
    if (drain(ingress, now_ns, 0, false)) {
      ++drained;
      ingress.last_moved_ns = now_ns;
    }
    if (std::exchange(short_of_room_, false)) held_up = i;
  }
  bool moved = drained != 0;
  // Whoever found no room is the first for whom there may be some: nobody else always takes it before.
  if (held_up < hot_.size()) std::rotate(hot_.begin(), hot_.begin() + held_up, hot_.begin() + held_up + 1);
  for (std::size_t i = 0; i < active_.size(); ++i) {
    // A batch more than may have come in: a backlog gets shorter under load, too.
    for (std::size_t batch = 0; batch <= drained && active_[i]->to_backlog && pump(*active_[i]); ++batch) moved = true;
  }
  if (last_values_) keep_last_values();
  return moved;
}

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
      routes_.refresh(route, topics_->text(route.topic), queues_);
    header.publisher = ingress.slot;
    if (header.flags != 0 || route.timed) [[unlikely]] {
      const RecordHeader copy = header;  // as above
      const std::byte* body = record + sizeof(RecordHeader);
      if (route.ids && is_known(copy, body, redoing)) {
        ++counts.duplicates;
        counts.sequence = copy.sequence;
        reader.advance(copy.bytes);
        continue;
      }
      if (!route_timed(route, copy, body, now_ns, redoing)) break;
      if (route.ids) remember_id(route, copy, now_ns, redoing);
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
    if (route.sinks.empty()) {
      ++counts.unroutable;
    } else {
      ++counts.routed;
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
  // relaxed: X's thread is the only writer
  if (header.topic != ingress.cursor->topics.load(std::memory_order_relaxed) + 1) return true;
  const std::size_t needed = shm::page_bytes + header.topic * sizeof(shm::Word32);
  if (needed <= ingress.cursor_segment.bytes() || needed > cursor_reserve_bytes) return true;
  try {
    const std::size_t doubled = std::min(2 * ingress.cursor_segment.bytes(), cursor_reserve_bytes);
    ingress.cursor_segment.grow(std::max(needed, doubled));
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool Exchange::define_topic(Ingress& ingress, const RecordHeader& header, const std::byte* text) {
  // relaxed: X's thread is the only writer
  const std::uint64_t defined = ingress.cursor->topics.load(std::memory_order_relaxed);
  if (header.topic - 1 < defined) return true;  // a redo comes by again
  if (header.topic != defined + 1 || header.payload_bytes > 255) return false;
  if (shm::page_bytes + header.topic * sizeof(shm::Word32) > ingress.cursor_segment.bytes()) return false;
  char copy[256];
  std::memcpy(copy, text, header.payload_bytes);  // read once: what is validated is what is interned
  asm volatile("" ::: "memory");
  const std::string_view topic(copy, header.payload_bytes);
  if (!control::valid_topic(topic)) return false;
  shm::Environment::at(shm::CrashPoint::route_topic);
  const bool allowed = ingress.permissions.may_publish(topic);
  const std::uint32_t number = allowed ? topics_->intern(topic) : shm::denied_topic;
  // relaxed: published by `topics`
  ingress.topic_map[header.topic - 1].store(number, std::memory_order_relaxed);
  // release(cursor.topics): the map's entries below it
  ingress.cursor->topics.store(defined + 1, std::memory_order_release);
  ingress.routes.push_back(allowed && number != shm::no_topic ? routes_.route_of(number) : nullptr);
  return true;
}

void Exchange::quarantine(Ingress& ingress, const std::string& why) {
  ingress.quarantined = true;
  ingress.cursor->quarantined.store(1, std::memory_order_relaxed);  // relaxed: a notice, nothing depends on its order
  note("publisher " + ingress.name + ": quarantined: " + (ingress.ring_segment.cut_short() ? cut_short : why));
}

// A client that comes back with new damage again and again must not fill X's memory with it.
void Exchange::note(std::string line) {
  constexpr std::size_t most_lines = 1000;
  if (report_.size() < most_lines) report_.push_back(std::move(line));
}

// ------------------------------------------------------------------------------------------------------------ waiting

void Exchange::tick(std::uint64_t now_ns) {
  serve(now_ns);
  now_ns_ = clock_ns_ = now_ns;
  if (shm::bus_errors() != bus_errors_) look_for_cut_files();
  page_->tick_ns.store(now_ns, std::memory_order_relaxed);  // relaxed: a sign of life for tools
  for (std::size_t i = 0; i < active_.size();) {
    Queue& queue = *active_[i];
    const auto leaves = [](const Lane& lane) { return lane.leaving; };
    if (!detach_members(queue, leaves)) continue;  // an ephemeral one has gone
    sweep(queue, now_ns);
    if (!detach_members(queue, leaves)) continue;  // whom the sweep distrusts has lost its place before it is told so
    (void)head_in_time(queue);
    if (queue.burying) bury_pending(queue);
    announce(queue);
    // The rings of a dispatched subscription's dead members are hand_over()'s, when it goes on.
    if (queue.has_orphans && (queue.paused || !queue.dispatched()))
      queue.has_orphans = !bring_back(queue) || queue.dispatched();
    if (queue.ending && !queue.has_member() && queue.block.dead_events == 0 && pending(queue) == 0 &&
        !has_unannounced(queue)) {
      if (!try_to_remove(queue)) ++i;
      continue;
    }
    if (queue.ephemeral && !queue.has_member()) {
      if (!try_to_remove(queue)) ++i;
      continue;
    }
    bool settled = queue.block.backlog_events == 0;
    queue.each_lane([&settled](const Lane& lane) { settled = settled && lane.floor_entry == lane.entries; });
    if (settled) queue.backlog.trim(queue.block.backlog_head);
    if (queue.block.retry_events == 0) queue.retry.trim(queue.block.retry_head);
    if (queue.block.dead_events == 0) queue.dead.trim(queue.block.dead_head);
    const bool waiting = queue.block.retry_events != 0 || queue.may_expire() || queue.burying || has_unannounced(queue);
    if (!waiting && (settled || !queue.has_member())) {
      queue.active = false;
      active_[i] = active_.back();
      active_.pop_back();
    } else {
      ++i;
    }
  }
  for (const auto& ingress : publishers_) {
    if (ingress && ingress->closing && ingress->ring_page != nullptr &&
        (ingress->quarantined || !ingress->reader.readable())) {
      retire_ingress(*ingress);
    }
  }
  std::erase_if(hot_, [](Ingress* ingress) {
    if (ingress->own) ingress->hot = ingress->reader.readable();  // X knows when it writes into it
    return !ingress->hot;
  });
  // Rings that are quiet cost a look each step: beyond a few, they leave the list and their publishers ring instead.
  constexpr std::size_t polled_anyway = 4;
  constexpr std::uint64_t quiet_ns = 20'000'000;
  if (hot_.size() <= polled_anyway) return;
  const auto quiet = [&](const Ingress* ingress) {
    return ingress->has_bell && now_ns - ingress->last_moved_ns > quiet_ns;
  };
  bool any = false;
  for (Ingress* ingress : hot_) {
    if (!quiet(ingress)) continue;
    ingress->cursor->not_polled.store(1, std::memory_order_relaxed);  // relaxed: ordered by the barrier below
    any = true;
  }
  if (!any) return;
  shm::barrier_for_parker();
  std::erase_if(hot_, [&](Ingress* ingress) {
    if (!quiet(ingress)) return false;
    ingress->hot = ingress->reader.readable();
    if (ingress->hot) ingress->cursor->not_polled.store(0, std::memory_order_relaxed);  // relaxed: polled again
    return !ingress->hot;
  });
}

bool Exchange::needs_tick() const noexcept {
  if (!active_.empty()) return true;
  for (const Ingress* ingress : hot_) {
    if ((!ingress->has_bell && !ingress->own) || ingress->closing) return true;
  }
  return false;
}

bool Exchange::prepare_park() {
  for (Ingress* ingress : hot_) {
    ingress->cursor->not_polled.store(1, std::memory_order_relaxed);  // relaxed: ordered by the barrier below
  }
  for (Queue* queue : active_) {
    queue->each_lane([queue](Lane& lane) {
      if (!lane.has_member() || !queue->wants_acks(lane)) return;
      lane.ring_page->acks_wanted.store(1, std::memory_order_relaxed);  // relaxed: ordered by the barrier below
    });
  }
  shm::barrier_for_parker();
  for (const Ingress* ingress : hot_) {
    // A ring that is full of blocked events is work only when its sink has room again; its sink will ring.
    if (!ingress->quarantined && ingress->reader.readable() && ingress->reader.position() == ingress->reader.limit()) {
      return false;
    }
  }
  for (Queue* queue : active_) {
    bool moved = false;
    queue->each_lane([&](Lane& lane) {
      const std::uint64_t floor = lane.floor_entry;
      if (queue->wants_acks(lane)) settle(lane);
      moved = moved || lane.floor_entry != floor;
    });
    if (moved) return false;
  }
  return true;
}

void Exchange::unpark() {
  for (Ingress* ingress : hot_) {
    ingress->cursor->not_polled.store(0, std::memory_order_relaxed);  // relaxed: a late look only rings once too often
  }
  for (Queue* queue : active_) {
    queue->each_lane([](Lane& lane) {
      if (lane.has_ring) lane.ring_page->acks_wanted.store(0, std::memory_order_relaxed);  // relaxed: as above
    });
  }
}

void Exchange::heat(Ingress& ingress) {
  if (ingress.hot || ingress.ring_page == nullptr) return;
  ingress.hot = true;
  hot_.push_back(&ingress);
  ingress.cursor->not_polled.store(0, std::memory_order_relaxed);  // relaxed: X polls from now on
}

}  // namespace ackring::exchange
