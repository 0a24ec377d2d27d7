// What a publisher's event looks like follows from its number, so that whoever takes one can check every byte of it, and
// the books know where it has to come, without anybody writing events down.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "ackring/ackring.hpp"

namespace ackring::chaos {

using namespace std::chrono_literals;

inline constexpr std::array<const char*, 5> topics{"chaos.a.x", "chaos.a.y", "chaos.b.x", "chaos.big.z",
                                                   "chaos.timed.d"};
inline constexpr std::size_t ring_bytes = 64u << 10;        // of publishers, and of most subscriptions
inline constexpr std::size_t largest_bytes = 16'304;        // what a publisher may put into one event, then
inline constexpr std::size_t small_ring_bytes = 16u << 10;  // of a subscription that gets no events above 4,000 bytes

/// How a publisher works; its place in the list is its number, its name is `p` and that number.
enum class Style : std::uint8_t {
  copies,    // publish, one by one
  numbered,  // gives numbers of its own, and after a death publishes again what it is not sure of
  batches,   // several by one store
  loans,     // written in place, up to a quarter of a ring
  timed,     // with delays and times to live
};
inline constexpr std::size_t publishers = 5;

inline std::string publisher_name(std::size_t number) { return "p" + std::to_string(number); }
/// The number of a publisher of this name; `publishers` if it is none of them.
inline std::size_t publisher_number(std::string_view name) {
  if (name.size() != 2 || name[0] != 'p' || name[1] < '0') return publishers;
  return std::min<std::size_t>(static_cast<std::size_t>(name[1] - '0'), publishers);
}

/// splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
inline std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

struct Event {
  std::size_t topic = 0;  // in `topics`
  std::string key = {};   // perhaps none
  std::size_t bytes = 0;
  Nanoseconds ttl{0};
  Nanoseconds delay{0};
  std::uint64_t fill = 0;

  [[nodiscard]] std::byte at(std::size_t i) const noexcept {
    return static_cast<std::byte>((fill >> (i % 8 * 8)) ^ (i / 8));
  }
};

inline Event event_of(std::uint64_t seed, std::size_t publisher, std::uint64_t number) {
  const std::uint64_t random = mix(mix(seed ^ publisher << 56) ^ number);
  Event event;
  event.fill = mix(random);
  const auto style = static_cast<Style>(publisher);
  event.topic = style == Style::timed ? 4 : random % 3;
  if (style == Style::loans && (random >> 8) % 4 == 0) event.topic = 3;
  if (event.topic == 3) {
    event.bytes = (random >> 16) % 4 == 0 ? largest_bytes : (random >> 20) % largest_bytes;
    return event;  // without a key: it may be as large as events can be
  }
  if ((random >> 8) % 4 != 0) event.key = "k" + std::to_string((random >> 10) % 40);
  const std::uint64_t kind = (random >> 16) % 32;
  event.bytes = kind == 0 ? (random >> 24) % 3'900 : kind < 4 ? 0 : (random >> 24) % 200;
  if (style == Style::timed) {
    if ((random >> 40) % 2 == 0) event.delay = std::chrono::milliseconds(1 + (random >> 42) % 80);
    if ((random >> 50) % 4 == 0) event.ttl = event.delay + std::chrono::milliseconds(1 + (random >> 52) % 100);
  }
  return event;
}

inline void write_payload(const Event& event, std::span<std::byte> to) noexcept {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = event.at(i);
}
inline bool same_payload(const Event& event, Bytes payload) noexcept {
  if (payload.size() != event.bytes) return false;
  for (std::size_t i = 0; i < payload.size(); ++i) {
    if (payload[i] != event.at(i)) return false;
  }
  return true;
}

}  // namespace ackring::chaos
