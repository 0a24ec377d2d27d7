// Limits of a bus. Each is named in the error or outcome of the call that hits it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ackring::limits {

inline constexpr std::size_t topic_bytes = 255;
inline constexpr std::size_t name_bytes = 63;  ///< publishers and subscriptions: [A-Za-z0-9_.-]
inline constexpr std::size_t key_bytes = 65'535;
inline constexpr std::size_t event_bytes = 64u << 20;  ///< payload + key + headers, and at most 1/4 of the smaller ring
inline constexpr std::size_t min_ring_bytes = 4u << 10;
inline constexpr std::size_t max_ring_bytes = 1u << 30;
inline constexpr std::size_t default_ring_bytes = 4u << 20;
inline constexpr std::uint32_t max_in_flight = 1'048'576;
inline constexpr std::uint32_t default_max_in_flight = 65'536;
inline constexpr std::uint32_t max_deliveries = 1'000;
inline constexpr std::size_t retry_delays = 64;  ///< of one subscription
inline constexpr std::uint64_t longest_delay_s =
    31'536'000;                              ///< back-off, retry delays and TTL of a subscription: 365 days
inline constexpr std::size_t patterns = 64;  ///< of one subscription
inline constexpr std::size_t publishers = 1'024;
inline constexpr std::size_t subscriptions = 16'384;
inline constexpr std::size_t members = 16'384;
inline constexpr std::size_t topics = 1'048'576;
inline constexpr std::uint64_t least_event_ids = 1'024;          ///< max_events of `@ids` at least
inline constexpr std::uint64_t least_event_id_bytes = 1u << 20;  ///< max_bytes of `@ids` at least

}  // namespace ackring::limits
