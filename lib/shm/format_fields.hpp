// The shared structures as a list of (struct, field, offset, size): asserts every offset and every size, and lets
// tests/tidy compare docs/shm-format.md with the code. A change of a line here is a change of the layout version.
#pragma once

#include "lib/shm/format.hpp"

// X-macro: S(struct, bytes) opens a structure, F(struct, field, offset, bytes) is one field of it.
#define ACKRING_SHARED_LAYOUT(S, F) \
  S(SegmentHeader, 128) \
  F(SegmentHeader, magic, 0, 8) \
  F(SegmentHeader, layout_version, 8, 4) \
  F(SegmentHeader, kind, 12, 4) \
  F(SegmentHeader, segment_bytes, 16, 8) \
  F(SegmentHeader, generation, 24, 8) \
  F(SegmentHeader, boot_id, 32, 16) \
  F(SegmentHeader, created_unix_ns, 48, 8) \
  F(SegmentHeader, owner, 56, 8) \
  F(SegmentHeader, reserved, 64, 64) \
  S(RecordHeader, 48) \
  F(RecordHeader, bytes, 0, 4) \
  F(RecordHeader, kind, 4, 2) \
  F(RecordHeader, flags, 6, 2) \
  F(RecordHeader, sequence, 8, 8) \
  F(RecordHeader, published_ns, 16, 8) \
  F(RecordHeader, topic, 24, 4) \
  F(RecordHeader, payload_bytes, 28, 4) \
  F(RecordHeader, headers_bytes, 32, 4) \
  F(RecordHeader, key_bytes, 36, 2) \
  F(RecordHeader, publisher, 38, 2) \
  F(RecordHeader, delivery, 40, 8) \
  S(TimingInfo, 16) \
  F(TimingInfo, expires_ns, 0, 8) \
  F(TimingInfo, not_before_ns, 8, 8) \
  S(AttemptInfo, 32) \
  F(AttemptInfo, first_delivered_ns, 0, 8) \
  F(AttemptInfo, attempt, 8, 4) \
  F(AttemptInfo, cause, 12, 2) \
  F(AttemptInfo, history, 14, 2) \
  F(AttemptInfo, budget_from, 16, 4) \
  F(AttemptInfo, requeued, 20, 4) \
  F(AttemptInfo, reserved2, 24, 8) \
  S(PastAttempt, 16) \
  F(PastAttempt, ended_ns, 0, 8) \
  F(PastAttempt, attempt, 8, 4) \
  F(PastAttempt, cause, 12, 4) \
  S(LaterInfo, 48) \
  F(LaterInfo, state, 0, 4) \
  F(LaterInfo, reason_bytes, 4, 4) \
  F(LaterInfo, due_ns, 8, 8) \
  F(LaterInfo, entry, 16, 8) \
  F(LaterInfo, ring, 24, 8) \
  F(LaterInfo, dead_unix_ns, 32, 8) \
  F(LaterInfo, untaken, 40, 8) \
  S(Intent, 64) \
  F(Intent, n, 0, 8) \
  F(Intent, kind, 8, 4) \
  F(Intent, reserved, 12, 4) \
  F(Intent, source, 16, 8) \
  F(Intent, from, 24, 8) \
  F(Intent, to, 32, 8) \
  F(Intent, padding, 40, 24) \
  S(PublisherEntry, 128) \
  F(PublisherEntry, state, 0, 4) \
  F(PublisherEntry, reserved, 4, 4) \
  F(PublisherEntry, incarnation, 8, 8) \
  F(PublisherEntry, client, 16, 8) \
  F(PublisherEntry, name, 24, 64) \
  F(PublisherEntry, padding, 88, 40) \
  S(ExchangeSegment, 135168) \
  F(ExchangeSegment, header, 0, 128) \
  F(ExchangeSegment, generation, 128, 8) \
  F(ExchangeSegment, pid, 136, 8) \
  F(ExchangeSegment, started_unix_ns, 144, 8) \
  F(ExchangeSegment, state, 152, 4) \
  F(ExchangeSegment, fence_required, 156, 4) \
  F(ExchangeSegment, next_client, 160, 8) \
  F(ExchangeSegment, next_file, 168, 8) \
  F(ExchangeSegment, shards, 176, 4) \
  F(ExchangeSegment, padding0, 180, 12) \
  F(ExchangeSegment, tick_ns, 192, 8) \
  F(ExchangeSegment, served_ns, 200, 8) \
  F(ExchangeSegment, shard_tick_ns, 208, 24) \
  F(ExchangeSegment, padding1, 232, 24) \
  F(ExchangeSegment, intents, 256, 512) \
  F(ExchangeSegment, padding2, 768, 3328) \
  F(ExchangeSegment, publishers, 4096, 131072) \
  S(TopicsSegment, 4096) \
  F(TopicsSegment, header, 0, 128) \
  F(TopicsSegment, arena_bytes, 128, 8) \
  F(TopicsSegment, count, 136, 8) \
  F(TopicsSegment, padding, 144, 3952) \
  S(TopicText, 2) \
  F(TopicText, bytes, 0, 2) \
  S(IngressRing, 4096) \
  F(IngressRing, header, 0, 128) \
  F(IngressRing, ring_bytes, 128, 8) \
  F(IngressRing, start_position, 136, 8) \
  F(IngressRing, padding0, 144, 48) \
  F(IngressRing, tail, 192, 8) \
  F(IngressRing, events, 200, 8) \
  F(IngressRing, topics, 208, 8) \
  F(IngressRing, back_pressured, 216, 8) \
  F(IngressRing, padding1, 224, 32) \
  F(IngressRing, parked, 256, 4) \
  F(IngressRing, padding2, 260, 60) \
  F(IngressRing, padding3, 320, 3776) \
  S(IngressBlock, 64) \
  F(IngressBlock, n, 0, 8) \
  F(IngressBlock, consumed, 8, 8) \
  F(IngressBlock, sequence, 16, 8) \
  F(IngressBlock, routed, 24, 8) \
  F(IngressBlock, unroutable, 32, 8) \
  F(IngressBlock, duplicates, 40, 8) \
  F(IngressBlock, discarded, 48, 8) \
  F(IngressBlock, denied, 56, 8) \
  S(PeerIdentity, 256) \
  F(PeerIdentity, uid, 0, 4) \
  F(PeerIdentity, gid, 4, 4) \
  F(PeerIdentity, group_count, 8, 4) \
  F(PeerIdentity, reserved, 12, 4) \
  F(PeerIdentity, groups, 16, 240) \
  S(ShardCursor, 320) \
  F(ShardCursor, consumed, 0, 8) \
  F(ShardCursor, padding0, 8, 56) \
  F(ShardCursor, not_polled, 64, 4) \
  F(ShardCursor, padding1, 68, 60) \
  F(ShardCursor, version, 128, 8) \
  F(ShardCursor, topics, 136, 8) \
  F(ShardCursor, quarantined, 144, 8) \
  F(ShardCursor, sink, 152, 16) \
  F(ShardCursor, padding2, 168, 24) \
  F(ShardCursor, blocks, 192, 128) \
  S(IngressCursor, 4096) \
  F(IngressCursor, header, 0, 128) \
  F(IngressCursor, shards, 128, 1280) \
  F(IngressCursor, owner, 1408, 256) \
  F(IngressCursor, duplicate_count, 1664, 8) \
  F(IngressCursor, duplicates, 1672, 1024) \
  F(IngressCursor, padding, 2696, 1400) \
  S(Sink, 16) \
  F(Sink, base, 0, 8) \
  F(Sink, n, 8, 8) \
  S(SubscriptionBlock, 320) \
  F(SubscriptionBlock, n, 0, 8) \
  F(SubscriptionBlock, ring_of_n, 8, 8) \
  F(SubscriptionBlock, backlog_of_n, 16, 8) \
  F(SubscriptionBlock, sequence_of_n, 24, 8) \
  F(SubscriptionBlock, matched, 32, 8) \
  F(SubscriptionBlock, entries, 40, 8) \
  F(SubscriptionBlock, backlog_head, 48, 8) \
  F(SubscriptionBlock, backlog_events, 56, 8) \
  F(SubscriptionBlock, backlog_bytes, 64, 8) \
  F(SubscriptionBlock, dropped_newest, 72, 8) \
  F(SubscriptionBlock, dropped_oldest, 80, 8) \
  F(SubscriptionBlock, purged, 88, 8) \
  F(SubscriptionBlock, redelivered, 96, 8) \
  F(SubscriptionBlock, dropped_too_large, 104, 8) \
  F(SubscriptionBlock, delivered, 112, 8) \
  F(SubscriptionBlock, retired_ring, 120, 8) \
  F(SubscriptionBlock, retry_of_n, 128, 8) \
  F(SubscriptionBlock, dead_of_n, 136, 8) \
  F(SubscriptionBlock, retry_head, 144, 8) \
  F(SubscriptionBlock, retry_events, 152, 8) \
  F(SubscriptionBlock, retry_bytes, 160, 8) \
  F(SubscriptionBlock, dead_head, 168, 8) \
  F(SubscriptionBlock, dead_events, 176, 8) \
  F(SubscriptionBlock, dead_bytes, 184, 8) \
  F(SubscriptionBlock, dead_lettered, 192, 8) \
  F(SubscriptionBlock, requeued, 200, 8) \
  F(SubscriptionBlock, dead_removed, 208, 8) \
  F(SubscriptionBlock, delayed_events, 216, 8) \
  F(SubscriptionBlock, delayed_bytes, 224, 8) \
  F(SubscriptionBlock, expired, 232, 8) \
  F(SubscriptionBlock, backlog_expires, 240, 8) \
  F(SubscriptionBlock, dead_published, 248, 8) \
  F(SubscriptionBlock, totals, 256, 64) \
  S(LatencyHistogram, 2048) \
  F(LatencyHistogram, counts, 0, 2032) \
  F(LatencyHistogram, sum_ns, 2032, 8) \
  F(LatencyHistogram, max_ns, 2040, 8) \
  S(LatencyCounts, 2048) \
  F(LatencyCounts, counts, 0, 2032) \
  F(LatencyCounts, sum_ns, 2032, 8) \
  F(LatencyCounts, max_ns, 2040, 8) \
  S(LatencyBlock, 4160) \
  F(LatencyBlock, ack_page, 0, 8) \
  F(LatencyBlock, padding, 8, 56) \
  F(LatencyBlock, take, 64, 2048) \
  F(LatencyBlock, ack, 2112, 2048) \
  S(DeadReasonBlock, 64) \
  F(DeadReasonBlock, n, 0, 8) \
  F(DeadReasonBlock, dead_of_n, 8, 8) \
  F(DeadReasonBlock, counts, 16, 48) \
  S(SubscriptionSegment, 12480) \
  F(SubscriptionSegment, header, 0, 128) \
  F(SubscriptionSegment, version, 128, 8) \
  F(SubscriptionSegment, backlog_tail, 136, 8) \
  F(SubscriptionSegment, backlog, 144, 16) \
  F(SubscriptionSegment, invalid_acks, 160, 8) \
  F(SubscriptionSegment, padding0, 168, 24) \
  F(SubscriptionSegment, blocks, 192, 640) \
  F(SubscriptionSegment, retry_tail, 832, 8) \
  F(SubscriptionSegment, retry, 840, 16) \
  F(SubscriptionSegment, dead_tail, 856, 8) \
  F(SubscriptionSegment, dead, 864, 16) \
  F(SubscriptionSegment, shard, 880, 8) \
  F(SubscriptionSegment, breaker_order, 888, 4) \
  F(SubscriptionSegment, padding1, 892, 4) \
  F(SubscriptionSegment, slot_owners, 896, 2048) \
  F(SubscriptionSegment, dead_version, 2944, 8) \
  F(SubscriptionSegment, padding2, 2952, 56) \
  F(SubscriptionSegment, dead_reasons, 3008, 128) \
  F(SubscriptionSegment, padding3, 3136, 960) \
  F(SubscriptionSegment, latency_version, 4096, 8) \
  F(SubscriptionSegment, padding4, 4104, 56) \
  F(SubscriptionSegment, latency, 4160, 8320) \
  S(RingBlock, 128) \
  F(RingBlock, floor_entry, 0, 8) \
  F(RingBlock, floor_position, 8, 8) \
  F(RingBlock, totals, 16, 64) \
  F(RingBlock, padding, 80, 48) \
  S(TakenMark, 16) \
  F(TakenMark, time_ns, 0, 8) \
  F(TakenMark, taken, 8, 8) \
  S(ExtensionMark, 16) \
  F(ExtensionMark, entry, 0, 8) \
  F(ExtensionMark, deadline_ns, 8, 8) \
  S(MemberRing, 4096) \
  F(MemberRing, header, 0, 128) \
  F(MemberRing, ring_bytes, 128, 8) \
  F(MemberRing, slots, 136, 8) \
  F(MemberRing, start_position, 144, 8) \
  F(MemberRing, start_entry, 152, 8) \
  F(MemberRing, number, 160, 8) \
  F(MemberRing, padding0, 168, 24) \
  F(MemberRing, tail, 192, 8) \
  F(MemberRing, padding1, 200, 56) \
  F(MemberRing, revoked, 256, 8) \
  F(MemberRing, padding2, 264, 56) \
  F(MemberRing, acks_wanted, 320, 4) \
  F(MemberRing, breaker_order, 324, 4) \
  F(MemberRing, padding3, 328, 56) \
  F(MemberRing, sink, 384, 16) \
  F(MemberRing, client, 400, 8) \
  F(MemberRing, ack_page, 408, 8) \
  F(MemberRing, version, 416, 8) \
  F(MemberRing, owner, 424, 4) \
  F(MemberRing, reserved, 428, 4) \
  F(MemberRing, padding4, 432, 16) \
  F(MemberRing, blocks, 448, 256) \
  F(MemberRing, idle_taken, 704, 8) \
  F(MemberRing, idle_since_ns, 712, 8) \
  F(MemberRing, timed_out_below, 720, 8) \
  F(MemberRing, marks_end, 728, 8) \
  F(MemberRing, padding5, 736, 32) \
  F(MemberRing, marks, 768, 2048) \
  F(MemberRing, extensions, 2816, 1024) \
  F(MemberRing, padding6, 3840, 256) \
  S(AckPage, 4096) \
  F(AckPage, header, 0, 128) \
  F(AckPage, slots, 128, 8) \
  F(AckPage, start_entry, 136, 8) \
  F(AckPage, padding0, 144, 48) \
  F(AckPage, taken, 192, 8) \
  F(AckPage, padding1, 200, 56) \
  F(AckPage, acked_through, 256, 8) \
  F(AckPage, refused, 264, 8) \
  F(AckPage, padding2, 272, 48) \
  F(AckPage, released, 320, 8) \
  F(AckPage, padding3, 328, 56) \
  F(AckPage, parked, 384, 4) \
  F(AckPage, padding4, 388, 60) \
  F(AckPage, reasons, 448, 8) \
  F(AckPage, padding5, 456, 56) \
  F(AckPage, breaker, 512, 4) \
  F(AckPage, breaker_failures, 516, 4) \
  F(AckPage, breaker_since_ns, 520, 8) \
  F(AckPage, breaker_opened, 528, 8) \
  F(AckPage, padding6, 536, 3560) \
  S(MemberLatency, 4096) \
  F(MemberLatency, take, 0, 2048) \
  F(MemberLatency, ack, 2048, 2048) \
  S(RejectReason, 128) \
  F(RejectReason, entry, 0, 8) \
  F(RejectReason, text, 8, 120) \
  S(LogSegment, 192) \
  F(LogSegment, header, 0, 128) \
  F(LogSegment, padding, 128, 64)

