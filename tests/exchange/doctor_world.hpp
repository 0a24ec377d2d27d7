// A bus in which everything is that a bus can hold, copies of it, and ways to ruin them.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "lib/exchange/bus_file.hpp"
#include "lib/shm/lock.hpp"
#include "tests/exchange/retry_world.hpp"

namespace ackring::test {

/// Files of a bus that a test may write into.
struct Copy {
  std::shared_ptr<shm::MemoryDirectory> directory;
  std::string plain;  // "sub.N" of the subscription
  std::string keyed;
  std::string ring;  // of plain's member
  std::string ack;
  std::string once_ring;  // of a member whose ring is not full
  std::string pub_ring;
  std::string pub_cursor;

  template <class T>
  [[nodiscard]] T at(const std::string& file, std::uint64_t offset) const {
    T value{};
    REQUIRE(::pread(directory->open(file, false).get(), static_cast<void*>(&value), sizeof value,
                    static_cast<off_t>(offset)) == sizeof value);
    return value;
  }
  template <class T>
  void put(const std::string& file, std::uint64_t offset, T value) const {
    REQUIRE(::pwrite(directory->open(file, true).get(), &value, sizeof value, static_cast<off_t>(offset)) ==
            sizeof value);
  }
  void truncate(const std::string& file, std::uint64_t bytes) const {
    REQUIRE(::ftruncate(directory->open(file, true).get(), static_cast<off_t>(bytes)) == 0);
  }
  void make(const std::string& file) const { directory->write_file(file, ""); }
  void copy(const std::string& from, const std::string& to) const {
    directory->write_file(to, directory->read_file(from));
  }

  /// Offset in a subscription's state of a counter of the block that counts, by its offset in the block.
  [[nodiscard]] std::uint64_t in_block(std::uint64_t field) const {
    const auto version = at<std::uint64_t>(plain + ".state", offsetof(shm::SubscriptionSegment, version));
    return offsetof(shm::SubscriptionSegment, blocks) + (version & 1) * sizeof(shm::SubscriptionBlock) + field;
  }
  void add_to_block(std::uint64_t field, std::uint64_t more) const {
    put(plain + ".state", in_block(field), at<std::uint64_t>(plain + ".state", in_block(field)) + more);
  }
  [[nodiscard]] std::uint64_t in_ring_block(std::uint64_t field) const {
    const auto version = at<std::uint64_t>(ring, offsetof(shm::MemberRing, version));
    return offsetof(shm::MemberRing, blocks) + (version & 1) * sizeof(shm::RingBlock) + field;
  }
  [[nodiscard]] std::uint64_t in_cursor_block(std::uint64_t field) const {
    const auto version =
        at<std::uint64_t>(pub_cursor, offsetof(shm::IngressCursor, shards) + offsetof(shm::ShardCursor, version));
    return offsetof(shm::IngressCursor, shards) + offsetof(shm::ShardCursor, blocks) +
           (version & 1) * sizeof(shm::IngressBlock) + field;
  }
  /// Offset of the first record above the floor of plain's ring.
  [[nodiscard]] std::uint64_t first_record() const {
    const auto floor = at<std::uint64_t>(ring, in_ring_block(offsetof(shm::RingBlock, floor_position)));
    const auto bytes = at<std::uint64_t>(ring, offsetof(shm::MemberRing, ring_bytes));
    return 2 * shm::page_bytes + (floor & (bytes - 1));
  }
  /// Offset of the state byte of the first entry above the floor.
  [[nodiscard]] std::uint64_t first_state() const {
    const auto floor = at<std::uint64_t>(ring, in_ring_block(offsetof(shm::RingBlock, floor_entry)));
    return shm::page_bytes + (floor & (at<std::uint64_t>(ring, offsetof(shm::MemberRing, slots)) - 1));
  }
  /// Offset of the record at the head of a log of plain; the log is in its first segment.
  [[nodiscard]] std::uint64_t head_of(std::uint64_t head_field) const {
    return at<std::uint64_t>(plain + ".state", in_block(head_field)) & 0xffffffff;
  }
  /// Offset in the ring of the publisher of the first record that was not routed.
  [[nodiscard]] std::uint64_t first_unrouted() const {
    return shm::page_bytes + at<std::uint64_t>(pub_cursor, in_cursor_block(offsetof(shm::IngressBlock, consumed)));
  }
  /// Offset of the intent that counts.
  [[nodiscard]] std::uint64_t last_intent() const {
    const std::uint64_t first = offsetof(shm::ExchangeSegment, intents);
    const std::uint64_t second = first + sizeof(shm::Intent);
    return at<std::uint64_t>("exchange", first) > at<std::uint64_t>("exchange", second) ? first : second;
  }
};

/// Acked, taken, not taken, waiting for a retry, dead and queued events, and some that are not routed yet.
struct RichWorld : World {
  std::vector<std::unique_ptr<CoreMember>> members;
  std::unique_ptr<CorePublisher> shop;

