// The doctor finds damage to what a subscription keeps: its definition, counters, logs, and the rings of members.
#include "tests/exchange/doctor_damage.hpp"

using namespace ackring;
using namespace ackring::test;

TEST_CASE("damage to a subscription's definition, counters and logs is found") {
  const RichWorld world;
  constexpr u64 backlog = offsetof(SubscriptionBlock, backlog_head);
  constexpr u64 retry = offsetof(SubscriptionBlock, retry_head);
  constexpr u64 dead = offsetof(SubscriptionBlock, dead_head);
  constexpr u64 later = sizeof(RecordHeader);
  constexpr u64 attempt = later + sizeof(shm::LaterInfo);
  check_all(world,
            {
                {"definition",
                 [](const Copy& copy) {
                   copy.directory->write_file(copy.plain + ".json", "{");
                   return copy.plain + ".json";
                 }},
                {"definition",
                 [](const Copy& copy) {
                   copy.directory->write_file(copy.plain + ".json", "{}");
                   return copy.plain + ".json";
                 }},
                {"name_twice",
                 [](const Copy& copy) {
                   copy.copy(copy.plain + ".json", copy.keyed + ".json");
                   return copy.keyed + ".json";
                 }},
                {"shard",
                 [](const Copy& copy) {
                   copy.put(copy.plain + ".state", offsetof(shm::SubscriptionSegment, shard), u64{2});
                   return copy.plain + ".state";
                 }},
                count("books", offsetof(SubscriptionBlock, matched)),
                count("books", offsetof(SubscriptionBlock, purged)),
                count("books", offsetof(SubscriptionBlock, dropped_too_large)),
                count("books", offsetof(SubscriptionBlock, expired)),
                count("books", offsetof(SubscriptionBlock, totals) + 8),
                count("delivery", offsetof(SubscriptionBlock, matched), -u64{20}),
                count("totals", offsetof(SubscriptionBlock, totals)),
                count("backlog_events", offsetof(SubscriptionBlock, backlog_events)),
                count("backlog_bytes", offsetof(SubscriptionBlock, backlog_bytes), 16),
                count("retry_events", offsetof(SubscriptionBlock, retry_events)),
                count("retry_bytes", offsetof(SubscriptionBlock, retry_bytes)),
                count("delayed_events", offsetof(SubscriptionBlock, delayed_events)),
                count("delayed_bytes", offsetof(SubscriptionBlock, delayed_bytes)),
                count("dead_events", offsetof(SubscriptionBlock, dead_events)),
                count("dead_bytes", offsetof(SubscriptionBlock, dead_bytes)),
                count("dead_lettered", offsetof(SubscriptionBlock, dead_lettered)),
                count("n", 0, huge),
                count("backlog_expires", offsetof(SubscriptionBlock, backlog_expires), -u64{1}),
                count("backlog_positions", backlog, huge),
                count("retry_positions", retry, 8),
                count("dead_positions", dead, huge),
                in_state("sink", offsetof(shm::SubscriptionSegment, backlog) + 8, huge),
                in_state("slot_owner", offsetof(shm::SubscriptionSegment, slot_owners), u16{3}),
                in_state("backlog_segment", offsetof(shm::SubscriptionSegment, backlog_tail), u64{5} << 32 | 192),
                {"backlog_segment",
                 [](const Copy& copy) {
                   copy.directory->remove(copy.plain + ".backlog.00000001");
                   return copy.plain + ".state";
                 }},
                {"size",
                 [](const Copy& copy) {
                   copy.truncate(copy.plain + ".dead.00000001", 208);
                   return copy.plain + ".dead.00000001";
                 }},
                {"owner",
                 [](const Copy& copy) {
                   copy.put(copy.plain + ".retry.00000001", offsetof(SegmentHeader, owner), u64{2});
                   return copy.plain + ".retry.00000001";
                 }},
                in_log("record", ".backlog", backlog, 0, u32{huge >> 25}),
                in_log("record", ".backlog", backlog, 0, u32{0}),
                in_log("record", ".backlog", backlog, 4, u16{2}),
                in_log("record", ".backlog", backlog, 6, shm::flag_later),
                in_log("record", ".backlog", backlog, 6, u16{64}),
                in_log("record", ".backlog", backlog, offsetof(RecordHeader, payload_bytes), u32{99}),
                in_log("record", ".backlog", backlog, offsetof(RecordHeader, delivery), u64{0}),
                in_log("record", ".backlog", backlog, offsetof(RecordHeader, publisher), u16{1024}),
                in_log("publisher", ".backlog", backlog, offsetof(RecordHeader, publisher), u16{500}),
                in_log("topic_number", ".backlog", backlog, offsetof(RecordHeader, topic), u32{77}),
                in_log("delivery_twice", ".backlog", backlog, offsetof(RecordHeader, delivery), u64{9}),
                in_log("record", ".retry", retry, later, u32{3}),
                in_log("record", ".dead", dead, later, u32{1}),
                in_log("record", ".dead", dead, 6, u16{0}),
                in_log("record", ".dead", dead, later + offsetof(shm::LaterInfo, reason_bytes), u32{huge >> 25}),
                in_log("record", ".retry", retry, attempt + offsetof(shm::AttemptInfo, attempt), u32{0}),
                in_log("record", ".retry", retry, attempt + offsetof(shm::AttemptInfo, history), u16{17}),
                in_log("record", ".retry", retry, attempt + offsetof(shm::AttemptInfo, budget_from), u32{5}),
                in_log("record", ".retry", retry, attempt + sizeof(shm::AttemptInfo) + 8, u32{4}),
            });
}

