#include "lib/exchange/dead_letter_files.hpp"

#include <algorithm>

#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/segment.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

// "sub.<id>" of the subscription, or nothing.
std::string files_of(const shm::Directory& directory, const std::string& name) {
  for (const std::string& file : directory.list("sub.")) {
    if (!file.ends_with(".json")) continue;
    const auto definition = control::Json::parse(directory.read_file(file), nullptr, /*allow_exceptions=*/false);
    if (definition.is_object() && definition.value("name", control::Json()) == name)
      return file.substr(0, file.size() - 5);
  }
  return {};
}

// A requeue or purge that a dead exchange left half done: its counters say that the letter has left, and it is the last
// one whose mark may be missing.
bool has_left(const shm::ExchangeSegment& page, std::uint64_t subscription, std::uint64_t n, std::uint64_t position) {
  const shm::Intent& intent = last_intent(page, shm::shard_of(n));
  const std::uint64_t intended = intent.n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  const auto kind = static_cast<shm::TransactionKind>(intent.kind.load(std::memory_order_relaxed));  // relaxed: after n
  return (kind == shm::TransactionKind::requeue || kind == shm::TransactionKind::remove) && intended == n && n != 0 &&
         intent.source.load(std::memory_order_relaxed) == subscription &&  // relaxed: after n
         intent.from.load(std::memory_order_relaxed) == position;          // relaxed: after n
}

}  // namespace

Error no_subscription(const std::string& name) {
  return Error(ErrorCode::not_found, "subscription '" + name + "'", "there is none of this name",
               "`shmtool subscription ls` lists them");
}

void walk_dead_files(const shm::Directory& directory, const std::string& name,
                     const std::function<bool(const ring::EventParts&)>& each) {
  const std::string prefix = files_of(directory, name);
  if (prefix.empty()) throw no_subscription(name);
  const std::uint64_t id = number_after(prefix, 4);
  const shm::Segment exchange =
      shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  const shm::Segment state =
      shm::Segment::attach(directory, prefix + ".state", shm::SegmentKind::subscription, shm::Access::read_only);
  check_bytes(exchange, sizeof(shm::ExchangeSegment));
  check_bytes(state, sizeof(shm::SubscriptionSegment));
  const auto& subscription = *state.as<const shm::SubscriptionSegment>();
  std::uint64_t tail = subscription.dead_tail.load(std::memory_order_acquire);  // acquire(dead.tail): records before it
  const shm::SubscriptionBlock block = shm::read_block(subscription.version, subscription.blocks);
  // A letter that is not in the counters yet is still where it came from.
  const auto& page = *exchange.as<const shm::ExchangeSegment>();
  const std::uint64_t n = subscription.dead.n.load(std::memory_order_acquire);  // acquire(sink.n): its base
  // acquire(intent.n): its record
  const bool last = n == last_intent(page, shm::shard_of(n)).n.load(std::memory_order_acquire);
  if (n != block.n && last) tail = subscription.dead.base.load(std::memory_order_relaxed);  // relaxed: after n
  walk_log(directory, prefix + ".dead", block.dead_head, tail, [&](std::uint64_t position, const auto& record) {
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
    if (event.later == nullptr) return false;
    // acquire(later.state): where the event went
    const auto left = static_cast<shm::LaterState>(event.later->state.load(std::memory_order_acquire));
    if (left != shm::LaterState::waiting || has_left(page, id, block.n, position)) {
      return true;
    }
    return each(event);
  });
}

void walk_log(const shm::Directory& directory, const std::string& prefix, std::uint64_t head, std::uint64_t tail,
              const std::function<bool(std::uint64_t, const shm::RecordHeader&)>& each) {
  for (const std::string& name : directory.list(prefix + ".")) {
    const std::uint64_t segment = number_after(name, prefix.size() + 1);
    if (segment < head >> 32 || segment > tail >> 32 || name.ends_with(".tmp")) continue;
    const shm::Segment mapped = shm::Segment::attach(directory, name, shm::SegmentKind::log, shm::Access::read_only);
    std::uint64_t at = segment == head >> 32 ? head & 0xffffffff : shm::log_data_offset;
    const std::uint64_t end = segment == tail >> 32 ? std::min(tail & 0xffffffff, mapped.bytes()) : mapped.bytes();
    while (at % shm::record_alignment == 0 && at + sizeof(shm::RecordHeader) <= end) {
      const auto* record = mapped.as<const shm::RecordHeader>(at);
      if (!is_sound(*record, end - at, (record->flags & shm::flag_later) != 0)) break;
      if (!each(segment << 32 | at, *record)) return;
      at += record->bytes;
    }
  }
}

}  // namespace ackring::exchange
