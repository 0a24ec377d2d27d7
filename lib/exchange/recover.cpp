// Recover: finds what earlier exchanges left in the directory and maps it. A clean bus and a torn one take this path; the
// open transaction is finished by redo.cpp afterwards.
#include <algorithm>
#include <charconv>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

// "sub.12.json", prefix "sub." → 12; 0 where there is no number.
std::uint64_t number_after(std::string_view name, std::size_t prefix) {
  std::uint64_t number = 0;
  std::from_chars(name.data() + std::min(prefix, name.size()), name.data() + name.size(), number);
  return number;
}

}  // namespace

void Exchange::recover_subscriptions(const std::vector<std::string>& files) {
  std::unordered_map<std::uint64_t, std::vector<std::string>> by_subscription;
  for (const std::string& name : files) {
    if (name.starts_with("sub.")) by_subscription[number_after(name, 4)].push_back(name);
  }
  for (const auto& [id, names] : by_subscription) {
    const std::string definition = "sub." + std::to_string(id) + ".json";
    if (std::find(names.begin(), names.end(), definition) == names.end()) {
      for (const std::string& name : names) directory_.remove(name);  // a subscription that was being made or removed
      continue;
    }
    auto queue = std::make_unique<Queue>(directory_, id, generation_);
    try {
      const control::Json json = control::Json::parse(directory_.read_file(definition));
      queue->options = control::options_from_json(json.at("name"), json.at("patterns"), json.at("options"));
      queue->ephemeral = json.at("ephemeral");
      queue->state_segment = shm::Segment::attach(directory_, "sub." + std::to_string(id) + ".state",
                                                  shm::SegmentKind::subscription, shm::Access::read_write);
      queue->state_segment.close_fd();
      queue->state = queue->state_segment.as<shm::SubscriptionSegment>();
      queue->block = shm::read_block(queue->state->version, queue->state->blocks);
      queue->entries = queue->block.entries;
      queue->floor_entry = queue->taken = queue->entries;
      // acquire(backlog.tail): the records before it
      queue->backlog.open(queue->block.backlog_head, queue->state->backlog_tail.load(std::memory_order_acquire), names);
      for (const std::string& name : names) {
        const std::string prefix = "sub." + std::to_string(id) + ".ring.";
        if (!name.starts_with(prefix) || name.ends_with(".tmp")) continue;
        const std::uint64_t incarnation = number_after(name, prefix.size());
        if (incarnation <= queue->block.retired_ring) {
          directory_.remove(name);
          continue;
        }
        queue->ring_incarnation = incarnation;
        map_ring(*queue);
      }
      recover_ring(*queue);
      const std::string acks = "sub." + std::to_string(id) + ".ack.";
      for (const std::string& name : names) {  // of incarnations that have ended
        if (name.starts_with(acks) && name != ack_name(id, queue->ack_incarnation)) directory_.remove(name);
      }
    } catch (const std::exception& error) {
      report_.push_back("subscription file " + definition + ": damaged, set aside: " + error.what());
      for (const std::string& name : names) {
        if (directory_.exists(name)) directory_.rename(name, "damaged." + name);
      }
      continue;
    }
    add_queue(std::move(queue));
  }
}

