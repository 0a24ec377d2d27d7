// Membership: publishers and members come and go. Each change counts by one store or one rename; what a crash leaves
// unfinished before it is removed by recovery, and repeated after it.
#include <algorithm>
#include <bit>
#include <cstring>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

constexpr std::size_t cursor_first_bytes = shm::page_bytes + 1024 * sizeof(shm::Word32);

std::uint64_t states_bytes(std::uint64_t slots) { return (slots + shm::page_bytes - 1) & ~(shm::page_bytes - 1); }

}  // namespace

std::uint64_t Exchange::next_file() {
  const std::uint64_t number = page_->next_file.load(std::memory_order_relaxed) + 1;  // relaxed: X is the only writer
  page_->next_file.store(number, std::memory_order_relaxed);  // relaxed: a number that is skipped harms nothing
  return number;
}

std::uint64_t Exchange::new_client() {
  const std::uint64_t number = page_->next_client.load(std::memory_order_relaxed) + 1;  // relaxed: X is the only writer
  page_->next_client.store(number, std::memory_order_relaxed);                          // relaxed: as above
  return number;
}

std::string Exchange::ring_name(std::uint64_t queue, std::uint64_t incarnation) {
  return "sub." + std::to_string(queue) + ".ring." + std::to_string(incarnation);
}
std::string Exchange::ack_name(std::uint64_t queue, std::uint64_t incarnation) {
  return "sub." + std::to_string(queue) + ".ack." + std::to_string(incarnation);
}
std::string Exchange::ingress_name(std::uint16_t slot, std::uint64_t incarnation) {
  return "pub." + std::to_string(slot) + ".ring." + std::to_string(incarnation);
}
std::string Exchange::cursor_name(std::uint16_t slot, std::uint64_t incarnation) {
  return "pub." + std::to_string(slot) + ".cursor." + std::to_string(incarnation);
}

// ---------------------------------------------------------------------------------------------------------- publishers

