#include "lib/exchange/sound.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "ackring/error.hpp"
#include "lib/exchange/attempt.hpp"
#include "lib/exchange/snapshot.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::RecordKind;

namespace {

[[noreturn]] void throw_damaged(const std::string& object, std::string why) {
  throw Error(ErrorCode::damaged, object, std::move(why), "keep a copy of the bus directory");
}

bool is_known(const RecordHeader& record, const Known& known) {
  if (record.publisher >= known.page.publishers.size() || known.topics.text(record.topic).empty()) return false;
  // acquire(publisher.state): the name
  return known.page.publishers[record.publisher].state.load(std::memory_order_acquire) != 0;
}

}  // namespace

void check_bytes(const shm::Segment& segment, std::uint64_t least) {
  if (segment.bytes() >= least) return;
  throw_damaged(segment.name(),
                "it has " + std::to_string(segment.bytes()) + " bytes, and " + std::to_string(least) + " are needed");
}

void check_exchange(const shm::Segment& segment) {
  check_bytes(segment, sizeof(shm::ExchangeSegment));
  const auto& page = *segment.as<const shm::ExchangeSegment>();
  for (std::size_t shard = 0; shard < shm::max_shards; ++shard) {
    // The two records of a shard take turns, by the parity of their numbers.
    const std::uint64_t even =
        page.intents[shard][0].n.load(std::memory_order_acquire);  // acquire(intent.n): its record
    const std::uint64_t odd =
        page.intents[shard][1].n.load(std::memory_order_acquire);  // acquire(intent.n): its record
    const std::uint64_t last = std::max(even, odd);
    const std::uint64_t before = std::max(std::min(even, odd), last == 0 ? 0 : shm::first_n(shard));
    if (even % 2 != 0 || (odd % 2 == 0 && odd != 0) || last > largest_number || last - before > 1 ||
        (last != 0 && shm::shard_of(last) != shard)) {
      throw_damaged(segment.name(),
                    "its last transactions can't be " + std::to_string(even) + " and " + std::to_string(odd));
    }
  }
  // relaxed: X's own word, of an X that is gone
  if (page.shards.load(std::memory_order_relaxed) >> shm::max_shards != 0) {
    throw_damaged(segment.name(), "it names shards that there can't be");
  }
  // relaxed: X's own words, of an X that is gone
  const std::uint64_t next_file = page.next_file.load(std::memory_order_relaxed);
  const std::uint64_t next_client = page.next_client.load(std::memory_order_relaxed);  // relaxed: as above
  if (next_file > largest_number || next_client > largest_number) {
    throw_damaged(segment.name(), "the numbers that it has given out can't be " + std::to_string(next_file) + " and " +
                                      std::to_string(next_client));
  }
  for (const shm::PublisherEntry& entry : page.publishers) {
    // acquire(publisher.state): the name
    if (entry.state.load(std::memory_order_acquire) == 0) continue;
    if (std::find(entry.name.begin(), entry.name.end(), '\0') == entry.name.end()) {
      throw_damaged(segment.name(), "the name of a publisher in it has no end");
    }
    // acquire(publisher.incarnation): its files
    if (entry.incarnation.load(std::memory_order_acquire) > largest_number) {
      throw_damaged(segment.name(), "the files of a publisher in it have an impossible number");
    }
  }
}

