// The measures: processes with one role each, and what they saw.
//
// Thread rules: one thread, no other in this process.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "bench/peers/peer.hpp"

namespace ackring::peers {

/// How long one measure takes.
struct Budget {
  double seconds = 1;
  std::uint64_t count = 0;  ///< messages or round trips; 0: as many as fit in `seconds`
};

/// One message in flight, timed by the process that sent it. Un-brokered: there and back, between two processes. Brokered:
/// once through the server, sender and receiver in one process.
/// {"count", "p50_ns", "p99_ns", "max_ns"}. Throws Failure.
[[nodiscard]] nlohmann::json measure_round_trip(Peer& peer, const Setting& setting, const Budget& budget);

/// As many as possible, from one sender to `setting.receivers` receivers that get all of them: from the first message until
/// the last ack is settled or, where messages were lost, until the last one came.
/// {"published", "delivered", "lost", "duplicates", "seconds", "per_s", "loss_percent"}; per_s counts deliveries.
/// Throws Failure.
[[nodiscard]] nlohmann::json measure_stream(Peer& peer, const Setting& setting, const Budget& budget);

/// The core of a role in this place, -1: any.
[[nodiscard]] int core_of(Place place, const Cores& cores, bool sends) noexcept;

}  // namespace ackring::peers