PublisherGrant Exchange::attach_publisher(std::uint64_t client, const std::string& name, std::uint64_t ring_bytes) {
  if (!name.empty()) shm::check_name("publisher", name);
  if (!std::has_single_bit(ring_bytes) || ring_bytes < limits::min_ring_bytes || ring_bytes > limits::max_ring_bytes) {
    throw Error(ErrorCode::invalid_argument, "publisher ring of " + std::to_string(ring_bytes) + " bytes",
                "the size must be a power of two from 4 KiB to 1 GiB", "choose such a ring_bytes");
  }
  Ingress* found = nullptr;
  std::size_t free_slot = publishers_.size();
  for (std::size_t slot = 0; slot < publishers_.size(); ++slot) {
    Ingress* ingress = publishers_[slot].get();
    if (ingress == nullptr) {
      if (free_slot == publishers_.size()) free_slot = slot;
      continue;
    }
    // relaxed: X is the only writer
    const auto state = static_cast<shm::PublisherState>(page_->publishers[slot].state.load(std::memory_order_relaxed));
    const bool anonymous = state == shm::PublisherState::anonymous;
    const bool unused = ingress->ring_page == nullptr || (ingress->closing && !ingress->reader.readable());
    if (name.empty() ? anonymous && unused : ingress->name == name) {
      found = ingress;
      break;
    }
  }
  if (found != nullptr && found->ring_page != nullptr) {
    if (found->closing && !found->quarantined) {
      // The earlier holder is gone: what it committed is routed first, so that order holds.
      while (found->reader.readable() && drain(*found, 0, 0, false)) {
      }
      if (!found->reader.readable()) retire_ingress(*found);
    } else if (found->closing) {
      retire_ingress(*found);
    }
    if (found->ring_page != nullptr) {
      throw Error(ErrorCode::busy, "publisher '" + name + "'",
                  found->closing ? "events of its earlier run wait for a subscription that is full"
                                 : "a live client holds the name",
                  "wait for it, or use another name");
    }
  }
  if (found == nullptr) {
    if (free_slot == publishers_.size()) {
      throw Error(ErrorCode::no_space, "publisher '" + name + "'", "the bus has its 1,024 publishers already",
                  "close some, or reuse names");
    }
    auto fresh = std::make_unique<Ingress>();
    fresh->slot = static_cast<std::uint16_t>(free_slot);
    fresh->name = name.empty() ? "p" + std::to_string(free_slot) : name;
    shm::PublisherEntry& entry = page_->publishers[free_slot];
    std::array<char, shm::name_bytes> text{};
    fresh->name.copy(text.data(), text.size() - 1);
    shm::shared_copy(entry.name.data(), text.data(), text.size());
    const auto state = name.empty() ? shm::PublisherState::anonymous : shm::PublisherState::named;
    entry.state.store(static_cast<std::uint32_t>(state),
                      std::memory_order_release);  // release(publisher.state): the name
    found = fresh.get();
    publishers_[free_slot] = std::move(fresh);
  }

  const std::uint64_t incarnation = next_file();
  const std::uint64_t old = found->incarnation;
  const std::string ring_file = ingress_name(found->slot, incarnation);
  const std::string cursor_file = cursor_name(found->slot, incarnation);
  shm::IngressBlock block = found->block;  // totals and sequence go on
  block.consumed = 0;
  {
    const shm::Segment ring = shm::Segment::create(
        directory_, ring_file, shm::SegmentKind::ingress_ring, shm::page_bytes + ring_bytes, generation_, found->slot,
        [&](std::byte* base) {
          auto* page = reinterpret_cast<shm::IngressRing*>(base);
          page->ring_bytes = ring_bytes;
          page->start_position = 0;
          page->sequence.store(block.sequence, std::memory_order_relaxed);  // relaxed: nobody knows the file yet
        });
  }
  try {
    const shm::Segment cursor = shm::Segment::create(
        directory_, cursor_file, shm::SegmentKind::ingress_cursor, cursor_first_bytes, generation_, found->slot,
        [&](std::byte* base) {
          auto* page = reinterpret_cast<shm::IngressCursor*>(base);
          page->first_sequence.store(block.sequence + 1, std::memory_order_relaxed);  // relaxed: nobody knows the file
          page->blocks[0] = block;
        });
  } catch (const Error&) {
    directory_.remove(ring_file);
    throw;
  }
  shm::PublisherEntry& entry = page_->publishers[found->slot];
  entry.client.store(client, std::memory_order_relaxed);            // relaxed: published by incarnation
  entry.incarnation.store(incarnation, std::memory_order_release);  // release(publisher.incarnation): its files count
  if (old != 0) directory_.remove(cursor_name(found->slot, old));
  found->incarnation = incarnation;
  found->client = client;
  found->closing = false;
  found->quarantined = false;
  found->routes.clear();
  map_ingress(*found);
  heat(*found);
  return {found->slot, incarnation, found->name, block.sequence + 1, ring_file, cursor_file};
}

void Exchange::map_ingress(Ingress& ingress) {
  const std::string cursor_file = cursor_name(ingress.slot, ingress.incarnation);
  ingress.cursor_segment = shm::Segment::attach(directory_, cursor_file, shm::SegmentKind::ingress_cursor,
                                                shm::Access::read_write, cursor_reserve_bytes);
  ingress.cursor = ingress.cursor_segment.as<shm::IngressCursor>();
  ingress.topic_map = ingress.cursor_segment.as<shm::Word32>(shm::page_bytes);
  ingress.block = shm::read_block(ingress.cursor->version, ingress.cursor->blocks);
  ingress.quarantined = ingress.cursor->quarantined.load(std::memory_order_relaxed) != 0;  // relaxed: X's own word
  const std::string ring_file = ingress_name(ingress.slot, ingress.incarnation);
  if (!directory_.exists(ring_file)) return;  // retired: only the totals are left
  ingress.ring_segment =
      shm::Segment::attach(directory_, ring_file, shm::SegmentKind::ingress_ring, shm::Access::read_only);
  ingress.ring_page = ingress.ring_segment.as<shm::IngressRing>();
  const std::uint64_t ring_bytes = ingress.ring_page->ring_bytes;
  if (!std::has_single_bit(ring_bytes) || shm::page_bytes + ring_bytes > ingress.ring_segment.bytes()) {
    throw Error(ErrorCode::damaged, ring_file, "its size does not fit its file");
  }
  ingress.reader = ring::RingReader(ingress.ring_segment.data() + shm::page_bytes, ring_bytes, &ingress.ring_page->tail,
                                    ingress.block.consumed);
  // A crash between the block and the word: the block counts.
  ingress.cursor->consumed.store(ingress.block.consumed,
                                 std::memory_order_release);  // release(ingress.consumed): all of it was read
  // acquire(cursor.topics): the map's entries below it
  const std::uint64_t topics = ingress.cursor->topics.load(std::memory_order_acquire);
  ingress.routes.clear();
  for (std::uint64_t i = 0; i < topics; ++i) {
    const std::uint32_t number = ingress.topic_map[i].load(std::memory_order_relaxed);  // relaxed: published by topics
    ingress.routes.push_back(number == 0 ? nullptr : routes_.route_of(number));
  }
}

