// Trace context (W3C): a `traceparent` header says to which trace an event belongs. ackring carries it as any header,
// through retries, dead letters and restarts, and `shmtool explain` shows it; this makes and reads it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ackring/delivery.hpp"

namespace ackring {

inline constexpr std::string_view traceparent_header = "traceparent";

/// What `traceparent` says, as in https://www.w3.org/TR/trace-context/, version 00.
struct TraceContext {
  std::array<std::uint8_t, 16> trace_id = {};  ///< of the whole trace; not all zero
  std::array<std::uint8_t, 8> span_id = {};    ///< of the span that is the parent of whoever receives it; not all zero
  std::uint8_t flags = 0;                      ///< bit 0: it is recorded

  [[nodiscard]] bool sampled() const noexcept { return (flags & 1u) != 0; }
  /// Valid ones have neither id all zero.
  [[nodiscard]] bool valid() const noexcept;
  /// The same trace, in a span of its own: what one publishes while handling an event of this context.
  [[nodiscard]] TraceContext child() const;
  /// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, 55 characters.
  [[nodiscard]] std::string to_string() const;

  /// A new trace with random ids, from the system. Throws Error (system) where it has none to give.
  [[nodiscard]] static TraceContext start(bool sampled = true);
  /// Throws Error (invalid_argument) that says what is wrong. Of versions after 00, which only add to the end, what 00
  /// has is read.
  [[nodiscard]] static TraceContext parse(std::string_view text);

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

/// The context of an event; nothing where it has no such header, or one that is not valid (which the standard says to
/// ignore).
[[nodiscard]] std::optional<TraceContext> traceparent_of(const Delivery& delivery);
[[nodiscard]] std::optional<TraceContext> traceparent_of(const Headers& headers);

/// Puts `context` into `headers`, in place of one that is there.
void set_traceparent(Headers& headers, const TraceContext& context);

}  // namespace ackring
