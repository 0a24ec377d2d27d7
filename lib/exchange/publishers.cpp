// Publishers come and go. Each change counts by one store or one rename, as in membership.cpp.
#include <algorithm>
#include <bit>
#include <utility>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/file_sizes.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

shm::PeerIdentity stored(const control::Identity& identity) {
  shm::PeerIdentity peer{};
  peer.uid = identity.uid;
  peer.gid = identity.gid;
  peer.group_count = static_cast<std::uint32_t>(std::min(identity.groups.size(), shm::max_peer_groups));
  std::copy_n(identity.groups.begin(), peer.group_count, peer.groups.begin());
  return peer;
}

control::Identity identity_of(const shm::PeerIdentity& peer) {
  const std::size_t groups = std::min<std::size_t>(peer.group_count, shm::max_peer_groups);
  return {peer.uid, peer.gid, {peer.groups.begin(), peer.groups.begin() + groups}};
}

}  // namespace

PublisherGrant Exchange::attach_publisher(std::uint64_t client, const std::string& name, std::uint64_t ring_bytes,
                                          const control::Identity& owner) {
  if (!name.empty()) shm::check_name("publisher", name);
  return open_publisher(client, name, ring_bytes,
                        name.empty() ? shm::PublisherState::anonymous : shm::PublisherState::named, owner);
}

PublisherGrant Exchange::open_publisher(std::uint64_t client, const std::string& name, std::uint64_t ring_bytes,
                                        shm::PublisherState kind, const control::Identity& owner) {
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
    const bool unused = ingress->ring_page == nullptr || (ingress->closing && read_by_all(*ingress));
    if (name.empty() ? anonymous && unused : !anonymous && ingress->name == name) {
      found = ingress;
      break;
    }
  }
  if (found != nullptr && found->incarnation != 0 && !name.empty() && found->owner.uid != owner.uid &&
      !access_.of(owner).everything) {
    // Whoever publishes under a name decides which numbers the next one may use.
    throw Error(ErrorCode::permission, "publisher '" + name + "'",
                "it is uid " + std::to_string(found->owner.uid) + "'s, and yours is " + std::to_string(owner.uid),
                "use another name, or none");
  }
  if (found != nullptr && found->ring_page != nullptr) {
    if (found->closing && !found->quarantined) {
      drain_all(*found);  // the earlier holder is gone: what it committed is routed first, so that order holds
      if (read_by_all(*found)) retire_ingress(*found);
    } else if (found->closing) {
      retire_ingress(*found);
    }
    if (found->ring_page != nullptr) {
      throw Error(ErrorCode::busy, "publisher '" + name + "'",
                  found->closing ? "events of its earlier run wait for room: a subscription or the file system is full"
                                 : "a live client holds the name",
                  "wait for it, or use another name");
    }
  }
  if (found == nullptr) {
    if (free_slot == publishers_.size()) {
      throw Error(ErrorCode::no_space, "publisher '" + name + "'", "the bus has its 1,024 publishers already",
                  "close some, or reuse names");
    }
    auto added = std::make_unique<Ingress>();
    added->slot = static_cast<std::uint16_t>(free_slot);
    // No name that a user can give: who took such a slot by its name would go on with the numbers of others.
    added->name = name.empty() ? "@" + std::to_string(free_slot) : name;
    shm::PublisherEntry& entry = page_->publishers[free_slot];
    std::array<char, shm::name_bytes> text{};
    added->name.copy(text.data(), text.size() - 1);
    shm::Environment::at(shm::CrashPoint::attach_name);
    shm::shared_copy(entry.name.data(), text.data(), text.size());
    entry.state.store(static_cast<std::uint32_t>(kind),
                      std::memory_order_release);  // release(publisher.state): the name
    found = added.get();
    publishers_[free_slot] = std::move(added);
    for (const auto& follower : followers_) {
      auto same = std::make_unique<Ingress>();
      same->slot = found->slot;
      same->name = found->name;
      follower->publishers_[free_slot] = std::move(same);
    }
  }

  const std::uint64_t incarnation = next_file();
  const std::uint64_t old = found->incarnation;
  const std::string ring_file = ingress_name(found->slot, incarnation);
  const std::string cursor_file = cursor_name(found->slot, incarnation);
  shm::IngressBlock block = found->block;      // totals and sequence go on
  for_each_shard([&](const Exchange& shard) {  // of a ring that was damaged, one may have read more than the lead
    block.sequence = std::max(block.sequence, shard.publishers_[found->slot]->block.sequence);
  });
  block.consumed = 0;
  {
    const shm::Segment ring = shm::Segment::create(
        directory_, ring_file, shm::SegmentKind::ingress_ring, ingress_ring_file_bytes(ring_bytes), generation_,
        found->slot, [&](std::byte* base) {
          auto* page = reinterpret_cast<shm::IngressRing*>(base);
          page->ring_bytes = ring_bytes;
          page->start_position = 0;
          page->events.store(shm::events_of(block), std::memory_order_relaxed);  // relaxed: nobody knows the file yet
        });
  }
  // Mapped before it counts: where the system refuses one of the files, or a mapping, the name is as it was.
  std::vector<Ingress> fresh(1 + followers_.size());
  for (Ingress& one : fresh) {
    one.slot = found->slot;
    one.incarnation = incarnation;
    one.own = kind == shm::PublisherState::exchange;
    one.name = found->name;
    one.client = client;
  }
  try {
    const shm::Segment cursor =
        shm::Segment::create(directory_, cursor_file, shm::SegmentKind::ingress_cursor, cursor_first_bytes, generation_,
                             found->slot, [&](std::byte* base) {
                               auto* page = reinterpret_cast<shm::IngressCursor*>(base);
                               for (shm::ShardCursor& shard : page->shards) shard.blocks[0] = block;
                               page->owner = stored(owner);
                             });
    map_ingress(fresh[0], nullptr);
    fresh[0].ring_segment.populate();
    for (std::size_t i = 0; i < followers_.size(); ++i) followers_[i]->map_ingress(fresh[i + 1], &fresh[0]);
  } catch (const Error&) {
    directory_.remove(ring_file);
    directory_.remove(cursor_file);
    throw;
  }
  shm::PublisherEntry& entry = page_->publishers[found->slot];
  shm::Environment::at(shm::CrashPoint::attach_incarnation);
  entry.client.store(client, std::memory_order_relaxed);            // relaxed: published by incarnation
  entry.incarnation.store(incarnation, std::memory_order_release);  // release(publisher.incarnation): its files count
  // A ring that stays needs its cursor, which says that nothing in it is left.
  const bool ring_gone = !found->ring_left || directory_.remove(ingress_name(found->slot, old));
  if (old != 0 && ring_gone) directory_.remove(cursor_name(found->slot, old));
  std::size_t next = 0;
  for_each_shard([&](Exchange& shard) {
    Ingress& ingress = *shard.publishers_[found->slot];
    std::erase(shard.hot_, &ingress);
    ingress = std::move(fresh[next++]);
    shard.heat(ingress);
  });
  return {found->slot, incarnation, found->name, block.sequence + 1, ring_file, cursor_file};
}

