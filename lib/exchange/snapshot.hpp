// The `stat` document: what is in a bus, where, and what became of the rest. Read from shared memory alone: of a live bus by
// the exchange between two transactions, of a dead one (or of a copied directory) by a tool.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "ackring/options.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/shm/directory.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

class Exchange;

/// Answers false to end a walk.
using RecordVisitor = std::function<bool(const shm::RecordHeader&)>;

/// One ring of a subscription.
struct LaneView {
  const shm::MemberRing* ring = nullptr;
  shm::RingBlock ring_block{};
  std::uint64_t entries = 0;       // entry number behind the last one that counts
  std::uint64_t taken = 0;         // entry number, as far as it is possible
  std::uint64_t revoked_from = 0;  // taken back are open entries below revoked_to that are not below revoked_from, …
  std::uint64_t revoked_to = 0;    // … or whose member says so
  ring::AckReader acks;
  std::uint64_t client = 0;       // of the member; 0: there is none
  std::uint64_t moved_entry = 0;  // source of a move whose copy counts already …
  std::uint8_t moved_state = 0;   // … and what its state byte will be; 0: there is none
};

/// One subscription as both kinds of reader see it.
struct SubscriptionView {
  const SubscriptionOptions* options = nullptr;
  shm::SubscriptionBlock block{};
  std::vector<LaneView> lanes;
  std::size_t members = 0;
  std::uint64_t invalid_acks = 0;
  std::size_t shard = 0;
  bool paused = false;
  bool ephemeral = false;
  shm::DeadReasonBlock dead_reasons{};
  shm::LatencyBlock latency{};  // of members that are gone
  shm::BreakerOrder breaker_order = shm::BreakerOrder::none;
  /// Call `each` with the records of the log, oldest first, until it answers false. Those of the retry log may have left.
  std::function<void(const RecordVisitor& each)> walk_backlog;
  std::function<void(const RecordVisitor& each)> walk_retry;
};
nlohmann::ordered_json describe(const SubscriptionView& view);

/// The row of one publisher, whose blocks are those of the bus's shards, shard 0 first; `ring` is nullptr if it has gone.
nlohmann::ordered_json publisher_part(const std::string& name, const std::vector<shm::IngressBlock>& blocks,
                                      const shm::IngressRing* ring, bool quarantined);
/// What there is to say of the exchange; `state` as exchange_state() answers it.
nlohmann::ordered_json exchange_part(const shm::ExchangeSegment& page, const char* state);

/// The document of a live exchange, from its own thread.
nlohmann::ordered_json stat_document(const Exchange& exchange, const std::string& bus);

/// The document read from files. `state` of the exchange is "running", "stalled" (its lock is held but its tick is older
/// than 3 s) or "stopped". Throws Error (not_found: there is no bus).
nlohmann::ordered_json stat_document(const shm::Directory& directory, const std::string& bus);

/// That state of the exchange alone. Throws Error as stat_document() does.
const char* exchange_state(const shm::Directory& directory, const std::string& bus);

/// What a shard of a dead exchange was about to do last. The other record may be half overwritten.
const shm::Intent& last_intent(const shm::ExchangeSegment& page, std::size_t shard);
/// Does the bus have this shard?
bool is_shard(const shm::ExchangeSegment& page, std::size_t shard);
/// The shard that a subscription belongs to, as its state says; what can't be one counts as 0.
std::size_t shard_of(const shm::SubscriptionSegment& state);

/// Calls `each` with the position and the header of every record of a log in files, oldest first, until it answers false.
void walk_log(const shm::Directory& directory, const std::string& prefix, std::uint64_t head, std::uint64_t tail,
              const std::function<bool(std::uint64_t, const shm::RecordHeader&)>& each);

/// Unix time in nanoseconds.
std::uint64_t unix_now_ns();

}  // namespace ackring::exchange