  RichWorld() {
    SubscriptionOptions options = exact();
    options.ring_bytes = 4096;
    options.max_in_flight = 16;
    options.ack_timeout = std::chrono::hours(1);
    members.push_back(std::make_unique<CoreMember>(member("plain", {"a.#"}, options)));
    options.group = options.ordered_by_key = true;
    members.push_back(std::make_unique<CoreMember>(member("keyed", {"#"}, options)));
    members.push_back(std::make_unique<CoreMember>(member("keyed", {})));
    SubscriptionOptions once;
    once.guarantee = Guarantee::at_most_once;
    once.ring_bytes = 4096;
    once.max_in_flight = 16;
    members.push_back(std::make_unique<CoreMember>(member("once", {"b"}, once)));
    shop = std::make_unique<CorePublisher>(publisher("shop", 16 << 10));
    for (int i = 0; i < 40; ++i) {
      shm::TimingInfo times{};
      if (i == 30) times.expires_ns = now_ns + (std::uint64_t{1} << 60);
      REQUIRE(shop->add(i % 4 == 3 ? "b" : "a.x", "event " + std::to_string(i), "key" + std::to_string(i % 5), times));
    }
    shop->commit();
    run();
    Seen seen;
    for (int i = 0; members[0]->take(seen); ++i) {
      if (i < 5) members[0]->verdict(seen.entry, ring::Verdict::ack);
      if (i == 6) members[0]->nack(seen.entry, 3'600'000);
      if (i == 7) members[0]->reject(seen.entry, "broken");
      if (i == 8) break;
    }
    for (std::size_t i = 1; i < members.size(); ++i) {
      if (members[i]->take(seen)) members[i]->verdict(seen.entry, ring::Verdict::ack);
    }
    members[3]->release();
    for (int i = 0; i < 3; ++i) tick();
    for (int i = 0; i < 3; ++i) REQUIRE(shop->publish(i == 0 ? "a.new" : "a.x", "not routed yet"));
  }

  [[nodiscard]] Copy copy() const {
    Copy copy;
    copy.directory = directory->clone();
    const exchange::Queue& queue = *x->find_queue("plain");
    copy.plain = "sub." + std::to_string(queue.id);
    copy.keyed = "sub." + std::to_string(x->find_queue("keyed")->id);
    copy.ring = exchange::Exchange::ring_name(queue.id, queue.lane.ring_incarnation);
    copy.ack = exchange::Exchange::ack_name(queue.id, queue.lane.ack_incarnation);
    const exchange::Queue& once = *x->find_queue("once");
    copy.once_ring = exchange::Exchange::ring_name(once.id, once.lane.ring_incarnation);
    copy.pub_ring = exchange::Exchange::ingress_name(shop->slot(), shop->incarnation());
    copy.pub_cursor = exchange::Exchange::cursor_name(shop->slot(), shop->incarnation());
    return copy;
  }
};

/// Lock files that are held, as if their processes lived.
struct Held {
  std::vector<shm::UniqueFd> locks;
  Held(shm::Directory& directory, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      directory.write_file(name, "");
      locks.push_back(directory.open(name, true));
      REQUIRE(shm::try_lock(locks.back().get()));
    }
  }
};

}  // namespace ackring::test
