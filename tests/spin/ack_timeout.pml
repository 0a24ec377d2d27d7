/* Ack against timeout (docs/architecture.md, lib/exchange/watchdog.cpp, settle.cpp, retry.cpp): one event of an at-least-once
 * subscription, whose member acks at some time or never, while the exchange lets it time out, and delivers it again when that
 * is due, at most DELIVERIES times; then it is a dead letter.
 *
 * A member holds all attempts that it took, and may give a verdict for any of them at any time, once each. The exchange looks
 * at the verdicts when it likes; the first one that it sees counts. An ack that it sees after the timeout, of an attempt whose
 * retry is still in the retry log, takes the retry out.
 *
 * What must hold: the event is in one place at any time; it ends as acked, or dead after all attempts; a verdict is not lost
 * that the exchange saw before it decided otherwise; an event that was completed is not delivered again.
 *
 * -D BROKEN=1: a late ack settles the event and leaves the retry where it is
 * -D BROKEN=2: attempts expire without a look at the verdicts first, and what was acked in time dies
 * -D BROKEN=3: the retry leaves the log for the ring without being taken out of it
 */
#ifndef DELIVERIES
#define DELIVERIES 3
#endif
#ifndef BROKEN
#define BROKEN 0
#endif

mtype = { none, ack, nack };                       /* verdicts */
mtype = { pending, acked, timed_out, nacked };     /* states of an attempt at the exchange */

mtype verdict[DELIVERIES + 1] = none;    /* the member's words, by attempt: 1, 2, ... */
mtype state[DELIVERIES + 1] = pending;
byte delivered = 1;      /* attempts that entered the ring */
byte taken = 0;          /* of them, by the member */

/* Places of the event; their sum is 1. */
byte in_ring = 1;        /* an attempt that is open */
byte in_retry = 0;
byte in_dead = 0;
byte completed = 0;

byte retry_of = 0;       /* the attempt whose end the record of the retry log is */

#define places (in_ring + in_retry + in_dead + completed)
#define settled (in_dead == 1 || completed == 1)

/* What the exchange does with an attempt that has ended without an ack. */
inline fail(attempt, how) {
  state[attempt] = how;
  in_ring--;
  if
  :: attempt >= DELIVERIES -> in_dead++
  :: else -> in_retry++; retry_of = attempt
  fi
}

/* What was acked in time never expires. */
inline expire() {
  assert(verdict[delivered] == none);
  fail(delivered, timed_out)
}

active proctype member() {
  byte attempt;
end:
  do
  :: atomic { taken < delivered -> taken++ }                       /* takes the next one */
  :: atomic { taken >= 1 && verdict[1] == none -> attempt = 1; goto decide }
  :: atomic { taken >= 2 && verdict[2] == none -> attempt = 2; goto decide }
  :: atomic { taken >= 3 && verdict[3] == none -> attempt = 3; goto decide }
  od;
decide:
  if
  :: verdict[attempt] = ack
  :: verdict[attempt] = nack
  fi;
  goto end
}

active proctype exchange() {
  byte at;
  do
  :: settled -> break
  :: else ->
    if
    /* The sweep: one look at the word of each attempt, newest or oldest first. */
    :: at = 1;
      do
      :: at > delivered || settled -> break
      :: else ->
        atomic {
          if
          :: verdict[at] == ack && state[at] == pending ->
            state[at] = acked; in_ring--; completed++
          :: verdict[at] == nack && state[at] == pending -> fail(at, nacked)
          :: verdict[at] == ack && state[at] == timed_out ->
            /* Late: it still counts while its retry has not left the log. */
            state[at] = acked;
            if
            :: in_retry == 1 && retry_of == at ->
              completed++;
#if BROKEN != 1
              in_retry--
#endif
            :: else -> skip
            fi
          :: else -> skip
          fi;
          assert(places == 1)
        };
        at++
      od
    /* The newest attempt has been out for too long. It is looked at once more in the same step of the exchange, before it
       expires: an ack that is there already counts. */
    :: atomic {
        taken == delivered && state[delivered] == pending ->
#if BROKEN == 2
        expire()
#else
        if
        :: verdict[delivered] == ack -> state[delivered] = acked; in_ring--; completed++
        :: verdict[delivered] == nack -> fail(delivered, nacked)
        :: else -> expire()
        fi
#endif
        ;
        assert(places == 1)
      }
    /* The retry is due: from the log into the ring. From here on a late ack of the attempt before is only counted. */
    :: atomic {
        in_retry == 1 ->
        assert(completed == 0);
        delivered++;
#if BROKEN != 3
        in_retry--;
#endif
        in_ring++;
        assert(places == 1)
      }
    fi
  od;
  assert(places == 1);
  assert(in_dead == 0 || delivered == DELIVERIES);
  assert(completed == 0 || state[1] == acked || state[2] == acked || state[3] == acked)
}

/* Whatever the member does, the event is settled in the end, given a fair exchange that does not only look. */
ltl never_twice { [] (completed + in_dead <= 1) }
ltl stays_settled { [] (settled -> [] (in_ring == 0 && in_retry == 0)) }
