// Recover: finds what earlier exchanges left in the directory and maps it. A clean bus and a torn one take this path; the
// open transaction is finished by redo.cpp afterwards.
#include <signal.h>

#include <algorithm>
#include <future>
#include <system_error>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/latency.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/utf8.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

constexpr std::size_t worth_a_thread = 64;  // subscriptions

// X walks its own ring without a further look. Throws Error (damaged).
void check_own_ring(ring::RingReader reader) {
  shm::RecordHeader header;
  const std::byte* record = nullptr;
  bool sound = reader.refresh();
  ring::ReadStatus status = ring::ReadStatus::empty;
  while (sound && (status = reader.read_checked(header, record)) == ring::ReadStatus::record)
    reader.advance(header.bytes);
  if (!sound || status == ring::ReadStatus::damaged) {
    throw Error(ErrorCode::damaged, "the ring of the exchange's own publisher", "a record in it is not a possible one");
  }
}

}  // namespace

struct Exchange::FoundSubscription {
  std::uint64_t id = 0;
  std::vector<std::string> names;
  std::unique_ptr<Queue> queue;  // nullptr: it is none, or damaged
  std::string damage;
  std::vector<Notice> notes;  // for the report
};

void Exchange::recover_subscriptions(const std::vector<std::string>& files) {
  std::vector<FoundSubscription> found;
  std::unordered_map<std::uint64_t, std::size_t> places;
  for (const std::string& name : files) {
    if (!name.starts_with("sub.")) continue;
    const std::uint64_t id = number_after(name, 4);
    const auto [at, fresh] = places.emplace(id, found.size());
    if (fresh) found.emplace_back().id = id;
    found[at->second].names.push_back(name);
  }
  // Most of it is opening and mapping files: two threads halve the time that a large bus is without an exchange.
  const auto recover = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) recover_subscription(found[i]);
  };
  std::size_t half = 0;
  std::future<void> helper;
  if (found.size() >= worth_a_thread) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::sigdelset(&all, SIGBUS);                      // a fault is for the thread that makes it
    ::pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's signals are for the program's threads
    try {
      helper = std::async(std::launch::async, recover, 0, found.size() / 2);
      half = found.size() / 2;
    } catch (const std::system_error&) {
      // No second thread: this one does it all.
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  recover(half, found.size());
  if (helper.valid()) helper.get();

  for (FoundSubscription& subscription : found) {
    report_.insert(report_.end(), subscription.notes.begin(), subscription.notes.end());
    if (subscription.queue && find_queue(subscription.queue->options.name) != nullptr) {
      subscription.damage = "another subscription has its name, " + subscription.queue->options.name;
      subscription.queue.reset();
    }
    if (subscription.queue) {
      const Queue& queue = add_queue(std::move(subscription.queue));
      queue.each_lane([&](const Lane& lane) {
        if (!lane.leaving) return;
        report_.push_back(
            {Notice::Level::warning,
             "member.distrusted",
             "subscription " + queue.options.name +
                 ": the ack page of a member is damaged: it counts as dead, what it held is delivered again",
             {{"subscription", queue.options.name}}});
      });
    }
    if (subscription.damage.empty()) continue;
    report_.push_back(
        {Notice::Level::error,
         "recovery.damaged",
         "subscription " + std::to_string(subscription.id) + ": damaged, set aside: " + subscription.damage,
         {{"number", subscription.id}, {"why", subscription.damage}}});
    for (const std::string& name : subscription.names) {
      if (directory_.exists(name)) directory_.rename(name, "damaged." + name);
    }
  }
}