void Exchange::detach_publisher(Ingress& ingress) {
  if (ingress.ring_page == nullptr || ingress.closing) return;
  page_->publishers[ingress.slot].client.store(0, std::memory_order_relaxed);  // relaxed: X's own word
  ingress.client = 0;
  ingress.closing = true;
  ingress.has_bell = false;
  ingress.bell = shm::Bell{};
  heat(ingress);
}

void Exchange::retire_ingress(Ingress& ingress) {
  std::erase(hot_, &ingress);
  ingress.hot = false;
  ingress.closing = false;
  ingress.ring_page = nullptr;
  ingress.reader = ring::RingReader{};
  directory_.remove(ingress_name(ingress.slot, ingress.incarnation));
  ingress.ring_segment = shm::Segment{};
}

// ------------------------------------------------------------------------------------------------------------- members

void Exchange::create_ring(Lane& lane) {
  Queue& queue = *lane.queue;
  const std::uint64_t slots = std::bit_ceil(std::uint64_t{queue.options.max_in_flight});
  const std::uint64_t ring_bytes = queue.options.ring_bytes;
  const std::uint64_t incarnation = next_file();
  shm::Segment::create(directory_, ring_name(queue.id, incarnation), shm::SegmentKind::member_ring,
                       shm::page_bytes + states_bytes(slots) + ring_bytes, generation_, queue.id, [&](std::byte* base) {
                         auto* page = reinterpret_cast<shm::MemberRing*>(base);
                         page->ring_bytes = ring_bytes;
                         page->slots = slots;
                         page->start_entry = lane.entries;
                         page->blocks[0].floor_entry = lane.entries;
                       });
  lane.ring_incarnation = incarnation;
  map_ring(lane);
  lane.ring_block = shm::read_block(lane.ring_page->version, lane.ring_page->blocks);
  lane.floor_entry = lane.taken = lane.entries;
  lane.decided = 0;
  queue.to_backlog = queue.dispatched() || queue.block.backlog_events != 0;
}

void Exchange::map_ring(Lane& lane) {
  const std::string name = ring_name(lane.queue->id, lane.ring_incarnation);
  lane.ring_segment = shm::Segment::attach(directory_, name, shm::SegmentKind::member_ring, shm::Access::read_write);
  lane.ring_segment.close_fd();
  lane.ring_page = lane.ring_segment.as<shm::MemberRing>();
  const std::uint64_t slots = lane.ring_page->slots;
  const std::uint64_t ring_bytes = lane.ring_page->ring_bytes;
  const std::uint64_t data = shm::page_bytes + states_bytes(slots);
  if (!std::has_single_bit(slots) || !std::has_single_bit(ring_bytes) ||
      data + ring_bytes > lane.ring_segment.bytes()) {
    throw Error(ErrorCode::damaged, name, "its sizes do not fit its file");
  }
  lane.slot_mask = slots - 1;
  lane.states = lane.ring_segment.as<shm::Word8>(shm::page_bytes);
  lane.ends_storage = std::make_unique_for_overwrite<std::uint32_t[]>(slots);
  lane.ends = lane.ends_storage.get();
  // relaxed: X is the only writer
  lane.ring = ring::RingWriter(lane.ring_segment.data() + data, ring_bytes, &lane.ring_page->tail,
                               lane.ring_page->tail.load(std::memory_order_relaxed), 0);
  lane.ring.set_head(shm::read_block(lane.ring_page->version, lane.ring_page->blocks).floor_position);
  lane.has_ring = true;
}