// `of_lead`: what the lead has mapped of the same publisher; nullptr for the lead itself.
void Exchange::map_ingress(Ingress& ingress, const Ingress* of_lead) {
  const std::string cursor_file = cursor_name(ingress.slot, ingress.incarnation);
  if (of_lead == nullptr) {
    ingress.cursor_segment = std::make_shared<shm::Segment>(shm::Segment::attach(
        directory_, cursor_file, shm::SegmentKind::ingress_cursor, shm::Access::read_write, cursor_reserve_bytes));
    check_bytes(*ingress.cursor_segment, shm::page_bytes);
  } else {
    ingress.cursor_segment = of_lead->cursor_segment;
  }
  ingress.cursor_page = ingress.cursor_segment->as<shm::IngressCursor>();
  ingress.cursor = &ingress.cursor_page->shards[shard_];
  ingress.topic_map = ingress.cursor_segment->as<shm::Word32>(shm::page_bytes);
  ingress.block = shm::read_block(ingress.cursor->version, ingress.cursor->blocks);
  ingress.quarantined = ingress.first().quarantined.load(std::memory_order_relaxed) != 0;  // relaxed: X's own word
  ingress.owner = identity_of(ingress.cursor_page->owner);
  ingress.permissions = ingress.own ? control::Permissions{} : access_.of(ingress.owner);
  if (!directory_.exists(ingress_name(ingress.slot, ingress.incarnation))) return;  // retired: only the totals are left
  map_ingress_ring(ingress);
  adopt_topics(ingress);
}