// Any thread: it touches nothing but this subscription.
void Exchange::recover_subscription(FoundSubscription& found) {
  const std::string prefix = "sub." + std::to_string(found.id);
  const std::string definition = prefix + ".json";
  if (std::find(found.names.begin(), found.names.end(), definition) == found.names.end()) {
    for (const std::string& name : found.names) directory_.remove(name);  // one that was being made or removed
    return;
  }
  auto queue = std::make_unique<Queue>(directory_, found.id, generation_);
  try {
    const control::Json json = control::Json::parse(directory_.read_file(definition));
    if (json.value("beginning", false)) {  // nobody has been told that it exists
      for (const std::string& name : found.names) directory_.remove(name);
      return;
    }
    queue->set_options(control::options_from_json(json.at("name"), json.at("patterns"), json.at("options")));
    queue->ephemeral = json.at("ephemeral");
    queue->paused = json.at("paused");
    queue->ending = json.at("ending");
    queue->burying = json.at("burying");
    if (queue->options.name.empty()) throw Error(ErrorCode::damaged, definition, "it gives no name");
    queue->state_segment =
        shm::Segment::attach(directory_, prefix + ".state", shm::SegmentKind::subscription, shm::Access::read_write);
    queue->state_segment.close_fd();
    check_bytes(queue->state_segment, sizeof(shm::SubscriptionSegment));
    queue->state = queue->state_segment.as<shm::SubscriptionSegment>();
    queue->block = shm::read_block(queue->state->version, queue->state->blocks);
    queue->dead_reasons = shm::read_block(queue->state->dead_version, queue->state->dead_reasons);
    check_block(*queue->state, queue->block, *page_, prefix + ".state");
    queue->shard = shard_of(*queue->state);
    if (queue->shard != 0 && control::is_reserved(queue->options.name)) {
      throw Error(ErrorCode::damaged, prefix + ".state", "what the exchange itself consumes is never another shard's");
    }
    queue->lane.entries = queue->block.entries;
    queue->lane.floor_entry = queue->lane.taken = queue->lane.entries;
    // acquire(backlog.tail): the records before it
    const std::uint64_t backlog_tail = queue->state->backlog_tail.load(std::memory_order_acquire);
    queue->backlog.open(queue->block.backlog_head, backlog_tail, found.names);
    // acquire(retry.tail): the records before it
    const std::uint64_t retry_tail = queue->state->retry_tail.load(std::memory_order_acquire);
    queue->retry.open(queue->block.retry_head, retry_tail, found.names);
    // acquire(dead.tail): the records before it
    const std::uint64_t dead_tail = queue->state->dead_tail.load(std::memory_order_acquire);
    queue->dead.open(queue->block.dead_head, dead_tail, found.names);
    const std::string rings = prefix + ".ring.";
    for (const std::string& name : found.names) {
      if (!name.starts_with(rings) || name.ends_with(".tmp")) continue;
      const std::uint64_t incarnation = number_after(name, rings.size());
      if (incarnation == queue->block.retired_ring) {
        queue->ring_left = !directory_.remove(name);
        continue;
      }
      if (incarnation > largest_number || name != ring_name(found.id, incarnation)) {
        throw Error(ErrorCode::damaged, name, "no exchange gave it this name");
      }
      if (!queue->dispatched() && queue->lane.has_ring) {
        throw Error(ErrorCode::damaged, name, "the subscription has another ring already");
      }
      if (queue->dispatched()) queue->members.push_back(std::make_unique<Lane>(*queue));
      Lane& lane = queue->dispatched() ? *queue->members.back() : queue->lane;
      lane.ring_incarnation = incarnation;
      map_ring(lane);
      if (queue->dispatched() && (lane.ring_page->number == 0 || lane.ring_page->number > 65'535 ||
                                  queue->find_member(lane.ring_page->number) != nullptr)) {
        throw Error(ErrorCode::damaged, name,
                    "its member can't have the number " + std::to_string(lane.ring_page->number));
      }
      lane.number = static_cast<std::uint16_t>(lane.ring_page->number);
      recover_ring(lane);
      // What was not taken, and is in the ring of nobody, or was taken back, goes to other members.
      if (!lane.has_member() || static_cast<std::int64_t>(lane.revoked_to - lane.floor_entry) > 0) {
        queue->has_orphans = true;
      }
    }
    const std::string acks = prefix + ".ack.";
    for (const std::string& name : found.names) {  // of incarnations that have ended
      bool current = false;
      queue->each_lane(
          [&](const Lane& lane) { current = current || name == ack_name(found.id, lane.ack_incarnation); });
      if (name.starts_with(acks) && !current) directory_.remove(name);
    }
    recount(*queue, found.notes);
    found.queue = std::move(queue);
  } catch (const Error& error) {
    if (passes(error.code())) throw;
    found.damage = error.what();
  } catch (const std::bad_alloc&) {
    throw;  // no damage, either
  } catch (const std::exception& error) {
    found.damage = error.what();
  }
}

