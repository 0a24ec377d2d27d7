// Last values: `@last` is kept tidy, and a new subscription that asks for it begins with the last event of each topic.
#include "lib/exchange/last_values.hpp"

#include <algorithm>
#include <tuple>

#include "ackring/error.hpp"
#include "lib/control/topic_pattern.hpp"
#include "lib/exchange/deliver.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::TransactionKind;

void LastValues::forget(const Entry& entry) noexcept {
  if (!counts(entry)) return;
  last_[entry.topic] = 0;
  --live_events_;
  live_bytes_ -= entry.bytes;
}

void LastValues::catch_up() {
  const std::uint64_t head = queue_->block.backlog_head;
  while (!entries_.empty() && entries_.front().position < head) {
    forget(entries_.front());
    entries_.pop_front();
  }
  next_ = std::max(next_, head);
  while (const RecordHeader* record = queue_->backlog.at(next_)) {
    const Entry entry{next_, record->bytes, record->topic};
    if (last_.size() <= entry.topic) last_.resize(std::max<std::size_t>(entry.topic + 1, 2 * last_.size()));
    const bool replaces = last_[entry.topic] != 0;
    if (replaces) {
      std::uint64_t position = last_[entry.topic];
      live_bytes_ -= queue_->backlog.at(position)->bytes;
    } else {
      ++live_events_;
    }
    last_[entry.topic] = entry.position;
    live_bytes_ += entry.bytes;
    entries_.push_back(entry);
    next_ = log::SegmentLog::next(next_, *record);
  }
}

/// Notes what came in, and cleans the log as far as it pays: as much work as was put in, more or less.
void Exchange::keep_last_values() {
  last_values_->catch_up();
  while (last_values_->untidy() && clean_last_values()) last_values_->catch_up();
}

// One transaction: what heads the log of last values goes, if it is not the last one of its topic or there are too many;
// otherwise it moves to the tail. Each keeps its delivery number, by which a redo knows it. False: nothing could move.
bool Exchange::clean_last_values() {
  Queue& queue = last_values_->queue();
  shm::SubscriptionBlock& block = queue.block;
  std::uint64_t too_many = last_values_->over_limits() ? batch_events : 0;
  std::uint64_t events = 0;
  std::uint64_t bytes = 0;
  shm::Environment::at(shm::CrashPoint::last_values_clean);
  begin(TransactionKind::clean, queue.id, block.backlog_head, 0);
  touch(queue);
  for (const LastValues::Entry& entry : last_values_->entries()) {
    if (events == batch_events || bytes >= batch_bytes) break;
    std::uint64_t position = entry.position;
    const RecordHeader* record = queue.backlog.at(position);
    if (last_values_->counts(entry) && too_many == 0) {
      if (!queue.backlog.reserve(entry.bytes)) break;
      touch_backlog(queue);
      shm::shared_copy(queue.backlog.append(entry.bytes), record, entry.bytes);
      ++block.backlog_of_n;
    } else {
      if (last_values_->counts(entry)) too_many = 0;  // one at a time: fewer may do
      --block.backlog_events;
      block.backlog_bytes -= entry.bytes;
      ++block.dropped_oldest;
    }
    ++events;
    bytes += entry.bytes;
    block.backlog_head = log::SegmentLog::next(position, *record);
  }
  commit_sinks();
  queue.backlog.release_below(block.backlog_head);
  return events != 0;
}

// The tail says what was moved: everything before the last of that has left the head.
void Exchange::redo_clean(Queue& queue) {
  // acquire(sink.n): base belongs to n
  if (queue.block.n == n_ || queue.state->backlog.n.load(std::memory_order_acquire) != n_) return;
  std::uint64_t moved = queue.state->backlog.base.load(std::memory_order_relaxed);  // relaxed: after n
  shm::Environment::at(shm::CrashPoint::redo_clean);
  touch(queue);
  shm::SubscriptionBlock& block = queue.block;
  while (const RecordHeader* kept = queue.backlog.at(moved)) {
    for (bool found = false; !found;) {
      const RecordHeader* record = queue.backlog.at(block.backlog_head);
      found = record->delivery == kept->delivery;
      if (!found) {
        --block.backlog_events;
        block.backlog_bytes -= record->bytes;
        ++block.dropped_oldest;
      }
      block.backlog_head = log::SegmentLog::next(block.backlog_head, *record);
    }
    ++block.backlog_of_n;
    moved = log::SegmentLog::next(moved, *kept);
  }
  commit_sinks();
  queue.backlog.release_below(block.backlog_head);
  report_.push_back(
      {Notice::Level::info, "recovery.redo", "redo: " + std::to_string(block.backlog_of_n) + " last values had moved"});
}

// A subscription that is being made gets the last event of each topic that it matches, in the order in which they were
// published. Until its definition says that it is whole, recovery takes it for one that was never made.
void Exchange::begin_with_last_values(Queue& queue) {
  const std::string object = "subscription '" + queue.options.name + "'";
  if (last_values_ == nullptr) {
    throw Error(ErrorCode::not_found, "from last", "the bus keeps no last values to begin with",
                "switch that on: shmtool subscription create @last '#'");
  }
  last_values_->catch_up();
  const Queue& values = last_values_->queue();
  control::PatternTree wanted;
  for (const std::string& pattern : queue.options.patterns) wanted.insert(pattern, 0);
  struct Value {
    std::uint64_t published_ns;
    std::uint64_t sequence;
    const RecordHeader* record;
  };
  std::vector<Value> found;
  std::vector<std::uint32_t> matches;
  for (const LastValues::Entry& entry : last_values_->entries()) {
    if (!last_values_->counts(entry)) continue;
    wanted.find(peers_->topics->text(entry.topic), matches);
    if (matches.empty()) continue;
    std::uint64_t position = entry.position;
    const RecordHeader* record = values.backlog.at(position);
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(record));
    if (expired(values, event, clock_ns_)) continue;
    found.push_back({record->published_ns, record->sequence, record});
  }
  std::sort(found.begin(), found.end(), [](const Value& left, const Value& right) {
    return std::tie(left.published_ns, left.sequence) < std::tie(right.published_ns, right.sequence);
  });

  std::uint64_t in_batch = 0;
  for (const Value& value : found) {
    const auto* body = reinterpret_cast<const std::byte*>(value.record) + sizeof(RecordHeader);
    const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(value.record));
    if (over_limits(queue, value.record->bytes)) {
      throw Error(ErrorCode::no_space, object,
                  "the last values of " + std::to_string(found.size()) + " topics are more than its limits allow",
                  "give it a larger max_events or max_bytes, or patterns that match less");
    }
    bool ready = in_batch != 0 && in_batch != batch_events && ready_timed(queue, event, clock_ns_, false);
    if (!ready) {
      if (in_batch != 0) commit_sinks();
      shm::Environment::at(shm::CrashPoint::last_values_begin);
      begin(TransactionKind::begin_with, queue.id, 0, 0);
      in_batch = 0;
      ready = ready_timed(queue, event, clock_ns_, false);
    }
    if (!ready) {
      throw Error(ErrorCode::no_space, object, "the file system of the bus has no room for the last values",
                  "make room there");
    }
    put_slowly(queue, *value.record, body);
    ++in_batch;
  }
  if (in_batch != 0) commit_sinks();
}

}  // namespace ackring::exchange
