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

/// Has an event with the id of this one been routed already? In a redo it may be this one itself.
bool Exchange::is_known(const RecordHeader& header, const std::byte* body, bool redoing) {
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