// Counts the entries of an adopted ring, and finds its member's ack page.
void Exchange::recover_ring(Lane& lane) {
  Queue& queue = *lane.queue;
  lane.ring_block = shm::read_block(lane.ring_page->version, lane.ring_page->blocks);
  lane.floor_entry = lane.ring_block.floor_entry;
  lane.ring.set_head(lane.ring_block.floor_position);
  lane.entries = lane.floor_entry;
  const std::string name = ring_name(queue.id, lane.ring_incarnation);
  const Known known{*page_, *peers_->topics};
  const std::uint64_t n =
      last_intent(*page_, queue.shard).n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  // acquire(sink.n): base belongs to n
  const bool written = lane.ring_page->sink.n.load(std::memory_order_acquire) == n;
  const std::uint64_t base = lane.ring_page->sink.base.load(std::memory_order_relaxed);  // relaxed: after n
  const auto count = [&](std::uint64_t position) {
    if (lane.entries - lane.floor_entry > lane.slot_mask) {
      throw Error(ErrorCode::damaged, name, "it holds more records than entries");
    }
    lane.ends[lane.entries & lane.slot_mask] = static_cast<std::uint32_t>(position);
    ++lane.entries;
  };
  check_ring(lane.ring.data(), *lane.ring_page, lane.ring_block.floor_position, written && n != 0 ? &base : nullptr,
             name, known, count);
  // State bytes below the floor mean nothing, but have to be zero when their slots are used again. Whoever moves the floor
  // clears those that it passes before it moves again, so only the last move can have left any: those from the floor of
  // the other copy of the block on. Where the death tore that copy, it has that floor still, or the next one, and then the
  // last move was through.
  const std::uint64_t open = lane.entries - lane.floor_entry;
  // relaxed: X is the only writer
  const std::uint64_t other = (lane.ring_page->version.load(std::memory_order_relaxed) & 1) ^ 1;
  const std::uint64_t passed = lane.floor_entry - lane.ring_page->blocks[other].floor_entry;
  const std::uint64_t unclear = static_cast<std::int64_t>(passed) > 0 ? std::min(passed, lane.slots() - open) : 0;
  for (std::uint64_t entry = lane.floor_entry - unclear; entry != lane.floor_entry; ++entry) {
    if (lane.state_of(entry) == 0) continue;
    lane.states[entry & lane.slot_mask].store(0, std::memory_order_relaxed);  // relaxed: means nothing
  }
  for (std::uint64_t entry = lane.floor_entry; entry != lane.entries; ++entry) {
    // acquire(delivery.state): the move that the byte stands for
    if (lane.states[entry & lane.slot_mask].load(std::memory_order_acquire) != 0) ++lane.decided;
  }
  // An order that the dead one had not told everybody. A store only where it is another: a bus may have thousands of rings.
  const std::uint32_t order = queue.state->breaker_order.load(std::memory_order_relaxed);  // relaxed: X's own word
  if (lane.ring_page->breaker_order.load(std::memory_order_relaxed) != order) {            // relaxed: as above
    lane.ring_page->breaker_order.store(order, std::memory_order_relaxed);                 // relaxed: a word by itself
  }
  lane.taken = lane.floor_entry;
  lane.client = lane.ring_page->client.load(std::memory_order_relaxed);  // relaxed: published by ack_page
  // acquire(ring.ack_page): client belongs to it
  lane.ack_incarnation = lane.ring_page->ack_page.load(std::memory_order_acquire);
  if (lane.ack_incarnation != 0 && lane.ack_incarnation == kept_latency(*queue.state).ack_page) {
    // It was leaving, and its latencies are kept: only this store was left of that.
    // release(ring.ack_page): everything taken is decided
    lane.ring_page->ack_page.store(0, std::memory_order_release);
    lane.ack_incarnation = 0;  // its file is one of an incarnation that has ended
  }
  if (lane.ack_incarnation == 0) {
    lane.client = 0;
    return;
  }
  if (!attach_ack_page(lane)) {
    create_ack_page(lane, lane.floor_entry, lane.entries);
    lane.leaving = true;
    if (!attach_ack_page(lane)) throw Error(ErrorCode::damaged, ack_name(queue.id, lane.ack_incarnation), "just made");
  }
  lane.acks = ring::AckReader(lane.ack_segment.as<shm::AckPage>(), lane.slots());
  lane.seen = lane.acks.marks();
  if (lane.seen.taken - lane.floor_entry <= open) lane.taken = lane.seen.taken;
  if (lane.client == 0) {  // X had found that this page is not to be believed
    lane.leaving = lane.distrusted = true;
    lane.taken = lane.entries;
  }
  lane.revoked_from = lane.taken;
  lane.revoked_to = lane.ring_page->revoked.load(std::memory_order_relaxed);  // relaxed: X's own word
  adopt_marks(lane, served_ns_);
}

// False: its member, who can write there, has left something else in it. Nobody but him is to suffer for that: he counts
// as dead, having taken all that was in his ring.
bool Exchange::attach_ack_page(Lane& lane) {
  const std::string name = ack_name(lane.queue->id, lane.ack_incarnation);
  try {
    lane.ack_segment = shm::Segment::attach(directory_, name, shm::SegmentKind::ack_page, shm::Access::read_only);
  } catch (const Error& error) {
    if (passes(error.code())) throw;
    return false;
  }
  return lane.ack_segment.bytes() >= ring::ack_page_bytes(lane.slots());
}

