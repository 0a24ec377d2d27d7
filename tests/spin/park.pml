/* Park and wake (docs/memory-model.md, lib/shm/park.hpp): a side that sleeps is woken by whatever comes afterwards.
 *
 * Each side has a store buffer, since a store may become visible behind a later load (on x86-64, too). membarrier empties the
 * buffers of both; a seq_cst fence empties its own. Which of the two the sides use: -D FENCES, else membarrier.
 * The waker makes PIECES pieces of work, the sleeper does them and sleeps in between.
 *
 * -D BROKEN=1: the sleeper does not look again after it said that it sleeps
 * -D BROKEN=2: there is no barrier between the store and the load of either side
 * -D BROKEN=3: the waker looks at `parked` before it stores the work
 */
#ifndef PIECES
#define PIECES 3
#endif
#ifndef BROKEN
#define BROKEN 0
#endif

byte work = 0;        /* in memory */
bool parked = false;
bool rung = false;    /* the bell: a socket, which needs no barrier */

byte work_stored = 0;         /* the waker's view, and its buffer */
bool work_buffered = false;
bool parked_stored = false;   /* the sleeper's */
bool parked_buffered = false;

byte done = 0;

/* The processor's hand: buffered stores reach memory at any time. */
active proctype buffers() {
end:
  do
  :: atomic { work_buffered -> work = work_stored; work_buffered = false }
  :: atomic { parked_buffered -> parked = parked_stored; parked_buffered = false }
  od
}

inline drain_work() {
  d_step { if :: work_buffered -> work = work_stored; work_buffered = false :: else -> skip fi }
}
inline drain_parked() {
  d_step { if :: parked_buffered -> parked = parked_stored; parked_buffered = false :: else -> skip fi }
}

/* A store waits while the one before it is still in the buffer: the buffer has one place, as longer ones show no more here. */
inline store_work(value) {
  atomic { !work_buffered -> work_stored = value; work_buffered = true }
}
inline store_parked(value) {
  atomic { !parked_buffered -> parked_stored = value; parked_buffered = true }
}

active proctype waker() {
  byte piece = 0;
  bool seen = false;
  do
  :: piece < PIECES ->
#if BROKEN == 3
    seen = parked;
    store_work(piece + 1);
#else
    store_work(piece + 1);
#ifdef FENCES
#if BROKEN != 2
    drain_work();
#endif
#endif
    seen = parked;
#endif
    if
    :: seen -> rung = true
    :: else -> skip
    fi;
    piece++
  :: else -> break
  od
}

active proctype sleeper() {
  do
  :: done == PIECES -> break
  :: done < PIECES ->
    if
    :: work > done -> done = work
    :: work <= done ->
      store_parked(true);
#if BROKEN != 2
      /* The barrier. membarrier: at some moment of the call each side's buffer is empty. */
      drain_parked();
#ifndef FENCES
      drain_work();
#endif
#endif
      if
#if BROKEN == 1
      :: true ->
#else
      :: work > done -> skip
      :: work <= done ->
#endif
        atomic { rung -> rung = false }   /* sleeps: there is no other way on */
      fi;
      store_parked(false)
    fi
  od
}

/* With any fair processor all work is done; without the bound on parks that the product has on top. */
ltl all_is_done { <> (done == PIECES) }