void check_ring_sizes(const shm::Segment& segment, const SubscriptionOptions& options) {
  check_bytes(segment, shm::page_bytes);
  const auto& ring = *segment.as<const shm::MemberRing>();
  const std::uint64_t slots = std::bit_ceil(std::uint64_t{options.max_in_flight});
  if (ring.slots != slots || ring.ring_bytes != options.ring_bytes) {
    throw_damaged(segment.name(), "it has " + std::to_string(ring.ring_bytes) + " bytes and " +
                                      std::to_string(ring.slots) + " entries, its subscription asks for " +
                                      std::to_string(options.ring_bytes) + " and " + std::to_string(slots));
  }
  const std::uint64_t states = (slots + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
  check_bytes(segment, shm::page_bytes + states + options.ring_bytes);
}

bool is_sound(const RecordHeader& record, std::uint64_t available, bool later) noexcept {
  if (available < sizeof(RecordHeader) || record.kind != static_cast<std::uint16_t>(RecordKind::event) ||
      record.bytes < sizeof(RecordHeader) || record.bytes > available) {
    return false;
  }
  constexpr unsigned known_flags = shm::flag_attempt | shm::flag_later | shm::flag_timing;
  if ((record.flags & ~known_flags) != 0 || ((record.flags & shm::flag_later) != 0) != later) return false;
  std::uint64_t bytes = sizeof(RecordHeader);
  if ((record.flags & shm::flag_later) != 0) bytes += sizeof(shm::LaterInfo);
  if ((record.flags & shm::flag_timing) != 0) bytes += sizeof(shm::TimingInfo);
  if ((record.flags & shm::flag_attempt) != 0) bytes += sizeof(shm::AttemptInfo);
  if (bytes > record.bytes) return false;
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  if (event.attempt != nullptr) {
    if (event.attempt->history > shm::max_history) return false;
    bytes += event.attempt->history * sizeof(shm::PastAttempt);
  }
  if (event.later != nullptr) bytes += event.later->reason_bytes;
  bytes += std::uint64_t{record.payload_bytes} + record.key_bytes + record.headers_bytes;
  return ring::align_record(bytes) == record.bytes;
}

RingWalk::RingWalk(const std::byte* data, const shm::MemberRing& ring, std::uint64_t floor) noexcept
    : data_(data),
      ring_bytes_(ring.ring_bytes),
      position_(floor),
      tail_(ring.tail.load(std::memory_order_acquire)) {}  // acquire(ring.tail): the records before it

const RecordHeader* RingWalk::next() noexcept {
  if (tail_ - position_ > ring_bytes_ || position_ % shm::record_alignment != 0) return nullptr;
  while (position_ != tail_) {
    const std::uint64_t index = position_ & (ring_bytes_ - 1);
    const std::uint64_t available = std::min(tail_ - position_, ring_bytes_ - index);
    if (available < shm::record_alignment) return nullptr;
    // The part of a header that padding has: there are 16 bytes at least.
    const auto* record = reinterpret_cast<const RecordHeader*>(data_ + index);
    if (record->kind == static_cast<std::uint16_t>(RecordKind::padding) && record->bytes == ring_bytes_ - index &&
        record->bytes <= available) {
      position_ += available;
      continue;
    }
    if (!is_sound(*record, available, false)) return nullptr;
    position_ += record->bytes;
    return record;
  }
  return nullptr;
}

void check_ring(const std::byte* data, const shm::MemberRing& ring, std::uint64_t floor, const std::uint64_t* base,
                const std::string& name, const Known& known, const std::function<void(std::uint64_t)>& each) {
  RingWalk walk(data, ring, floor);
  bool base_found = base == nullptr;
  std::uint64_t before = floor;  // where the record is looked for: padding may come first
  while (const RecordHeader* record = walk.next()) {
    const std::uint64_t begin = walk.position() - record->bytes;
    base_found = base_found || *base == before || *base == begin;
    if (!is_known(*record, known)) {
      throw_damaged(name, "the record at " + std::to_string(begin) + " names a topic or publisher that is not there");
    }
    each(before = walk.position());
  }
  if (!walk.at_tail()) throw_damaged(name, "there is no record at " + std::to_string(walk.position()));
  if (!base_found && static_cast<std::int64_t>(*base - floor) < 0) {  // what was written last has been settled since
    RingWalk settled(data, ring, *base);
    while (settled.next() != nullptr) {
    }
    base_found = settled.at_tail();
  }
  if (!base_found && *base != walk.position()) throw_damaged(name, "what was written last begins with no record");
}

LogCount check_log(const log::SegmentLog& log, std::uint64_t head, bool later, const std::vector<std::uint64_t>& begins,
                   const std::string& name, const Known& known) {
  LogCount count;
  std::vector<std::uint64_t> missing;
  for (const std::uint64_t position : begins) {
    if (position >= std::max(head, log::first_position) && position < log.tail()) missing.push_back(position);
  }
  std::uint64_t position = head;
  for (;;) {
    const std::uint64_t before = position;
    const RecordHeader* record = log.at(position);
    std::erase_if(missing, [&](std::uint64_t begin) { return begin >= before && begin <= position; });
    if (record == nullptr) break;
    if (!is_sound(*record, record->bytes, later) || !is_known(*record, known)) break;
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    // acquire(later.state): where the event went
    if (!later || event.later->state.load(std::memory_order_acquire) == 0) {
      ++count.events;
      count.bytes += record->bytes;
      if (later && is_untaken(event)) {
        ++count.untaken_events;
        count.untaken_bytes += record->bytes;
      }
    }
    position = log::SegmentLog::next(position, *record);
  }
  if (position != log.tail()) throw_damaged(name, "there is no record at " + std::to_string(position) + " of the log");
  if (!missing.empty()) {
    throw_damaged(name, "no record of the log begins at " + std::to_string(missing.front()));
  }
  return count;
}

void check_block(const shm::SubscriptionSegment& state, const shm::SubscriptionBlock& block,
                 const shm::ExchangeSegment& page, const std::string& name) {
  // Of whichever shard it belonged to then.
  const auto check = [&](std::uint64_t n) {
    // acquire(intent.n): its record
    const std::uint64_t last = last_intent(page, shm::shard_of(n)).n.load(std::memory_order_acquire);
    if (n > last)
      throw_damaged(name, "it knows of transaction " + std::to_string(n) + ", the bus has had " + std::to_string(last));
  };
  check(block.n);
  for (const shm::Sink* sink : {&state.backlog, &state.retry, &state.dead}) {
    check(sink->n.load(std::memory_order_acquire));  // acquire(sink.n): base belongs to n
  }
  // relaxed: it changes only while nobody serves the bus
  const std::uint64_t shard = state.shard.load(std::memory_order_relaxed);
  if (shard >= shm::max_shards || !is_shard(page, shard)) {
    throw_damaged(name, "it belongs to shard " + std::to_string(shard) + ", which the bus does not have");
  }
}

}  // namespace ackring::exchange