// A ring that is empty and has no member goes; its totals are folded into the subscription's block by one store.
void Exchange::retire_ring(Lane& lane) {
  Queue& queue = *lane.queue;
  shm::SubscriptionBlock& block = queue.block;
  for (std::size_t i = 0; i < shm::delivery_states; ++i) block.totals[i] += lane.ring_block.totals[i];
  block.delivered += lane.floor_entry - lane.ring_page->start_entry;
  block.retired_ring = lane.ring_incarnation;
  if (!queue.dispatched()) block.entries = lane.entries;
  shm::write_block(queue.state->version, queue.state->blocks, block);
  directory_.remove(ring_name(queue.id, lane.ring_incarnation));
  lane.has_ring = false;
  queue.to_backlog = true;
  lane.ring = ring::RingWriter{};
  lane.ring_page = nullptr;
  lane.states = nullptr;
  lane.ring_segment = shm::Segment{};
  lane.ends_storage.reset();
  lane.ring_block = shm::RingBlock{};
}

// The lane of a member to be. What is left in the ring of one who is gone comes with it, or comes to it by hand_over().
Lane& Exchange::lane_for_member(Queue& queue) {
  if (!queue.options.group && queue.has_member()) {
    throw Error(ErrorCode::busy, "subscription '" + queue.options.name + "'", "it has a member already",
                "stop that one, or use another name");
  }
  if (!queue.dispatched()) return queue.lane;
  queue.members.push_back(std::make_unique<Lane>(queue));
  return *queue.members.back();
}

MemberGrant Exchange::attach_member(std::uint64_t client, const SubscriptionOptions& options, bool ephemeral,
                                    const std::vector<std::string>& given) {
  Queue* queue = ephemeral ? nullptr : find_queue(options.name);
  if (queue == nullptr) {
    if (options.patterns.empty()) {
      throw Error(ErrorCode::not_found, "subscription '" + options.name + "'", "there is none of this name",
                  "give patterns to create it");
    }
    queue = &create_subscription(options, ephemeral);
  } else {
    check_same_options(*queue, options, given);
  }
  Lane& lane = lane_for_member(*queue);
  try {
    if (!lane.has_ring) create_ring(lane);
    const std::uint64_t incarnation = next_file();
    const std::uint64_t first = lane.taken;
    shm::Segment::create(directory_, ack_name(queue->id, incarnation), shm::SegmentKind::ack_page,
                         ring::ack_page_bytes(lane.slots()), generation_, queue->id, [&](std::byte* base) {
                           auto* page = reinterpret_cast<shm::AckPage*>(base);
                           page->slots = lane.slots();
                           page->start_entry = first;
                           // relaxed: nobody knows the file yet
                           page->taken.store(first, std::memory_order_relaxed);
                           page->acked_through.store(first, std::memory_order_relaxed);  // relaxed: as above
                           page->refused.store(first, std::memory_order_relaxed);        // relaxed: as above
                           page->released.store(first, std::memory_order_relaxed);       // relaxed: as above
                         });
    lane.ack_segment = shm::Segment::attach(directory_, ack_name(queue->id, incarnation), shm::SegmentKind::ack_page,
                                            shm::Access::read_only);
    lane.ack_incarnation = incarnation;
  } catch (const Error&) {
    if (queue->dispatched()) {
      if (lane.has_ring) retire_ring(lane);
      queue->members.pop_back();
    }
    if (queue->ephemeral) remove_subscription(*queue);
    throw;
  }
  lane.acks = ring::AckReader(lane.ack_segment.as<shm::AckPage>(), lane.slots());
  lane.client = client;
  lane.ring_page->revoked.store(0, std::memory_order_relaxed);  // relaxed: the member's process maps it later
  lane.revoked_to = 0;
  lane.ring_page->client.store(client, std::memory_order_relaxed);  // relaxed: published by ack_page
  // release(ring.ack_page): the page's file, and client
  lane.ring_page->ack_page.store(lane.ack_incarnation, std::memory_order_release);
  lane.marks.clear();
  lane.timed_out_below = lane.taken;
  lane.full_since_ns = 0;
  queue->to_backlog = queue->dispatched() || queue->block.backlog_events != 0;
  activate(*queue);
  return {queue,
          &lane,
          lane.taken,
          lane.begin_of(lane.taken),
          ring_name(queue->id, lane.ring_incarnation),
          ack_name(queue->id, lane.ack_incarnation)};
}

