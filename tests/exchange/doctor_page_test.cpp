// The doctor finds damage to what all of a bus shares: headers, the page of the exchange, publishers, topics.
#include "tests/exchange/doctor_damage.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr u64 first_publisher = offsetof(shm::ExchangeSegment, publishers);

}  // namespace

TEST_CASE("damage to headers, the page of the exchange, publishers and topics is found") {
  const RichWorld world;
  check_all(
      world,
      {
          put_in("magic", "topics", 0, u64{1}),
          put_in("layout_version", "topics", offsetof(SegmentHeader, layout_version), u32{9}),
          in_state("kind", offsetof(SegmentHeader, kind), u32{3}),
          in_state("segment_bytes", offsetof(SegmentHeader, segment_bytes), u64{64}),
          in_state("generation", offsetof(SegmentHeader, generation), huge),
          in_state("boot_id", offsetof(SegmentHeader, boot_id), huge),
          in_state("owner", offsetof(SegmentHeader, owner), huge),
          in_state("reserved", offsetof(SegmentHeader, reserved), u64{1}),
          {"size",
           [](const Copy& copy) {
             copy.truncate(copy.plain + ".state", 100);
             return copy.plain + ".state";
           }},
          {"segment_bytes",
           [](const Copy& copy) {
             copy.truncate(copy.ring, 5000);
             return copy.ring;
           }},
          {"missing",
           [](const Copy& copy) {
             copy.directory->remove(copy.plain + ".state");
             return copy.plain + ".state";
           }},
          {"missing",
           [](const Copy& copy) {
             copy.directory->remove("topics");
             return std::string("topics");
           }},
          {"missing",
           [](const Copy& copy) {
             copy.directory->remove(copy.pub_cursor);
             return copy.pub_cursor;
           }},
          {"missing",
           [](const Copy& copy) {
             copy.directory->remove(copy.pub_ring);
             return copy.pub_ring;
           }},
          {"missing",
           [](const Copy& copy) {
             copy.directory->remove(copy.ack);
             return copy.ack;
           }},
          {"unknown",
           [](const Copy& copy) {
             copy.make("sub.01.json");
             return std::string("sub.01.json");
           }},
          put_in("state", "exchange", offsetof(shm::ExchangeSegment, state), u32{9}),
          put_in("fence_required", "exchange", offsetof(shm::ExchangeSegment, fence_required), u32{2}),
          put_in("shards", "exchange", offsetof(shm::ExchangeSegment, shards), u32{1u << shm::max_shards}),
          put_in("generation", "exchange", offsetof(shm::ExchangeSegment, generation), u64{0}),
          put_in("next_client", "exchange", offsetof(shm::ExchangeSegment, next_client), u64{0}),
          put_in("next_file", "exchange", offsetof(shm::ExchangeSegment, next_file), u64{1}),
          put_in("intent", "exchange", offsetof(shm::ExchangeSegment, intents), u64{7}),
          put_in("intent", "exchange", offsetof(shm::ExchangeSegment, intents) + 2 * sizeof(shm::Intent), u64{1}),
          {"intent",
           [](const Copy& copy) {
             copy.put("exchange", copy.last_intent() + offsetof(shm::Intent, kind), u32{99});
             return std::string("exchange");
           }},
          put_in("publisher_state", "exchange", first_publisher, u32{7}),
          put_in("publisher_state", "exchange", first_publisher, u32{0}),
          put_in("publisher_name", "exchange", first_publisher + offsetof(shm::PublisherEntry, name), u32{0x2f2f}),
          put_in("publisher_files", "exchange", first_publisher + offsetof(shm::PublisherEntry, incarnation), u64{0}),
          put("tail", &Copy::pub_ring, offsetof(shm::IngressRing, tail), u64{8}),
          put("tail", &Copy::pub_ring, offsetof(shm::IngressRing, tail), huge),
          put("events", &Copy::pub_ring, offsetof(shm::IngressRing, events), u64{1}),
          put("ring_bytes", &Copy::pub_ring, offsetof(shm::IngressRing, ring_bytes), u64{3000}),
          {"record",
           [](const Copy& copy) {
             copy.put(copy.pub_ring, copy.first_unrouted() + offsetof(RecordHeader, kind), u16{9});
             return copy.pub_ring;
           }},
          {"record",
           [](const Copy& copy) {
             copy.put(copy.pub_ring, copy.first_unrouted(), u32{7});
             return copy.pub_ring;
           }},
          {"record",
           [](const Copy& copy) {
             copy.put(copy.pub_ring, copy.first_unrouted() + offsetof(RecordHeader, topic), u32{99});
             return copy.pub_ring;
           }},
          put("quarantined", &Copy::pub_cursor, of_cursor(offsetof(ShardCursor, quarantined)), u64{2}),
          put("not_polled", &Copy::pub_cursor, of_cursor(offsetof(ShardCursor, not_polled)),
              u32{1u << shm::max_shards}),
          put("topics", &Copy::pub_cursor, of_cursor(offsetof(ShardCursor, topics)), huge),
          put("consumed", &Copy::pub_cursor, of_cursor(offsetof(ShardCursor, consumed)), huge),
          put("sink", &Copy::pub_cursor, of_cursor(offsetof(ShardCursor, sink)) + 8, u64{1}),
          {"n",
           [](const Copy& copy) {
             copy.put(copy.pub_cursor, copy.in_cursor_block(0), huge);
             return copy.pub_cursor;
           }},
          {"events",
           [](const Copy& copy) {
             copy.put(copy.pub_cursor, copy.in_cursor_block(offsetof(IngressBlock, routed)), u64{41});
             return copy.pub_ring;
           }},
          put("topic_number", &Copy::pub_cursor, shm::page_bytes, u32{77}),
          put_in("topic", "topics", shm::page_bytes, u16{0}),
          put_in("topic", "topics", shm::page_bytes + 2, u16{0x2e2e}),
          put_in("arena_bytes", "topics", offsetof(shm::TopicsSegment, arena_bytes), huge),
          put_in("count", "topics", offsetof(shm::TopicsSegment, count), u64{9}),
      });
}
