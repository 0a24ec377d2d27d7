// Recount: recovery looks at what it is about to believe: which numbers are taken, whether logs hold records, and whether
// counters agree with them.
#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "ackring/error.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

bool takes_from_retry(shm::TransactionKind kind) {
  using shm::TransactionKind;
  return kind == TransactionKind::release || kind == TransactionKind::complete || kind == TransactionKind::forget ||
         kind == TransactionKind::expire || kind == TransactionKind::give_up_later;
}
bool takes_from_dead(shm::TransactionKind kind) {
  using shm::TransactionKind;
  return kind == TransactionKind::requeue || kind == TransactionKind::remove || kind == TransactionKind::announce;
}

}  // namespace

std::uint64_t number_after(std::string_view name, std::size_t prefix) noexcept {
  std::uint64_t number = 0;
  std::from_chars(name.data() + std::min(prefix, name.size()), name.data() + name.size(), number);
  return number;
}

bool passes(ErrorCode code) noexcept {
  return code == ErrorCode::no_space || code == ErrorCode::permission || code == ErrorCode::system;
}

// Of a publisher's incarnation that has ended, as far as one can tell: did it leave what was not read?
bool Exchange::holds_events(const std::string& ring_file, const std::string& cursor_file) const {
  try {
    using shm::Segment;
    const Segment ring = Segment::attach(directory_, ring_file, shm::SegmentKind::ingress_ring, shm::Access::read_only);
    check_bytes(ring, shm::page_bytes);
    const auto& page = *ring.as<const shm::IngressRing>();
    const std::uint64_t tail = page.tail.load(std::memory_order_relaxed);  // relaxed: its publisher is gone
    bool read = page.start_position == tail;
    if (directory_.exists(cursor_file)) {
      const Segment cursor =
          Segment::attach(directory_, cursor_file, shm::SegmentKind::ingress_cursor, shm::Access::read_only);
      check_bytes(cursor, shm::page_bytes);
      const auto* words = cursor.as<const shm::IngressCursor>();
      read = true;
      for (std::size_t shard = 0; shard < shm::max_shards; ++shard) {
        const shm::ShardCursor& one = words->shards[shard];
        if (is_shard(*page_, shard)) read = read && shm::read_block(one.version, one.blocks).consumed == tail;
      }
    }
    return !read;
  } catch (const Error& error) {
    if (passes(error.code())) throw;
    return true;
  }
}

// Numbers of files and clients are given once. One that is in use is not to be given again, whatever the page says.
void Exchange::raise_numbers(const std::vector<std::string>& files) {
  std::uint64_t last_file = page_->next_file.load(std::memory_order_relaxed);      // relaxed: X is the only writer
  std::uint64_t last_client = page_->next_client.load(std::memory_order_relaxed);  // relaxed: as above
  const auto raise = [](std::uint64_t& last, std::uint64_t number) {
    if (number > last && number <= largest_number) last = number;
  };
  for (const std::string& file : files) {
    const std::string_view name = std::string_view(file).substr(file.starts_with("damaged.") ? 8 : 0);
    if (name.starts_with("sub.")) raise(last_file, number_after(name, 4));
    if (name.starts_with("client.")) raise(last_client, number_after(name, 7));
    for (const std::string_view kind : {".ring.", ".ack.", ".cursor."}) {
      const std::size_t at = name.find(kind);
      if (at != std::string_view::npos) raise(last_file, number_after(name, at + kind.size()));
    }
  }
  if (last_file != page_->next_file.load(std::memory_order_relaxed)) {  // relaxed: as above
    page_->next_file.store(last_file, std::memory_order_relaxed);       // relaxed: as above
  }
  if (last_client != page_->next_client.load(std::memory_order_relaxed)) {  // relaxed: as above
    page_->next_client.store(last_client, std::memory_order_relaxed);       // relaxed: as above
  }
}