void Exchange::detach_member(Lane& lane) {
  Queue& queue = *lane.queue;
  if (!lane.has_member()) return;
  lane.leaving = true;
  lane.bell = shm::Bell{};
  const std::uint64_t now_ns = now_ns_ != 0 ? now_ns_ : shm::Environment::now_ns();
  settle(lane);
  sweep_verdicts(lane, now_ns);
  // What is left of the taken ones has no verdict: at-most-once deliveries count as acked, others are delivered again.
  for (std::uint64_t entry = lane.floor_entry; entry != lane.taken; ++entry) {
    const std::uint8_t state = lane.state_of(entry);
    if (state != 0) {
      if ((state & shm::let_go_bit) == 0) set_state(lane, entry, static_cast<shm::DeliveryState>(state), true);
    } else if (lane.is_returned(entry)) {
      continue;  // it was not taken after all
    } else if (queue.at_most_once()) {
      set_state(lane, entry, shm::DeliveryState::acked, true);
    } else {
      Failure failure;
      failure.cause = shm::DeliveryState::member_died;
      failure.delay_ns = 0;
      if (!fail(lane, entry, failure, now_ns)) {
        activate(queue);
        return;  // no room for the copy: the next tick goes on
      }
    }
  }
  lane.waiting.clear();
  lane.extended.clear();
  pass_decided(lane, lane.taken);
  lane.ring_page->ack_page.store(0, std::memory_order_release);  // release(ring.ack_page): everything taken is decided
  lane.ring_page->client.store(0, std::memory_order_relaxed);    // relaxed: means nothing without ack_page
  directory_.remove(ack_name(queue.id, lane.ack_incarnation));
  lane.acks = ring::AckReader{};
  lane.ack_segment = shm::Segment{};
  lane.ack_incarnation = lane.client = 0;
  lane.marks.clear();
  lane.leaving = false;
  if (queue.ephemeral) {
    remove_subscription(queue);
  } else if (lane.floor_entry == lane.entries) {
    retire_ring(lane);
    if (queue.dispatched()) std::erase_if(queue.members, [&](const auto& member) { return member.get() == &lane; });
  } else if (queue.dispatched()) {
    queue.has_orphans = true;  // the others get what it had not taken
    activate(queue);
  }
}

// Detaching may be the end of the lane, and of an ephemeral subscription as a whole: false then.
bool Exchange::detach_members(Queue& queue, const std::function<bool(const Lane&)>& which) {
  std::vector<Lane*> chosen;
  queue.each_lane([&](Lane& lane) {
    if (lane.has_member() && which(lane)) chosen.push_back(&lane);
  });
  const std::uint64_t id = queue.id;
  for (Lane* lane : chosen) detach_member(*lane);
  return chosen.empty() || find_queue(id) != nullptr;
}

void Exchange::client_gone(std::uint64_t client) {
  if (client == 0) return;
  for (const auto& ingress : publishers_) {
    if (ingress && ingress->client == client) detach_publisher(*ingress);
  }
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    if (queues_[i]) {
      detach_members(*queues_[i], [client](const Lane& lane) { return lane.client == client; });
    }
  }
}

}  // namespace ackring::exchange