namespace ackring::shm {

#define ACKRING_ASSERT_STRUCT(type, size) \
  static_assert(sizeof(type) == (size), #type " has another size than documented"); \
  static_assert(std::is_standard_layout_v<type>);
#define ACKRING_ASSERT_FIELD(type, field, at, size) \
  static_assert(offsetof(type, field) == (at) && sizeof(type::field) == (size), #type "::" #field " has moved");
ACKRING_SHARED_LAYOUT(ACKRING_ASSERT_STRUCT, ACKRING_ASSERT_FIELD)
#undef ACKRING_ASSERT_STRUCT
#undef ACKRING_ASSERT_FIELD

namespace layout {
struct Row {
  const char* type;
  const char* field;  // nullptr: the structure itself
  std::size_t offset;
  std::size_t bytes;
};
#define ACKRING_ROW_STRUCT(type, size) Row{#type, nullptr, 0, size},
#define ACKRING_ROW_FIELD(type, field, at, size) Row{#type, #field, at, size},
inline constexpr Row rows[] = {ACKRING_SHARED_LAYOUT(ACKRING_ROW_STRUCT, ACKRING_ROW_FIELD)};
#undef ACKRING_ROW_STRUCT
#undef ACKRING_ROW_FIELD

/// True when the fields of every structure follow each other without a gap and fill it.
constexpr bool gapless() {
  std::size_t expected = 0;
  std::size_t size = 0;
  for (const Row& row : rows) {
    if (row.field == nullptr) {
      if (expected != size) return false;
      expected = 0;
      size = row.bytes;
    } else {
      if (row.offset != expected) return false;
      expected += row.bytes;
    }
  }
  return expected == size;
}
static_assert(gapless(), "a shared structure has implicit padding");
}  // namespace layout

}  // namespace ackring::shm
