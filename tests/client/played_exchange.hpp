// The exchange's part of one publisher and one member, played by the test on hand-made segments.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "lib/client/member.hpp"
#include "lib/client/publisher_endpoint.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/ring/spsc_ring.hpp"

namespace ackring::test {

struct PlayedExchange {
  shm::MemoryDirectory directory;
  std::shared_ptr<client::BusView> view = std::make_shared<client::BusView>();

  PlayedExchange() {
    using shm::SegmentKind;
    shm::Segment::create(directory, "exchange", SegmentKind::exchange, sizeof(shm::ExchangeSegment), 1, 0);
    view->exchange = shm::Segment::attach(directory, "exchange", SegmentKind::exchange, shm::Access::read_only);
  }
};

struct PlayedIngress {
  shm::Segment ring;
  shm::Segment cursor;
  shm::Bell bell;
  client::PublisherEndpoint endpoint{nullptr, Wait::adaptive};
  ring::RingReader reader;

  PlayedIngress(PlayedExchange& exchange, std::uint64_t ring_bytes, std::uint64_t start = 0) {
    using shm::SegmentKind;
    const auto fill_ring = [&](std::byte* base) {
      auto* made = reinterpret_cast<shm::IngressRing*>(base);
      made->ring_bytes = ring_bytes;
      made->start_position = start;
      made->tail.store(start, std::memory_order_relaxed);
    };
    const auto fill_cursor = [&](std::byte* base) {
      auto* made = reinterpret_cast<shm::IngressCursor*>(base);
      made->shards[0].consumed.store(start, std::memory_order_relaxed);
    };
    ring = shm::Segment::create(exchange.directory, "ring", SegmentKind::ingress_ring, shm::page_bytes + ring_bytes, 1,
                                0, fill_ring);
    cursor = shm::Segment::create(exchange.directory, "cursor", SegmentKind::ingress_cursor, sizeof(shm::IngressCursor),
                                  1, 0, fill_cursor, 2 * shm::page_bytes);
    auto ends = shm::Bell::make_pair();
    bell = std::move(ends.first);
    endpoint.adopt(shm::Segment::attach(exchange.directory, "ring", SegmentKind::ingress_ring, shm::Access::read_write),
                   shm::Segment::attach(exchange.directory, "cursor", SegmentKind::ingress_cursor,
                                        shm::Access::read_only, 2 * shm::page_bytes),
                   std::move(ends.second), exchange.view, 1);
    reader = ring::RingReader(ring.data() + shm::page_bytes, ring_bytes, &words().tail, start);
  }
  [[nodiscard]] shm::IngressRing& words() const { return *ring.as<shm::IngressRing>(); }
  [[nodiscard]] shm::ShardCursor& cursor_words() const { return cursor.as<shm::IngressCursor>()->shards[0]; }
  /// The next record, consumed.
  [[nodiscard]] const std::byte* next() {
    const std::byte* record = reader.peek();
    if (record != nullptr) reader.advance(reinterpret_cast<const shm::RecordHeader*>(record)->bytes);
    return record;
  }
  void free_all() { cursor_words().consumed.store(reader.position(), std::memory_order_release); }
};

struct PlayedMember {
  static constexpr std::uint64_t slots = 64;
  shm::Segment ring;
  shm::Segment page;
  shm::Bell bell;
  std::shared_ptr<client::Member> member = std::make_shared<client::Member>(nullptr, Wait::adaptive);
  ring::RingWriter writer;
  ring::AckReader acks;
  std::uint64_t deliveries = 0;

  PlayedMember(PlayedExchange& exchange, std::uint64_t ring_bytes, std::uint64_t entry = 0, bool at_most_once = false) {
    using shm::SegmentKind;
    const std::uint64_t offset = 2 * shm::page_bytes;
    ring = shm::Segment::create(exchange.directory, "ring", SegmentKind::member_ring, offset + ring_bytes, 1, 0,
                                [&](std::byte* base) {
                                  auto* made = reinterpret_cast<shm::MemberRing*>(base);
                                  made->ring_bytes = ring_bytes;
                                  made->slots = slots;
                                  made->start_entry = entry;
                                  made->revoked.store(entry, std::memory_order_relaxed);
                                });
    page = shm::Segment::create(
        exchange.directory, "page", SegmentKind::ack_page, ring::ack_page_bytes(slots), 1, 0, [&](std::byte* base) {
          auto* made = reinterpret_cast<shm::AckPage*>(base);
          made->slots = slots;
          made->start_entry = entry;
          for (auto* word : {&made->taken, &made->released, &made->acked_through, &made->refused}) {
            word->store(entry, std::memory_order_relaxed);
          }
        });
    auto ends = shm::Bell::make_pair();
    bell = std::move(ends.first);
    member->adopt(shm::Segment::attach(exchange.directory, "ring", SegmentKind::member_ring, shm::Access::read_only),
                  shm::Segment::attach(exchange.directory, "page", SegmentKind::ack_page, shm::Access::read_write),
                  std::move(ends.second), exchange.view, {entry, 0, at_most_once});
    writer = ring::RingWriter(ring.data() + offset, ring_bytes, &words().tail, 0, 0);
    acks = ring::AckReader(page.as<shm::AckPage>(), slots);
  }
  [[nodiscard]] shm::MemberRing& words() const { return *ring.as<shm::MemberRing>(); }
  [[nodiscard]] shm::AckPage& page_words() const { return *page.as<shm::AckPage>(); }
  void deliver(std::string_view payload, bool commit = true, const shm::AttemptInfo* attempt = nullptr) {
    shm::RecordHeader header{};
    const std::size_t attempt_bytes = attempt != nullptr ? sizeof *attempt : 0;
    header.bytes = static_cast<std::uint32_t>(ring::record_bytes(payload.size() + attempt_bytes, 0, 0));
    header.flags = attempt != nullptr ? shm::flag_attempt : 0;
    header.kind = static_cast<std::uint16_t>(shm::RecordKind::event);
    header.payload_bytes = static_cast<std::uint32_t>(payload.size());
    header.sequence = header.delivery = ++deliveries;
    std::byte* record = writer.claim(header.bytes);
    std::memcpy(record, &header, sizeof header);
    if (attempt != nullptr) std::memcpy(record + sizeof header, attempt, sizeof *attempt);
    if (!payload.empty()) std::memcpy(record + sizeof header + attempt_bytes, payload.data(), payload.size());
    writer.advance(header.bytes);
    if (commit) writer.commit();
  }
};

}  // namespace ackring::test