void Exchange::map_ingress_ring(Ingress& ingress) {
  const std::string ring_file = ingress_name(ingress.slot, ingress.incarnation);
  ingress.ring_segment =
      shm::Segment::attach(directory_, ring_file, shm::SegmentKind::ingress_ring, shm::Access::read_only);
  ingress.ring_page = ingress.ring_segment.as<shm::IngressRing>();
  // One load (F26): the publisher can write there.
  const std::uint64_t ring_bytes = *static_cast<const volatile std::uint64_t*>(&ingress.ring_page->ring_bytes);
  if (!std::has_single_bit(ring_bytes) || ring_bytes < limits::min_ring_bytes || ring_bytes > limits::max_ring_bytes ||
      shm::page_bytes + ring_bytes > ingress.ring_segment.bytes()) {
    throw Error(ErrorCode::damaged, ring_file, "its size does not fit its file");
  }
  ingress.reader = ring::RingReader(ingress.ring_segment.data() + shm::page_bytes, ring_bytes, &ingress.ring_page->tail,
                                    ingress.block.consumed);
  if (ingress.block.consumed % shm::record_alignment != 0) {
    throw Error(ErrorCode::damaged, cursor_name(ingress.slot, ingress.incarnation),
                "no record can begin where it says that reading goes on");
  }
  // A crash between the block and the word: the block counts.
  ingress.cursor->consumed.store(ingress.block.consumed,
                                 std::memory_order_release);  // release(ingress.consumed): all of it was read
}

void Exchange::adopt_topics(Ingress& ingress) {
  const std::string cursor_file = cursor_name(ingress.slot, ingress.incarnation);
  // acquire(cursor.topics): the map's entries below it
  const std::uint64_t topics = ingress.first().topics.load(std::memory_order_acquire);
  ingress.routes.clear();
  if (topics > (ingress.cursor_segment->bytes() - shm::page_bytes) / sizeof(shm::Word32)) {
    throw Error(ErrorCode::damaged, cursor_file, "it has no room for its " + std::to_string(topics) + " topics");
  }
  for (std::uint64_t i = 0; i < topics; ++i) {
    const std::uint32_t number = ingress.topic_map[i].load(std::memory_order_relaxed);  // relaxed: published by topics
    const bool routed = number != shm::no_topic && number != shm::denied_topic;
    if (routed && peers_->topics->text(number).empty()) {
      throw Error(ErrorCode::damaged, cursor_file, "the bus has no topic of number " + std::to_string(number));
    }
    ingress.routes.push_back(routed ? routes_.route_of(number) : nullptr);
  }
}

void Exchange::set_access(control::AccessRules access) {
  for_each_shard([&access](Exchange& shard) {
    shard.access_ = access;
    for (const auto& ingress : shard.publishers_) {
      if (!ingress || ingress->ring_page == nullptr || ingress->own) continue;
      ingress->permissions = shard.access_.of(ingress->owner);
      shard.withdraw_topics(*ingress);
    }
  });
}

// Topics that it defined under other rules, and that these keep from it. What lies in its ring is counted
// as denied; its client is told when it comes back. It is no way back: a topic that was denied is nowhere written down.
void Exchange::withdraw_topics(Ingress& ingress) {
  if (ingress.permissions.everything) return;
  for (std::size_t i = 0; i < ingress.routes.size(); ++i) {
    if (ingress.routes[i] == nullptr) continue;
    const std::string_view topic = peers_->topics->text(ingress.routes[i]->topic);
    if (ingress.permissions.may_publish(topic)) continue;
    if (ingress.withdrawn_topic.empty()) ingress.withdrawn_topic = topic;
    ingress.routes[i] = nullptr;
    ingress.topic_map[i].store(shm::denied_topic,
                               std::memory_order_relaxed);  // relaxed: X's thread alone decides by it
  }
}

void Exchange::detach_publisher(Ingress& ingress) {
  if (ingress.ring_page == nullptr || ingress.closing) return;
  shm::Environment::at(shm::CrashPoint::detach_publisher);
  page_->publishers[ingress.slot].client.store(0, std::memory_order_relaxed);  // relaxed: X's own word
  for_each_shard([slot = ingress.slot](Exchange& shard) {
    Ingress& same = *shard.publishers_[slot];
    same.client = 0;
    same.closing = true;
    same.has_bell = false;
    same.bell = shm::Bell{};
    shard.heat(same);
  });
}

void Exchange::retire_ingress(Ingress& ingress) {
  for_each_shard([slot = ingress.slot](Exchange& shard) {
    Ingress& same = *shard.publishers_[slot];
    std::erase(shard.hot_, &same);
    same.hot = false;
    same.closing = false;
    same.ring_page = nullptr;
    same.reader = ring::RingReader{};
    if (&same != shard.lead().publishers_[slot].get()) same.ring_segment = shm::Segment{};
  });
  shm::Environment::at(shm::CrashPoint::retire_publisher);
  ingress.ring_left = !directory_.remove(ingress_name(ingress.slot, ingress.incarnation));
  ingress.ring_segment = shm::Segment{};
}

}  // namespace ackring::exchange