// Does the last transaction concern this subscription, so that a redo may have something to count?
bool Exchange::is_moving(const Queue& queue) const noexcept {
  const shm::Intent& intent = last_intent(*page_, queue.shard);
  const std::uint64_t n = intent.n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  const auto kind = static_cast<shm::TransactionKind>(intent.kind.load(std::memory_order_relaxed));  // relaxed: after n
  // relaxed: after n
  if (kind != shm::TransactionKind::route && intent.source.load(std::memory_order_relaxed) == queue.id) return true;
  bool open = queue.block.n == n;
  for (const shm::Sink* sink : {&queue.state->backlog, &queue.state->retry, &queue.state->dead}) {
    open = open || sink->n.load(std::memory_order_acquire) == n;  // acquire(sink.n): base belongs to n
  }
  return open;
}

// Walks the logs of a subscription; throws Error (damaged) at what is no record. Counters that do not agree with them are
// put right, but for one that a redo looks at first.
void Exchange::recount(Queue& queue, std::vector<Notice>& notes) {
  const shm::Intent& intent = last_intent(*page_, queue.shard);
  const std::uint64_t n = intent.n.load(std::memory_order_acquire);  // acquire(intent.n): its record
  const auto kind = static_cast<shm::TransactionKind>(intent.kind.load(std::memory_order_relaxed));  // relaxed: after n
  // relaxed: after n
  const bool is_source =
      kind != shm::TransactionKind::route && intent.source.load(std::memory_order_relaxed) == queue.id;
  const std::uint64_t from = intent.from.load(std::memory_order_relaxed);  // relaxed: after n
  const auto begins_of = [&](const shm::Sink& sink) {
    std::vector<std::uint64_t> begins;
    if (sink.n.load(std::memory_order_acquire) == n) {              // acquire(sink.n): base belongs to n
      begins.push_back(sink.base.load(std::memory_order_relaxed));  // relaxed: after n
    }
    return begins;
  };
  std::vector<std::uint64_t> retry_begins = begins_of(queue.state->retry);
  std::vector<std::uint64_t> dead_begins = begins_of(queue.state->dead);
  if (is_source && takes_from_retry(kind)) retry_begins.push_back(from);
  if (is_source && takes_from_dead(kind)) dead_begins.push_back(from);
  if (queue.block.dead_published != 0) dead_begins.push_back(queue.block.dead_published);
  const Known known{*page_, *peers_->topics};
  const std::string prefix = "sub." + std::to_string(queue.id);
  shm::SubscriptionBlock& block = queue.block;
  const LogCount backlog =
      check_log(queue.backlog, block.backlog_head, false, begins_of(queue.state->backlog), prefix + ".backlog", known);
  const LogCount retry = check_log(queue.retry, block.retry_head, true, retry_begins, prefix + ".retry", known);
  const LogCount dead = check_log(queue.dead, block.dead_head, true, dead_begins, prefix + ".dead", known);
  if (is_moving(queue) && !redone_) return;
  const std::array<std::pair<std::uint64_t*, std::uint64_t>, 8> counters{{{&block.backlog_events, backlog.events},
                                                                          {&block.backlog_bytes, backlog.bytes},
                                                                          {&block.retry_events, retry.events},
                                                                          {&block.retry_bytes, retry.bytes},
                                                                          {&block.delayed_events, retry.untaken_events},
                                                                          {&block.delayed_bytes, retry.untaken_bytes},
                                                                          {&block.dead_events, dead.events},
                                                                          {&block.dead_bytes, dead.bytes}}};
  bool right = true;
  for (const auto& [counter, counted] : counters) {
    right = right && *counter == counted;
    *counter = counted;
  }
  if (right) return;
  notes.push_back({Notice::Level::warning,
                   "recovery.recounted",
                   "subscription " + queue.options.name + ": its counters did not agree with its logs: recounted",
                   {{"subscription", queue.options.name}}});
}

}  // namespace ackring::exchange
