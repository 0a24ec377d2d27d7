// Peers: what the shards of an exchange share. Each shard is an Exchange of its own, with a cursor in every publisher's ring
// and intents of its own; shard 0, the lead, also serves clients.
//
// Thread rules: shards run on several threads. What is here, but for what says otherwise, changes only while all of them
// are held (shard_threads.hpp), and is read by any of them while it runs.
// Invariants:
//  1. Every subscription belongs to a shard of the bus, and only while nobody serves it to another one than before.
//  2. A shard's cursor is never beyond the tail, and never behind what a publisher was told.
//  3. Subscriptions of different shards share no sink.
//  4. Of all shards, one transaction at most writes the ring of dead letters: it is announced only while all are held.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/control/topic_table.hpp"
#include "lib/exchange/dead_letter_topic.hpp"
#include "lib/exchange/queue.hpp"

namespace ackring::exchange {

class Exchange;

/// Keeps the threads of the other shards between two steps.
class ShardHolder {
 public:
  ShardHolder() = default;
  ShardHolder(const ShardHolder&) = delete;
  ShardHolder& operator=(const ShardHolder&) = delete;
  virtual ~ShardHolder() = default;
  virtual void hold_all() = 0;
  virtual void let_go() = 0;
  /// Some shard wants the lead to look after it. Any thread.
  virtual void call_lead() noexcept = 0;
};

struct Peers {
  std::vector<Exchange*> shards;  // by number; nullptr: the bus does not have it
  std::unique_ptr<control::TopicTable> topics;
  std::mutex topics_mutex;  // whoever comes to a new topic first defines it

  std::vector<std::unique_ptr<Queue>> queues;  // of all shards, by index; removed ones stay empty
  std::vector<std::uint32_t> free_indexes;     // of them
  std::unordered_map<std::string, Queue*> by_name;
  std::unordered_map<std::uint64_t, Queue*> by_id;

  std::unique_ptr<LetterPublisher> letters;  // once it is needed
  ShardHolder* holder = nullptr;             // nullptr: all shards are stepped by one thread
  std::uint32_t held = 0;                    // how often, by the lead's thread
  bool may_change = true;                    // all are held, or on one thread
};

/// As long as it lives, the threads of all shards are held, if they have any. The lead's thread; it may be nested.
class ShardHold {
 public:
  explicit ShardHold(Peers& peers);
  ~ShardHold();
  ShardHold(const ShardHold&) = delete;
  ShardHold& operator=(const ShardHold&) = delete;

 private:
  Peers& peers_;
};

}  // namespace ackring::exchange
