// What the steps of the flow ask about queues, lanes and records, of which they own nothing. Each is defined where the step
// is to which it belongs.
//
// Thread rules: the thread of the queue's shard.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/exchange/queue.hpp"
#include "lib/ring/record.hpp"

namespace ackring::exchange {

std::uint64_t moved_to(const Lane& lane, std::uint64_t state_byte) noexcept;
shm::LaterState later_state(const shm::RecordHeader& record) noexcept;
void mark(const shm::RecordHeader& record, shm::LaterState state);
void touch_sink(shm::Sink& sink, std::uint64_t n, std::uint64_t tail);
bool has_unannounced(const Queue& queue);
bool over_limits(const Queue& queue, std::uint64_t bytes);
bool goes_behind(const Queue& queue, const shm::RecordHeader& record);
bool waits_for_retry(const Queue& queue, const shm::RecordHeader& record);
bool may_dispatch(const Queue& queue, const shm::RecordHeader* record);
bool expired(const Queue& queue, const ring::EventParts& event, std::uint64_t now_ns);
/// What counts a dead letter with this reason.
shm::DeadReason dead_reason(std::string_view text) noexcept;
/// Dead letters up to the `dead_of_n`-th of transaction `n` are counted by reason.
void write_dead_reasons(Queue& queue, std::uint64_t n, std::uint64_t dead_of_n);
Lane* member_with_room(Queue& queue, std::uint64_t bytes);

}  // namespace ackring::exchange
