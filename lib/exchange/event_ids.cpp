// Event ids: an event whose id came a short while ago, from whomever, is not routed again.
#include "lib/exchange/event_ids.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "lib/exchange/deliver.hpp"
#include "lib/ring/header_field.hpp"

namespace ackring::exchange {

using shm::RecordHeader;

namespace {

std::string_view headers_of(const RecordHeader& record) noexcept {
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  return {reinterpret_cast<const char*>(event.headers), record.headers_bytes};
}

// Positions never come back, and notes are in their order.
bool is_noted(const shm::IngressCursor& page, std::uint64_t position) noexcept {
  // acquire(ids.notes): the notes below it
  const std::uint64_t count = page.duplicate_count.load(std::memory_order_acquire);
  for (std::uint64_t i = count; i != 0 && count - i < shm::duplicate_notes; --i) {
    // relaxed: published by the count
    const std::uint64_t noted = page.duplicates[(i - 1) % shm::duplicate_notes].load(std::memory_order_relaxed);
    if (noted == position) return true;
    if (static_cast<std::int64_t>(noted - position) < 0) return false;
  }
  return false;
}

}  // namespace

std::string_view EventIds::id_in(std::string_view headers) noexcept {
  std::string_view name;
  std::string_view value;
  while (ring::next_header(headers, name, value)) {
    if (name == event_id_header) return value;
  }
  return {};
}

void EventIds::catch_up() {
  next_ = std::max(next_, queue_->block.backlog_head);
  while (const RecordHeader* record = queue_->backlog.at(next_)) {
    known_.emplace(std::hash<std::string_view>{}(id_in(headers_of(*record))), next_);
    next_ = log::SegmentLog::next(next_, *record);
  }
  if (known_.size() <= 2 * queue_->block.backlog_events + limits::least_event_ids) return;
  std::erase_if(known_, [this](const auto& entry) { return entry.second < queue_->block.backlog_head; });
}

const RecordHeader* EventIds::find(std::string_view wanted, std::uint64_t& position) {
  catch_up();
  const auto [first, last] = known_.equal_range(std::hash<std::string_view>{}(wanted));
  for (auto at = first; at != last; ++at) {
    position = at->second;
    if (position < queue_->block.backlog_head) continue;
    const RecordHeader* record = queue_->backlog.at(position);
    if (record != nullptr && id_in(headers_of(*record)) == wanted) return record;
  }
  return nullptr;
}

/// Is the event at the reader's position one whose id is known? The answer depends on what came before it from all
/// publishers, so one shard gives it: the lead, before it commits that it has passed the event. Others come behind it, and
/// find what it said among the notes of the cursor.
Familiar Exchange::is_known(Ingress& ingress, const Route& route, const RecordHeader& header, const std::byte* body,
                            bool redoing) {
  if (shard_ != 0) {
    if (route.sinks.empty()) return Familiar::no;
    // acquire(ingress.consumed): the notes of what is before it
    const std::uint64_t passed = ingress.first().consumed.load(std::memory_order_acquire);
    if (static_cast<std::int64_t>(passed - ingress.reader.position()) <= 0) return Familiar::not_yet;
    return is_noted(*ingress.cursor_page, ingress.reader.position()) ? Familiar::yes : Familiar::no;
  }
  if (alone()) return has_known_id(header, body, redoing) ? Familiar::yes : Familiar::no;
  // What a predecessor said stands, even if the id has expired since: others may have gone by it.
  if (is_noted(*ingress.cursor_page, ingress.reader.position())) return Familiar::yes;
  if (!has_known_id(header, body, redoing)) return Familiar::no;
  return note_duplicate(ingress) ? Familiar::yes : Familiar::not_yet;
}

// False: some shard has yet to come by the note whose place it would take.
bool Exchange::note_duplicate(Ingress& ingress) {
  shm::IngressCursor& page = *ingress.cursor_page;
  // relaxed: the lead is the only writer
  const std::uint64_t count = page.duplicate_count.load(std::memory_order_relaxed);
  shm::Word64& note = page.duplicates[count % shm::duplicate_notes];
  const std::uint64_t oldest = note.load(std::memory_order_relaxed);  // relaxed: as above
  bool passed = true;
  for_each_shard([&](const Exchange& shard) {
    if (shard.shard_ == 0 || count < shm::duplicate_notes) return;
    // acquire(ingress.consumed): it has read the note
    const std::uint64_t consumed = page.shards[shard.shard_].consumed.load(std::memory_order_acquire);
    passed = passed && static_cast<std::int64_t>(consumed - oldest) > 0;
  });
  if (!passed) return false;
  shm::Environment::at(shm::CrashPoint::event_ids_note);
  note.store(ingress.reader.position(), std::memory_order_relaxed);  // relaxed: published by the count
  page.duplicate_count.store(count + 1, std::memory_order_release);  // release(ids.notes): the notes below it
  return true;
}

/// Has an event with the id of this one been routed already? In a redo it may be this one itself.
bool Exchange::has_known_id(const RecordHeader& header, const std::byte* body, bool redoing) {
  const std::uint64_t timing = (header.flags & shm::flag_timing) != 0 ? sizeof(shm::TimingInfo) : 0;
  // The client may still change it: what is looked at is what was read here, once.
  event_ids_->headers.assign(reinterpret_cast<const char*>(body) + timing + header.payload_bytes + header.key_bytes,
                             header.headers_bytes);
  asm volatile("" ::: "memory");
  event_ids_->id = EventIds::id_in(event_ids_->headers);
  if (event_ids_->id.empty()) return false;
  std::uint64_t position = 0;
  const RecordHeader* record = event_ids_->find(event_ids_->id, position);
  if (record == nullptr) return false;
  const shm::Sink& sink = event_ids_->queue().state->backlog;
  const bool of_this_transaction =
      redoing && sink.n.load(std::memory_order_acquire) == n_ &&  // acquire(sink.n): base belongs to n
      position >= sink.base.load(std::memory_order_relaxed);      // relaxed: after n
  return !(of_this_transaction && record->sequence == header.sequence);
}

/// Keeps the id of an event that has just been routed, in the same transaction. Its time begins when it is routed: what its
/// publisher says of the time does not count. Without room the id is not kept, and that is counted as dropped.
void Exchange::remember_id(const Route& route, const RecordHeader& header, std::uint64_t now_ns, bool redoing) {
  if (event_ids_->id.empty()) return;
  Queue& queue = event_ids_->queue();
  const std::uint64_t bytes = ring::header_prefix_bytes + event_id_header.size() + event_ids_->id.size();
  RecordHeader own = header;
  own.topic = route.topic;
  own.flags = 0;
  own.payload_bytes = 0;
  own.key_bytes = 0;
  own.headers_bytes = static_cast<std::uint32_t>(bytes);
  own.bytes = static_cast<std::uint32_t>(ring::record_bytes(0, 0, bytes));
  if (now_ns != 0) own.published_ns = now_ns;
  alignas(shm::record_alignment) std::array<std::byte, 512> small{};
  std::vector<std::byte> large;
  std::byte* body = small.data();
  if (own.bytes > small.size()) {
    large.resize(own.bytes + shm::record_alignment);
    body = large.data() + (-reinterpret_cast<std::uintptr_t>(large.data()) & (shm::record_alignment - 1));
  }
  ring::write_header_prefix(body, event_id_header, event_ids_->id);
  std::byte* to = std::copy_n(reinterpret_cast<const std::byte*>(event_id_header.data()), event_id_header.size(),
                              body + ring::header_prefix_bytes);
  std::copy_n(reinterpret_cast<const std::byte*>(event_ids_->id.data()), event_ids_->id.size(), to);
  shm::Environment::at(shm::CrashPoint::event_ids_remember);
  touch(queue);
  queue.fate = Fate::place;
  if (own.bytes <= queue.largest_record) (void)backlog_ready(queue, own.bytes, redoing);
  put_slowly(queue, own, body);
}

}  // namespace ackring::exchange
