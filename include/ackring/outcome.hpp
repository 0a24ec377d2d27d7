// What the hot path answers.
#pragma once

namespace ackring {

/// Result of a publish, flush or verdict. Never an exception: these are expected in normal operation.
enum class [[nodiscard]] Outcome{
    ok,
    back_pressured,  ///< the publisher's ring is full: the exchange is behind, stopped, or blocked by a full subscription
    too_large,       ///< payload + key + headers exceed Publisher::max_event_bytes(), or the key 65,535 bytes
    invalid_topic,    ///< empty, over 255 bytes, or a word is not made of [A-Za-z0-9_-]
    too_many_topics,  ///< the bus has no room for one more topic, or this publisher has used 1,048,576 distinct ones
    denied,           ///< the access rules of the bus keep this topic from this user; nothing was published
    stale,            ///< the delivery has a final verdict already, or its member is gone
    timed_out,        ///< flush: not everything was routed in time
    closed,           ///< the handle is closed, quarantined, or belongs to the parent of a fork
};

/// Name of an outcome, such as "back_pressured".
const char* to_string(Outcome outcome) noexcept;

}  // namespace ackring
