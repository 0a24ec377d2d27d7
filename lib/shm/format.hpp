// Every structure that two processes share, in one place. docs/shm-format.md draws them; tests/tidy holds it to this file.
//
// Rules: little-endian; one writer per file; every field has an asserted offset; no implicit padding; a word that is
// read by another process while it may change is a Word<T>, the rest is written before the file gets its name.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lib/shm/measure_format.hpp"
#include "lib/shm/record_format.hpp"
#include "lib/shm/transaction_number.hpp"

namespace ackring::shm {

static_assert(std::endian::native == std::endian::little, "ackring's shared layouts are little-endian");

inline constexpr std::uint64_t segment_magic = 0x31676e69726b6361;  // "ackring1" in memory
inline constexpr std::uint32_t layout_version = 1;
inline constexpr std::size_t page_bytes = 4096;

enum class SegmentKind : std::uint32_t {
  exchange = 1,        // X writes; one per bus
  topics = 2,          // X writes; interned topics, append-only
  ingress_ring = 3,    // a publisher writes
  ingress_cursor = 4,  // X writes; what it has consumed of one ingress ring
  subscription = 5,    // X writes; counters and log positions
  member_ring = 6,     // X writes; records for one member
  ack_page = 7,        // the member writes
  log = 8,             // X writes; one segment file of a SegmentLog
};

/// First bytes of every segment. All but `magic` are written before `magic`, which is stored last with release.
struct SegmentHeader {
  Word64 magic;
  std::uint32_t layout_version;
  std::uint32_t kind;           // SegmentKind
  std::uint64_t segment_bytes;  // bytes of the file when it was created (topics and cursor files may grow)
  std::uint64_t generation;     // generation of the exchange that created it
  std::array<std::uint8_t, 16> boot_id;
  std::uint64_t created_unix_ns;
  std::uint64_t owner;  // publisher slot, subscription id or log segment number
  std::array<std::uint8_t, 64> reserved;
};

// ------------------------------------------------------------------------------------------------------------- exchange

inline constexpr std::size_t max_publishers = 1024;
inline constexpr std::size_t name_bytes = 64;  // names of publishers and subscriptions, with the closing zero

/// What moves where. redeliver, retry, bury: a delivery of the member ring, into ring or backlog, the retry log, the
/// dead-letter log. hand: one that was not taken, into the ring of another member. park: the head of a backlog, into the
/// retry log, where it waits for its key slot. set_aside: one that was not taken, into the retry log. discard, forget,
/// expire: a delivery of a ring (or, with `to` 0, events of the backlog), a record of the retry log, gone since it was
/// purged or (expire) its time was over. release, complete: a record of the retry log, into ring or backlog, or nowhere
/// since it was acked late. requeue, remove: a record of the dead-letter log, into the retry log, or nowhere. give_up,
/// give_up_later: the head of the backlog, a record of the retry log, into the dead-letter log without having been taken.
/// announce: a record of the dead-letter log, a copy of it into the ring of X's own publisher.
enum class TransactionKind : std::uint32_t {
  none = 0,
  route = 1,
  pump = 2,
  redeliver = 3,
  retry = 4,
  bury = 5,
  release = 6,
  complete = 7,
  requeue = 8,
  remove = 9,
  hand = 10,
  park = 11,
  set_aside = 12,
  discard = 13,
  forget = 14,
  expire = 15,
  give_up = 16,
  give_up_later = 17,
  announce = 18,
  clean = 19,
  begin_with = 20,
};

/// What X is about to do. `n` is stored last; of the two records of a shard the one with the larger `n` counts.
struct Intent {
  Word64 n;
  Word32 kind;  // TransactionKind
  Word32 reserved;
  Word64 source;  // route: publisher slot; otherwise: subscription id
  Word64 from;    // route: ring position; redeliver, retry, bury: entry number in the member ring; else: log position
  Word64 to;      // route: records that begin before this position belong to it; of entries: what their state byte
                  // becomes, and the incarnation of the ring from bit 8 on; pump: the latter
  std::array<std::uint8_t, 24> padding;
};

enum class ExchangeState : std::uint32_t { none = 0, recovering = 1, running = 2, stopped = 3 };
enum class PublisherState : std::uint32_t { none = 0, named = 1, anonymous = 2, exchange = 3 };

/// Directory entry of a publisher. The name is written before `state`; `incarnation` names the ring and cursor files.
struct PublisherEntry {
  Word32 state;  // PublisherState
  std::uint32_t reserved;
  Word64 incarnation;
  Word64 client;  // client incarnation that holds it, 0: nobody
  std::array<char, name_bytes> name;
  std::array<std::uint8_t, 40> padding;
};

struct ExchangeSegment {
  SegmentHeader header;
  Word64 generation;  // +1 at each start of an exchange
  Word64 pid;         // for people; never decides anything
  Word64 started_unix_ns;
  Word32 state;           // ExchangeState
  Word32 fence_required;  // 1: some process has no membarrier, hot sides fence
  Word64 next_client;     // last client incarnation given out
  Word64 next_file;       // last number given to a subscription or incarnation
  Word32 shards;  // bit per shard that subscriptions may belong to; shard 0 is always one, whatever its bit says
  std::array<std::uint8_t, 12> padding0;
  alignas(64) Word64 tick_ns;  // CLOCK_MONOTONIC of X's last tick: a stale one means stalled
  Word64 served_ns;            // how long X has been there, all its lives together: what ack timeouts are told by
  std::array<Word64, max_shards - 1> shard_tick_ns;  // as tick_ns, of the other shards
  std::array<std::uint8_t, 24> padding1;
  alignas(64) std::array<std::array<Intent, 2>, max_shards> intents;
  std::array<std::uint8_t, 3328> padding2;
  std::array<PublisherEntry, max_publishers> publishers;
};

/// Interned topics. A topic's number is its offset in `arena` divided by 8, plus 1; a TopicText lies there.
struct TopicsSegment {
  SegmentHeader header;
  Word64 arena_bytes;  // used
  Word64 count;
  std::array<std::uint8_t, 3952> padding;
  // the arena follows at page_bytes; the file grows
};

struct TopicText {
  std::uint16_t bytes;
  // the text follows, padded to a multiple of 8 bytes in all
};

// -------------------------------------------------------------------------------------------------------------- ingress

/// "The sink holds [base, tail) of transaction n."
struct Sink {
  Word64 base;
  Word64 n;
};

struct IngressRing {
  SegmentHeader header;
  std::uint64_t ring_bytes;      // power of two
  std::uint64_t start_position;  // of this incarnation
  std::array<std::uint8_t, 48> padding0;
  alignas(64) Word64 tail;  // position behind the last committed record
  Word64 events;            // committed by this publisher, earlier incarnations included (stored before `tail`)
  Word64 topics;            // topics defined so far
  Word64 back_pressured;    // publishes refused or made to wait because the ring was full
  std::array<std::uint8_t, 32> padding1;
  alignas(64) Word32 parked;  // 1: the publisher sleeps, ring its bell when `consumed` moves
  std::array<std::uint8_t, 60> padding2;
  std::array<std::uint8_t, 3776> padding3;
  // `ring_bytes` of records follow at page_bytes
};

/// One of two copies, written whole; the copy `version & 1` counts (shm/versioned.hpp).
struct IngressBlock {
  std::uint64_t n;         // transaction that stored this copy
  std::uint64_t consumed;  // position
  std::uint64_t sequence;  // of the last event routed or set aside
  std::uint64_t routed;    // events that matched at least one subscription
  std::uint64_t unroutable;
  std::uint64_t duplicates;
  std::uint64_t discarded;  // invalid
  std::uint64_t denied;     // of topics that the access rules keep from this publisher
};

/// Events that X is through with.
constexpr std::uint64_t events_of(const IngressBlock& block) noexcept {
  return block.routed + block.unroutable + block.duplicates + block.discarded + block.denied;
}

inline constexpr std::size_t max_peer_groups = 60;
inline constexpr std::uint32_t no_topic = 0;  // in a cursor's topic map: the table of topics had no room
inline constexpr std::uint32_t denied_topic = ~std::uint32_t{0};  // … the access rules keep it from this publisher

/// Who a client was when it connected, as the kernel says. Written before the file gets its name.
struct PeerIdentity {
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t group_count;  // of supplementary groups, at most max_peer_groups
  std::uint32_t reserved;
  std::array<std::uint32_t, max_peer_groups> groups;
};

/// How far one shard of X has come in the ring.
struct ShardCursor {
  alignas(64) Word64 consumed;  // what the publisher reads: what is before it in every shard is reusable
  std::array<std::uint8_t, 56> padding0;
  alignas(64) Word32 not_polled;  // of shard 0: bit per shard that sleeps or has this ring off its list: ring the bell
  std::array<std::uint8_t, 60> padding1;
  alignas(64) Word64 version;
  Word64 topics;       // of shard 0: publisher-local topics mapped so far
  Word64 quarantined;  // of shard 0: 1: the ring was found damaged and is not read any more
  Sink sink;           // of shard 0: of a ring that X itself writes
  std::array<std::uint8_t, 24> padding2;
  std::array<IngressBlock, 2> blocks;
};

inline constexpr std::size_t duplicate_notes = 128;

struct IngressCursor {
  SegmentHeader header;
  std::array<ShardCursor, max_shards> shards;
  PeerIdentity owner;  // whose ring it is: what it may publish is asked of the rules that hold just then
  alignas(64) Word64 duplicate_count;  // events that shard 0 found to be known by their ids, while there were others
  std::array<Word64, duplicate_notes> duplicates;  // where the last ones begin, by count modulo their number
  std::array<std::uint8_t, 1400> padding;
  // at page_bytes: Word32 per publisher-local topic (1 based at index 0): its number in the topic table, no_topic or
  // denied_topic; the file grows
};

// --------------------------------------------------------------------------------------------------------- subscription

/// One of two copies, written whole, once per transaction that touches the subscription.
struct SubscriptionBlock {
  std::uint64_t n;              // transaction that stored this copy
  std::uint64_t ring_of_n;      // events of transaction n in the member ring that are counted here
  std::uint64_t backlog_of_n;   // … in the backlog
  std::uint64_t sequence_of_n;  // the last event of transaction n that is counted here (its publisher's sequence)
  std::uint64_t matched;        // = number of the last delivery
  std::uint64_t entries;        // entry number behind the last record of the member ring
  std::uint64_t backlog_head;   // log position
  std::uint64_t backlog_events;
  std::uint64_t backlog_bytes;
  std::uint64_t dropped_newest;
  std::uint64_t dropped_oldest;
  std::uint64_t purged;
  std::uint64_t redelivered;
  std::uint64_t dropped_too_large;      // the record is larger than a quarter of the member ring
  std::uint64_t delivered;              // entries taken from rings that were retired
  std::uint64_t retired_ring;           // incarnation of the last ring whose totals were folded into this block
  std::uint64_t retry_of_n;             // … in the retry log
  std::uint64_t dead_of_n;              // … in the dead-letter log
  std::uint64_t retry_head;             // log position
  std::uint64_t retry_events;           // waiting in the retry log
  std::uint64_t retry_bytes;            // of the records from head to tail
  std::uint64_t dead_head;              // log position
  std::uint64_t dead_events;            // in the dead-letter log
  std::uint64_t dead_bytes;             // of them
  std::uint64_t dead_lettered;          // ever
  std::uint64_t requeued;               // ever
  std::uint64_t dead_removed;           // purged from the dead-letter log
  std::uint64_t delayed_events;         // of retry_events: the attempt that they wait for is not a new one
  std::uint64_t delayed_bytes;          // of them
  std::uint64_t expired;                // not delivered since their time was over, and not dead-lettered
  std::uint64_t backlog_expires;        // 1: the backlog may hold events with a time of their own
  std::uint64_t dead_published;         // log position: what is before it has been published to the dead-letter topic
  std::array<std::uint64_t, 8> totals;  // by DeliveryState, of rings that were retired
};

inline constexpr std::size_t key_slots = 1024;

/// State of one named queue. Its name, patterns and options are in the JSON file beside it.
struct SubscriptionSegment {
  SegmentHeader header;
  alignas(64) Word64 version;
  Word64 backlog_tail;  // log position behind the last committed record
  Sink backlog;
  Word64 invalid_acks;  // members that lost their place since their ack page was not a possible one
  std::array<std::uint8_t, 24> padding0;
  std::array<SubscriptionBlock, 2> blocks;
  alignas(64) Word64 retry_tail;  // log position behind the last committed record
  Sink retry;
  Word64 dead_tail;  // log position behind the last committed record
  Sink dead;
  Word64 shard;          // that it belongs to
  Word32 breaker_order;  // BreakerOrder, for members to come
  std::array<std::uint8_t, 4> padding1;
  std::array<Word16, key_slots> slot_owners;  // MemberRing::number of the member that a key slot belongs to, 0: nobody
  alignas(64) Word64 dead_version;
  std::array<std::uint8_t, 56> padding2;
  std::array<DeadReasonBlock, 2> dead_reasons;
  std::array<std::uint8_t, 960> padding3;
  alignas(64) Word64 latency_version;
  std::array<std::uint8_t, 56> padding4;
  std::array<LatencyBlock, 2> latency;
};

// --------------------------------------------------------------------------------------------------------------- member

enum class DeliveryState : std::uint8_t {
  pending = 0,
  acked = 1,
  nacked = 2,
  timed_out = 3,
  rejected = 4,
  returned = 5,
  member_died = 6,
  late_ack = 7,  // counted only: an ack that came after the delivery had timed out
};
inline constexpr std::size_t delivery_states = 8;
inline constexpr std::uint8_t state_mask = 0x07;    // of a state byte: DeliveryState
inline constexpr std::uint8_t late_ack_bit = 0x40;  // in a state byte: an ack came after the delivery had timed out
inline constexpr std::uint8_t let_go_bit = 0x80;    // in a state byte: the member holds no view of the record any more

/// One of two copies, written whole, when the floor moves.
struct RingBlock {
  std::uint64_t floor_entry;     // entries below are settled, let go and counted in totals
  std::uint64_t floor_position;  // ring position of entry floor_entry
  std::array<std::uint64_t, delivery_states> totals;
  std::array<std::uint8_t, 48> padding;
};

/// "Everything below entry `taken` was taken before `time_ns`", of ExchangeSegment::served_ns.
struct TakenMark {
  Word64 time_ns;
  Word64 taken;
};
inline constexpr std::size_t taken_marks = 128;

/// When the extension of an entry ends.
struct ExtensionMark {
  Word64 entry;        // entry number + 1; 0: none
  Word64 deadline_ns;  // of ExchangeSegment::served_ns; the lowest four bits are the count of its ack word instead
};
inline constexpr std::size_t extension_marks = 64;  // an entry's is in slot `entry` modulo this

/// Ring of one member, with X's state of every entry that is not yet below the floor.
struct MemberRing {
  SegmentHeader header;
  std::uint64_t ring_bytes;  // power of two
  std::uint64_t slots;       // power of two; at most this many entries between floor and tail
  std::uint64_t start_position;
  std::uint64_t start_entry;
  std::uint64_t number;  // of the member among those of its subscription, 1 to 65,535; 0: it has one
  std::array<std::uint8_t, 24> padding0;
  alignas(64) Word64 tail;  // position behind the last committed record
  std::array<std::uint8_t, 56> padding1;
  alignas(64) Word64 revoked;  // entries below it that were not taken belong to X again
  std::array<std::uint8_t, 56> padding2;
  alignas(64) Word32 acks_wanted;  // 1: X waits for space or credit; ring its bell after a verdict
  Word32 breaker_order;            // BreakerOrder
  std::array<std::uint8_t, 56> padding3;
  alignas(64) Sink sink;
  Word64 client;    // client incarnation of the member, 0: none
  Word64 ack_page;  // number of the member's ack page, 0: none
  Word64 version;
  Word32 owner;  // uid of that client
  Word32 reserved;
  std::array<std::uint8_t, 16> padding4;
  std::array<RingBlock, 2> blocks;
  // The watchdog's notes, for the X that comes after this one.
  Word64 idle_taken;       // `taken` has had this value …
  Word64 idle_since_ns;    // … since then, of ExchangeSegment::served_ns; 0: not known
  Word64 timed_out_below;  // entries below were looked at for a time-out
  Word64 marks_end;        // marks made so far: mark n is in slot n modulo taken_marks, the oldest slot is not valid
  std::array<std::uint8_t, 32> padding5;
  std::array<TakenMark, taken_marks> marks;
  std::array<ExtensionMark, extension_marks> extensions;
  std::array<std::uint8_t, 256> padding6;
  // at page_bytes: `slots` state bytes (Word8), rounded up to pages; then `ring_bytes` of records
};

/// Written by the member only.
struct AckPage {
  SegmentHeader header;
  std::uint64_t slots;
  std::uint64_t start_entry;  // of this page: the first entry its member may take
  std::array<std::uint8_t, 48> padding0;
  alignas(64) Word64 taken;  // entry number behind the last one handed to user code
  std::array<std::uint8_t, 56> padding1;
  alignas(64) Word64 acked_through;  // every entry below it that has no verdict of its own is acked
  Word64 refused;                    // entry number behind the last one with a verdict other than ack
  std::array<std::uint8_t, 48> padding2;
  alignas(64) Word64 released;  // entries below it are let go, verdict or not
  std::array<std::uint8_t, 56> padding3;
  alignas(64) Word32 parked;  // 1: the member sleeps, ring its bell after a delivery
  std::array<std::uint8_t, 60> padding4;
  alignas(64) Word64 reasons;  // reject reasons begun: the next one takes this slot, modulo reject_reasons
  std::array<std::uint8_t, 56> padding5;
  alignas(64) Word32 breaker;  // BreakerState
  Word32 breaker_failures;     // calls of the handler that failed since one succeeded
  Word64 breaker_since_ns;     // CLOCK_MONOTONIC, when it came into its state
  Word64 breaker_opened;       // times that it has opened
  std::array<std::uint8_t, 3560> padding6;
  // at page_bytes: `slots` ack words (Word64), rounded up to pages; then reject_reasons of RejectReason; then MemberLatency
};

struct LogSegment {
  SegmentHeader header;
  std::array<std::uint8_t, 64> padding;
  // records follow at log_data_offset
};
inline constexpr std::size_t log_data_offset = 192;

}  // namespace ackring::shm