void Exchange::recover_publishers() {
  for (std::size_t slot = 0; slot < shm::max_publishers; ++slot) {
    // acquire(publisher.state): the name
    if (page_->publishers[slot].state.load(std::memory_order_acquire) != 0) recover_publisher(slot);
  }
}

void Exchange::recover_publisher(std::size_t slot) {
  const shm::PublisherEntry& entry = page_->publishers[slot];
  const auto make = [&] {
    auto ingress = std::make_unique<Ingress>();
    ingress->slot = static_cast<std::uint16_t>(slot);
    ingress->name = shm::printable(entry.name.data());
    return ingress;
  };
  for_each_shard([&](Exchange& shard) {
    shard.publishers_[slot] = make();
    Ingress& ingress = *shard.publishers_[slot];
    ingress.own = entry.state.load(std::memory_order_relaxed) ==  // relaxed: as above
                  static_cast<std::uint32_t>(shm::PublisherState::exchange);
    ingress.incarnation =
        entry.incarnation.load(std::memory_order_acquire);          // acquire(publisher.incarnation): its files
    ingress.client = entry.client.load(std::memory_order_relaxed);  // relaxed: before incarnation
  });
  const Ingress& of_lead = *publishers_[slot];
  if (of_lead.incarnation == 0) return;
  try {
    for_each_shard([&](Exchange& shard) {
      shard.map_ingress(*shard.publishers_[slot], &shard == this ? nullptr : &of_lead);
      if (of_lead.own && of_lead.ring_page != nullptr) check_own_ring(shard.publishers_[slot]->reader);
    });
  } catch (const Error& error) {
    if (passes(error.code())) throw;
    report_.push_back({Notice::Level::error,
                       "recovery.damaged",
                       "publisher " + of_lead.name + ": damaged, set aside: " + error.what(),
                       {{"publisher", of_lead.name}, {"why", std::string(error.what())}}});
    for (const std::string& name :
         {ingress_name(of_lead.slot, of_lead.incarnation), cursor_name(of_lead.slot, of_lead.incarnation)}) {
      if (directory_.exists(name)) directory_.rename(name, "damaged." + name);
    }
    // release(publisher.incarnation): it has no files any more
    page_->publishers[slot].incarnation.store(0, std::memory_order_release);
    for_each_shard([&](Exchange& shard) { shard.publishers_[slot] = make(); });
    return;
  }
  if (of_lead.ring_page == nullptr) return;
  // Its client can't ring until it has connected again, so the ring is polled.
  of_lead.first().not_polled.store(0, std::memory_order_relaxed);  // relaxed: polled from now on
  for_each_shard([&](Exchange& shard) {
    Ingress& ingress = *shard.publishers_[slot];
    ingress.hot = true;
    ingress.closing = ingress.client == 0 && !ingress.own;
    shard.hot_.push_back(&ingress);
  });
}

// Files that nothing names any more: temporary ones, and those of publishers' incarnations that have ended.
void Exchange::remove_strays(const std::vector<std::string>& files) {
  // From the last one on: a ring before its cursor, which says how far it was read.
  for (auto at = files.rbegin(); at != files.rend(); ++at) {
    const std::string& name = *at;
    if (name.ends_with(".tmp")) directory_.remove(name);
    if (name.starts_with("client.")) client_files_.push_back(name);
    if (!name.starts_with("pub.")) continue;
    const std::uint64_t slot = number_after(name, 4);
    const std::size_t kind = std::min(name.find(".ring."), name.size());
    const std::string cursor_file = name.substr(0, kind) + ".cursor." + name.substr(std::min(kind + 6, name.size()));
    const Ingress* ingress = slot < publishers_.size() ? publishers_[slot].get() : nullptr;
    if (ingress != nullptr && ingress->incarnation != 0 &&
        (name == ingress_name(ingress->slot, ingress->incarnation) ||
         name == cursor_name(ingress->slot, ingress->incarnation))) {
      continue;
    }
    if (!directory_.exists(name)) continue;  // it has been set aside just now
    if (kind != name.size() && holds_events(name, cursor_file)) {
      report_.push_back({Notice::Level::error,
                         "recovery.damaged",
                         name + ": nothing names this ring of a publisher, and it holds events: set aside",
                         {{"file", name}}});
      directory_.rename(name, "damaged." + name);
      if (directory_.exists(cursor_file)) directory_.rename(cursor_file, "damaged." + cursor_file);
      continue;
    }
    directory_.remove(name);
  }
}

}  // namespace ackring::exchange