TEST_CASE("damage to the ring of a member and to its ack page is found") {
  const RichWorld world;
  const auto record = [](u64 offset, auto value, const char* check = "record") {
    return Damage{check, [=](const Copy& copy) {
                    copy.put(copy.ring, copy.first_record() + offset, value);
                    return copy.ring;
                  }};
  };
  const auto block = [](const char* check, u64 field, u64 more) {
    return Damage{check, [=](const Copy& copy) {
                    copy.put(copy.ring, copy.in_ring_block(field),
                             copy.at<u64>(copy.ring, copy.in_ring_block(field)) + more);
                    return copy.ring;
                  }};
  };
  const auto state = [](u64 entry, std::uint8_t byte) {
    return Damage{byte == 0x82 ? "books" : "state", [=](const Copy& copy) {
                    copy.put(copy.ring, copy.first_state() + entry, byte);
                    return byte == 0x82 ? copy.plain + ".state" : copy.ring;
                  }};
  };
  check_all(world, {
                       put("ring_bytes", &Copy::ring, offsetof(MemberRing, ring_bytes), u64{8192}),
                       put("ring_bytes", &Copy::ring, offsetof(MemberRing, slots), u64{32}),
                       put("number", &Copy::ring, offsetof(MemberRing, number), u64{1}),
                       put("tail", &Copy::ring, offsetof(MemberRing, tail), huge),
                       put("revoked", &Copy::ring, offsetof(MemberRing, revoked), huge),
                       put("sink", &Copy::ring, offsetof(MemberRing, sink) + 8, huge),
                       put("acks_wanted", &Copy::ring, offsetof(MemberRing, acks_wanted), u32{2}),
                       put("floor", &Copy::ring, offsetof(MemberRing, start_position), huge),
                       block("totals", offsetof(RingBlock, totals) + 8, 1),
                       block("totals", offsetof(RingBlock, floor_entry), 1),
                       block("tail", offsetof(RingBlock, floor_position), 8),
                       {"entries",
                        [](const Copy& copy) {
                          copy.add_to_block(offsetof(SubscriptionBlock, entries), 1);
                          return copy.ring;
                        }},
                       {"entries",
                        [](const Copy& copy) {
                          copy.add_to_block(offsetof(SubscriptionBlock, entries), -u64{1});
                          return copy.ring;
                        }},
                       record(0, u32{24}),
                       record(0, u32{1} << 20),
                       record(4, u16{3}),
                       record(4, u16{2}),
                       record(6, shm::flag_later),
                       record(offsetof(RecordHeader, key_bytes), u16{999}),
                       record(offsetof(RecordHeader, publisher), u16{500}, "publisher"),
                       record(offsetof(RecordHeader, topic), u32{77}, "topic_number"),
                       state(0, 0x20),
                       state(0, 0x80),
                       state(0, 0x07),
                       state(0, 0x82),
                       put("taken", &Copy::ack, offsetof(shm::AckPage, taken), huge),
                       put("taken", &Copy::ack, offsetof(shm::AckPage, taken), u64{0}),
                       put("acked_through", &Copy::ack, offsetof(shm::AckPage, acked_through), u64{16}),
                       put("refused", &Copy::ack, offsetof(shm::AckPage, refused), huge),
                       put("released", &Copy::ack, offsetof(shm::AckPage, released), huge),
                       put("start_entry", &Copy::ack, offsetof(shm::AckPage, start_entry), huge),
                       put("slots", &Copy::ack, offsetof(shm::AckPage, slots), u64{8}),
                       put("parked", &Copy::ack, offsetof(shm::AckPage, parked), u32{2}),
                       put("magic", &Copy::ack, 0, u64{0}),
                       put("verdict", &Copy::ack, shm::page_bytes, u64{9}),
                       put("word", &Copy::ack, shm::page_bytes, huge),
                       put("word", &Copy::ack, shm::page_bytes + 15 * 8, u64{1}),
                   });
}
