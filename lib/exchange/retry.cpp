// Retry: a delivery that was nacked, timed out or lost its member is delivered again: the event becomes a new entry with
// the same delivery number and the next attempt, then the old entry is settled.
#include <algorithm>
#include <cstring>

#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

bool Exchange::redeliver(Queue& queue, std::uint64_t entry, shm::DeliveryState cause, bool let_go,
                         std::uint64_t now_ns) {
  const std::byte* record = queue.record_of(entry);
  const ring::EventParts old = ring::parts(record);
  shm::RecordHeader header = *old.header;
  shm::AttemptInfo attempt{};
  if (old.attempt != nullptr) {
    attempt = *old.attempt;
  } else {
    attempt.first_delivered_ns = now_ns;
    attempt.attempt = 1;
    header.bytes += sizeof attempt;
    header.flags |= shm::flag_attempt;
  }
  ++attempt.attempt;
  attempt.cause = static_cast<std::uint32_t>(cause);

  const bool into_ring = !queue.to_backlog && queue.has_credit() && queue.ring.fits(header.bytes);
  if (!into_ring && !queue.backlog.reserve(header.bytes)) return false;  // no room now; the next tick tries again

  begin(shm::TransactionKind::redeliver, queue.id, entry,
        static_cast<std::uint64_t>(cause) | (let_go ? shm::let_go_bit : 0));
  std::byte* to = place(queue, header.bytes);
  shm::shared_copy(to, &header, sizeof header);
  shm::shared_copy(to + sizeof header, &attempt, sizeof attempt);
  const std::uint64_t body = old.header->bytes - static_cast<std::uint64_t>(old.payload - record);
  if (body != 0) shm::shared_copy(to + sizeof header + sizeof attempt, old.payload, body);
  ++queue.block.redelivered;
  commit_sinks();
  set_state(queue, entry, cause, let_go);
  wake_members();
  return true;
}

}  // namespace ackring::exchange
