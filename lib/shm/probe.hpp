// Probes for tracers (USDT): points that perf, bpftrace and SystemTap find by name in a running process, with what happens
// there as arguments. docs/tracing.md lists them.
//
// They are there only where the library was built with `-Dusdt=enabled`: then each is a nop and a note in the object file, and
// its arguments are kept where a tracer finds them. Otherwise they are nothing, not even their arguments' computation.
#pragma once

#if defined(ACKRING_USDT)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define ACKRING_PROBE(name, ...) STAP_PROBEV(ackring, name, __VA_ARGS__)
#else
#define ACKRING_PROBE(name, ...) static_cast<void>(0)
#endif

/// A publisher makes events visible: up to sequence, ring position behind them.
#define ACKRING_PROBE_PUBLISH(sequence, position) ACKRING_PROBE(publish, sequence, position)
/// The exchange has found where an event of a publisher goes: slot of the publisher, sequence, does it match anything, bytes.
#define ACKRING_PROBE_ROUTE(publisher, sequence, matched, bytes) \
  ACKRING_PROBE(route, publisher, sequence, matched, bytes)
/// An event enters a subscription's ring or backlog: subscription, delivery number, bytes.
#define ACKRING_PROBE_DELIVER(subscription, delivery, bytes) ACKRING_PROBE(deliver, subscription, delivery, bytes)
/// A member takes entries of its ring: subscription, first entry, how many.
#define ACKRING_PROBE_TAKE(subscription, entry, count) ACKRING_PROBE(take, subscription, entry, count)
/// A member gives a verdict: subscription, entry, ring::Verdict.
#define ACKRING_PROBE_ACK(subscription, entry, verdict) ACKRING_PROBE(ack, subscription, entry, verdict)
/// A delivery waits for another attempt: subscription, delivery number, attempt that has ended, CLOCK_MONOTONIC when it is due.
#define ACKRING_PROBE_RETRY(subscription, delivery, attempt, due_ns) \
  ACKRING_PROBE(retry, subscription, delivery, attempt, due_ns)
/// An event becomes a dead letter: subscription, delivery number, attempts, reason (text, and its length).
#define ACKRING_PROBE_DEAD_LETTER(subscription, delivery, attempts, reason, reason_bytes) \
  ACKRING_PROBE(dead_letter, subscription, delivery, attempts, reason, reason_bytes)
