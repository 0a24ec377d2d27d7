// Membership: members come and go. Each change counts by one store or one rename; what a crash leaves unfinished before it
// is removed by recovery, and repeated after it. Publishers: publishers.cpp.
#include <algorithm>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/file_sizes.hpp"
#include "lib/exchange/latency.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

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

void Exchange::create_ring(Lane& lane) {
  Queue& queue = *lane.queue;
  const std::uint64_t slots = ring_slots(queue.options);
  const std::uint64_t ring_bytes = queue.options.ring_bytes;
  shm::Environment::at(shm::CrashPoint::join_ring);
  const std::uint64_t incarnation = next_file();
  shm::Segment::create(directory_, ring_name(queue.id, incarnation), shm::SegmentKind::member_ring,
                       member_ring_file_bytes(queue.options), generation_, queue.id, [&](std::byte* base) {
                         auto* page = reinterpret_cast<shm::MemberRing*>(base);
                         page->ring_bytes = ring_bytes;
                         page->slots = slots;
                         page->number = lane.number;
                         page->start_entry = lane.entries;
                         // relaxed: nobody knows the file yet, and X alone writes the other one
                         page->breaker_order.store(queue.state->breaker_order.load(std::memory_order_relaxed),
                                                   std::memory_order_relaxed);  // relaxed: as above
                         page->blocks[0].floor_entry = lane.entries;
                       });
  lane.ring_incarnation = incarnation;
  try {
    map_ring(lane);
    lane.ring_segment.populate();  // not in map_ring(): a bus that is recovered may have thousands that nobody uses
  } catch (const Error&) {
    directory_.remove(ring_name(queue.id, incarnation));  // a successor would take it for the ring of a member
    throw;
  }
  lane.ring_block = shm::read_block(lane.ring_page->version, lane.ring_page->blocks);
  lane.floor_entry = lane.taken = lane.entries;
  lane.decided = 0;
  queue.to_backlog = queue.goes_to_backlog();
}