// Counts the entries of an adopted ring, and finds its member's ack page.
void Exchange::recover_ring(Queue& queue) {
  if (!queue.has_ring) return;
  queue.ring_block = shm::read_block(queue.ring_page->version, queue.ring_page->blocks);
  queue.floor_entry = queue.ring_block.floor_entry;
  queue.ring.set_head(queue.ring_block.floor_position);
  queue.entries = queue.floor_entry;
  ring::RingReader reader(queue.ring.data(), queue.ring.ring_bytes(), &queue.ring_page->tail,
                          queue.ring_block.floor_position);
  while (const std::byte* record = reader.peek()) {
    const std::uint32_t bytes = reinterpret_cast<const shm::RecordHeader*>(record)->bytes;
    if (bytes == 0 || queue.entries - queue.floor_entry > queue.slot_mask) {
      throw Error(ErrorCode::damaged, ring_name(queue.id, queue.ring_incarnation), "a record in it has no length");
    }
    reader.advance(bytes);
    queue.ends[queue.entries & queue.slot_mask] = static_cast<std::uint32_t>(reader.position());
    ++queue.entries;
  }
  // State bytes below the floor mean nothing; what a crash left of them is cleared before their slots are used again.
  const std::uint64_t open = queue.entries - queue.floor_entry;
  for (std::uint64_t slot = 0; slot < queue.slots(); ++slot) {
    // acquire(delivery.state): the move that the byte stands for
    if (queue.states[slot].load(std::memory_order_acquire) == 0) continue;
    if (((slot - queue.floor_entry) & queue.slot_mask) < open) {
      ++queue.decided;
    } else {
      queue.states[slot].store(0, std::memory_order_relaxed);  // relaxed: means nothing
    }
  }
  queue.taken = queue.floor_entry;
  queue.client = queue.ring_page->client.load(std::memory_order_relaxed);  // relaxed: published by ack_page
  // acquire(ring.ack_page): client belongs to it
  queue.ack_incarnation = queue.ring_page->ack_page.load(std::memory_order_acquire);
  if (queue.ack_incarnation == 0) {
    queue.client = 0;
    return;
  }
  const std::string name = ack_name(queue.id, queue.ack_incarnation);
  queue.ack_segment = shm::Segment::attach(directory_, name, shm::SegmentKind::ack_page, shm::Access::read_only);
  if (queue.ack_segment.bytes() < ring::ack_page_bytes(queue.slots())) {
    throw Error(ErrorCode::damaged, name, "it is shorter than its ring's slots need");
  }
  queue.acks = ring::AckReader(queue.ack_segment.as<shm::AckPage>(), queue.slots());
  const std::uint64_t taken = queue.acks.taken();
  if (taken - queue.floor_entry <= open) queue.taken = taken;
  queue.timed_out_below = queue.floor_entry;
}

void Exchange::recover_publishers() {
  for (std::size_t slot = 0; slot < shm::max_publishers; ++slot) {
    const shm::PublisherEntry& entry = page_->publishers[slot];
    // acquire(publisher.state): the name
    if (entry.state.load(std::memory_order_acquire) == 0) continue;
    auto ingress = std::make_unique<Ingress>();
    ingress->slot = static_cast<std::uint16_t>(slot);
    ingress->name = entry.name.data();
    ingress->incarnation =
        entry.incarnation.load(std::memory_order_acquire);           // acquire(publisher.incarnation): its files
    ingress->client = entry.client.load(std::memory_order_relaxed);  // relaxed: before incarnation
    if (ingress->incarnation != 0) {
      try {
        map_ingress(*ingress);
      } catch (const Error& error) {
        report_.push_back("publisher " + ingress->name + ": damaged, set aside: " + error.what());
        for (const std::string& name :
             {ingress_name(ingress->slot, ingress->incarnation), cursor_name(ingress->slot, ingress->incarnation)}) {
          if (directory_.exists(name)) directory_.rename(name, "damaged." + name);
        }
        *ingress = Ingress{};
        ingress->slot = static_cast<std::uint16_t>(slot);
        ingress->name = entry.name.data();
      }
    }
    if (ingress->ring_page != nullptr) {
      // Its client can't ring until it has connected again, so the ring is polled.
      ingress->hot = true;
      ingress->closing = ingress->client == 0;
      hot_.push_back(ingress.get());
      ingress->cursor->not_polled.store(0, std::memory_order_relaxed);  // relaxed: polled from now on
    }
    publishers_[slot] = std::move(ingress);
  }
}

// Files that nothing names any more: temporary ones, and those of publishers' incarnations that have ended.
void Exchange::remove_strays(const std::vector<std::string>& files) {
  for (const std::string& name : files) {
    if (name.ends_with(".tmp")) directory_.remove(name);
    if (!name.starts_with("pub.")) continue;
    const std::uint64_t slot = number_after(name, 4);
    const Ingress* ingress = slot < publishers_.size() ? publishers_[slot].get() : nullptr;
    if (ingress != nullptr && ingress->incarnation != 0 &&
        (name == ingress_name(ingress->slot, ingress->incarnation) ||
         name == cursor_name(ingress->slot, ingress->incarnation))) {
      continue;
    }
    directory_.remove(name);
  }
}

}  // namespace ackring::exchange