void Exchange::map_ring(Lane& lane) {
  const std::string name = ring_name(lane.queue->id, lane.ring_incarnation);
  lane.ring_segment = shm::Segment::attach(directory_, name, shm::SegmentKind::member_ring, shm::Access::read_write);
  lane.ring_segment.close_fd();
  check_ring_sizes(lane.ring_segment, lane.queue->options);
  lane.ring_page = lane.ring_segment.as<shm::MemberRing>();
  const std::uint64_t slots = lane.ring_page->slots;
  const std::uint64_t ring_bytes = lane.ring_page->ring_bytes;
  const std::uint64_t data = ring_data_offset(slots);
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

// A ring that is empty and has no member goes; its totals are folded into the subscription's block by one store. False: not
// yet, since the block names the one ring whose file is there and whose totals it has, and that is another one.
bool Exchange::retire_ring(Lane& lane) {
  Queue& queue = *lane.queue;
  if (queue.ring_left && !directory_.remove(ring_name(queue.id, queue.block.retired_ring))) return false;
  if (queue.keys) free_slots(queue, lane.number);  // before another ring can bear its number
  shm::SubscriptionBlock& block = queue.block;
  for (std::size_t i = 0; i < shm::delivery_states; ++i) block.totals[i] += lane.ring_block.totals[i];
  const std::uint64_t returned = lane.ring_block.totals[static_cast<std::size_t>(shm::DeliveryState::returned)];
  block.delivered += lane.floor_entry - lane.ring_page->start_entry - returned;
  block.retired_ring = lane.ring_incarnation;
  if (!queue.dispatched()) block.entries = lane.entries;
  shm::Environment::at(shm::CrashPoint::leave_ring);
  shm::write_block(queue.state->version, queue.state->blocks, block);
  queue.ring_left = !directory_.remove(ring_name(queue.id, lane.ring_incarnation));
  lane.has_ring = false;
  queue.to_backlog = true;
  lane.ring = ring::RingWriter{};
  lane.ring_page = nullptr;
  lane.states = nullptr;
  lane.ring_segment = shm::Segment{};
  lane.ends_storage.reset();
  lane.ring_block = shm::RingBlock{};
  return true;
}

// The lane of a member to be. What is left in the ring of one who is gone comes with it, or comes to it by hand_over().
Lane& Exchange::lane_for_member(Queue& queue) {
  if (!queue.options.group && queue.has_member()) {
    throw Error(ErrorCode::busy, "subscription '" + queue.options.name + "'", "it has a member already",
                "stop that one, or use another name");
  }
  if (!queue.dispatched()) return queue.lane;
  std::uint16_t number = 1;
  while (queue.find_member(number) != nullptr) ++number;
  queue.members.push_back(std::make_unique<Lane>(queue));
  queue.members.back()->number = number;
  return *queue.members.back();
}

/// The ack page of the lane's incarnation, of a member that is done with what is before `first`, and has taken what is
/// before `taken`.
void Exchange::create_ack_page(Lane& lane, std::uint64_t first, std::uint64_t taken) {
  const std::string name = ack_name(lane.queue->id, lane.ack_incarnation);
  shm::Segment::create(directory_, name, shm::SegmentKind::ack_page, ring::ack_page_bytes(lane.slots()), generation_,
                       lane.queue->id, [&](std::byte* base) {
                         auto* page = reinterpret_cast<shm::AckPage*>(base);
                         page->slots = lane.slots();
                         page->start_entry = first;
                         page->taken.store(taken, std::memory_order_relaxed);  // relaxed: nobody knows the file yet
                         page->acked_through.store(first, std::memory_order_relaxed);  // relaxed: as above
                         page->refused.store(first, std::memory_order_relaxed);        // relaxed: as above
                         page->released.store(first, std::memory_order_relaxed);       // relaxed: as above
                       });
}

MemberGrant Exchange::attach_member(std::uint64_t client, const SubscriptionOptions& options, bool ephemeral,
                                    const std::vector<std::string>& given, const control::Identity& owner) {
  if (control::is_reserved(options.name)) {
    throw Error(ErrorCode::invalid_argument, "subscription '" + options.name + "'", "the exchange itself consumes it",
                "look at it with shmtool peek or stat");
  }
  Queue* queue = ephemeral ? nullptr : find_queue(options.name);
  bool made = false;
  if (queue == nullptr) {
    if (options.patterns.empty()) {
      throw Error(ErrorCode::not_found, "subscription '" + options.name + "'", "there is none of this name",
                  "give patterns to create it");
    }
    queue = &create_subscription(options, ephemeral);
    made = true;
  } else {
    check_same_options(*queue, options, given);
  }
  return owner_of(*queue).join(client, *queue, made, owner);
}

// `made`: the subscription has just been made for him.
MemberGrant Exchange::join(std::uint64_t client, Queue& joined, bool made, const control::Identity& owner) {
  Queue* const queue = &joined;
  Lane& lane = lane_for_member(*queue);
  try {
    if (!lane.has_ring) create_ring(lane);
    pass_decided(lane, lane.entries);  // what was taken back from the member before it is not for this one
    const std::uint64_t incarnation = next_file();
    const std::uint64_t first = lane.taken;
    lane.ack_incarnation = incarnation;
    shm::Environment::at(shm::CrashPoint::join_ack_page);
    create_ack_page(lane, first, first);
    lane.ack_segment = shm::Segment::attach(directory_, ack_name(queue->id, incarnation), shm::SegmentKind::ack_page,
                                            shm::Access::read_only);
  } catch (const Error&) {
    if (lane.ack_incarnation != 0) directory_.remove(ack_name(queue->id, lane.ack_incarnation));
    lane.ack_incarnation = 0;
    if (queue->dispatched() && (!lane.has_ring || retire_ring(lane))) queue->members.pop_back();
    if (made && !try_to_remove(*queue))
      activate(*queue);  // he finds it when he asks again; the tick ends an ephemeral one
    throw;
  }
  lane.acks = ring::AckReader(lane.ack_segment.as<shm::AckPage>(), lane.slots());
  lane.seen = {lane.taken, lane.taken, lane.taken, lane.taken};
  lane.client = client;
  lane.marks.start(*lane.ring_page, lane.taken);
  lane.revoked_from = lane.taken;
  lane.revoked_to = queue->paused ? lane.entries : lane.taken;  // a number near those that it is compared with
  shm::Environment::at(shm::CrashPoint::join_member);
  // relaxed: the member's process maps it later
  lane.ring_page->revoked.store(lane.revoked_to, std::memory_order_relaxed);
  lane.ring_page->client.store(client, std::memory_order_relaxed);    // relaxed: published by ack_page
  lane.ring_page->owner.store(owner.uid, std::memory_order_relaxed);  // relaxed: as above
  // release(ring.ack_page): the page's file, and client
  lane.ring_page->ack_page.store(lane.ack_incarnation, std::memory_order_release);
  lane.timed_out_below = lane.taken;
  lane.full_since_ns = 0;
  queue->to_backlog = queue->goes_to_backlog();
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
  if (queue.shard != shard_) return owner_of(queue).detach_member(lane);
  if (!lane.has_member()) return;
  lane.leaving = true;
  lane.bell = shm::Bell{};
  const std::uint64_t now_ns = now_ns_ != 0 ? now_ns_ : shm::Environment::now_ns();
  check_ack_page(lane);
  settle(lane);
  sweep_verdicts(lane, now_ns);
  // What is left of the taken ones: at-most-once deliveries count as acked. Others may have a verdict still, since a sweep
  // carries out so many only, or none; then they are delivered again.
  for (std::uint64_t entry = lane.floor_entry; entry != lane.taken; ++entry) {
    const std::uint8_t state = lane.state_of(entry);
    if (state != 0) {
      if ((state & shm::let_go_bit) == 0) set_state(lane, entry, static_cast<shm::DeliveryState>(state), true);
    } else if (lane.is_returned(entry)) {
      continue;  // it was not taken after all
    } else if (queue.at_most_once()) {
      set_state(lane, entry, shm::DeliveryState::acked, true);
    } else {
      const ring::AckSeen seen = lane.acks.seen(entry);
      const bool refused = ring::is_final(seen.verdict) && seen.verdict != ring::Verdict::returned;
      if (refused && fail(lane, entry, failure_of(lane, entry, seen), now_ns)) continue;
      if (seen.verdict == ring::Verdict::give_back) {  // it is not to be charged for want of room
        activate(queue);
        return;
      }
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
  lane.taken = lane.floor_entry;  // what else it passed had been taken back, and was not handed out
  if (!queue.ephemeral) keep_latency(queue, lane);
  shm::Environment::at(shm::CrashPoint::leave_member);
  lane.ring_page->ack_page.store(0, std::memory_order_release);  // release(ring.ack_page): everything taken is decided
  lane.ring_page->client.store(0, std::memory_order_relaxed);    // relaxed: means nothing without ack_page
  directory_.remove(ack_name(queue.id, lane.ack_incarnation));
  lane.acks = ring::AckReader{};
  lane.ack_segment = shm::Segment{};
  lane.ack_incarnation = lane.client = 0;
  lane.marks.clear();
  lane.leaving = lane.distrusted = false;
  if (queue.ending) activate(queue);  // the tick sees whether anything is left
  if (queue.ephemeral) {
    if (!try_to_remove(queue)) activate(queue);  // the tick goes on
  } else if (lane.floor_entry == lane.entries) {
    const bool retired = retire_ring(lane);
    if (retired && queue.dispatched()) {
      std::erase_if(queue.members, [&](const auto& member) { return member.get() == &lane; });
    }
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
