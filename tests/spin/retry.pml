/*
 * A fault ends: one speculative attempt, then the classic path, which drops the mmap lock once.
 *
 * Follows `MmInner::{fault, attempt, fault_classically}` of rust/core/mm/fault.rs; the looks at the sequence of
 * `SeqCount`, and of `find_and_copy`, `handle_speculatively` and `pte_map_lock`; `filemap_fault_speculative`, `filemap_fault`,
 * `hold_without_waiting`, `hold_waiting`, `find_or_create`, `unblock` of rust/core/cache/filemap.rs; the whole of
 * rust/core/sync/rwsem.rs (`lock_read`, `lock_write`, `unlock_read`, `unlock_write`, `downgrade`, `wait`, `grant`) for
 * the mmap lock; the part of rust/core/cache/truncate.rs that takes the page out of the cache, and `judge_read_error`.
 *
 * Threads: FAULTS threads fault for ever on one page; with WRITER one takes the mmap lock for writing and bumps the
 * sequence for ever, or stops some time; with TRUNCATIONS=n one makes the file shorter than the page and long again,
 * n times; with IO one does what readahead has begun. A read of the store succeeds or fails, as it likes.
 *
 * Claims
 *   safe         one attempt for a fault (row 45 of docs/invariants.md) and two passes at most, one more for each change of the size
 *                that came into a read; writers exclude; nobody hangs
 *   fault_ends   every fault ends
 *   write_ends   every writer gets the mmap lock
 *
 * Premises
 *   weak fairness: a thread that can go on does. So every read of the store ends;
 *   a mutex, the page lock and `invalidate_lock` are given in the order of asking (page_lock.pml is about the page lock
 *   itself, and `invalidate_lock` is the semaphore that is followed here);
 *   truncations are finitely many. TRUNCATE_FOREVER shows that this is needed: a fault whose page is gone each time it
 *   has its lock looks it up anew each time, as in Linux.
 *
 * Abstractions
 *   Sequential consistency. A load and the exchange that depends on it are one step: the loop around them is lock-free.
 *   The 64-bit sequence never comes round: `unchanged` is exact for "equal to what read_start saw".
 *   The mapping stays, the entry is none at each fault, and page tables are there: their absence ends or aborts earlier.
 *   Locks of page tables are held for a few steps only; failing to have one is one of the aborts. Fault-around waits for
 *   nothing. A frame that left the cache shares its lock with the one that replaces it.
 *
 * -D switches plant bugs; tests/spin/run.py lists what each must be caught by.
 */

#ifndef FAULTS
#define FAULTS 1
#endif

#define THE_WRITER FAULTS
#define THREADS (FAULTS + 1)
#define THE_TRUNCATER (FAULTS + 1)
#define THE_IO (FAULTS + 2)

/* The mmap lock's word and queue. */
#define READERS 7
#define WAITERS 8
#define WRITER_IN 16
byte sem;
byte queue[THREADS];
byte queued;
bit granted[THREADS];
chan mutex = [THREADS] of { byte };

/* The sequence. */
bit odd;
bit unchanged[FAULTS];

/* The page: its slot, its bytes, whether the file reaches it, its lock. `mine`: the handle is of what is in the slot. */
bit slot;
bit uptodate;
bit inside = 1;
bit mine[FAULTS];
bit resized[FAULTS]; /* since its read began */
chan page_lock = [FAULTS + 2] of { byte };
chan invalidate_lock = [FAULTS + 2] of { byte };
#ifdef IO
bit submitted;
#endif

bit faulting[FAULTS];
bit writing;

#if FAULTS > 1
#define forget_second() unchanged[1] = 0
#define lose_second() mine[1] = 0
#define resize_second() resized[1] = 1
#else
#define forget_second() skip
#define lose_second() skip
#define resize_second() skip
#endif

#define ENTER(lock) lock!me; lock?[eval(me)]
#define LEAVE(lock) lock?eval(me)

/* How a pass ended. */
#define NONE 0
#define MAPPED 1
#define SIGBUS 2
#define BLOCKED 3
#define UNREADABLE 4

/* --- rust/core/sync/rwsem.rs --- */

#define MUST_WAIT(head) ((head) == THE_WRITER && (sem & (WRITER_IN | READERS)) || (head) != THE_WRITER && (sem & WRITER_IN))

inline grant() {
    do
    :: atomic { queued > 0 && !MUST_WAIT(queue[0]) ->
           head = queue[0];
           sem = sem + (head == THE_WRITER -> WRITER_IN : 1)
       }
       d_step {
           at = 0;
           do
           :: at + 1 < queued -> queue[at] = queue[at + 1]; at++
           :: else -> break
           od;
           queued--;
           queue[queued] = 0;
           at = 0
       }
       granted[head] = 1;
       head = 0
    :: atomic { queued > 0 && MUST_WAIT(queue[0]) -> break }
    :: queued == 0 -> sem = sem & ~WAITERS; break
    od
}

inline pass_on() {
    ENTER(mutex);
    grant();
    LEAVE(mutex)
}

inline wait_in_queue() {
    ENTER(mutex);
    d_step { queue[queued] = me; queued++ }
    sem = sem | WAITERS;
#ifndef NO_GRANT_AT_THE_DOOR
    grant();
#endif
    LEAVE(mutex);
    atomic { granted[me] -> granted[me] = 0 }
}

#ifdef READERS_PASS_BY
#define NO_READER WRITER_IN
#else
#define NO_READER (WRITER_IN | WAITERS)
#endif

inline lock_read() {
#ifdef NO_QUEUE
    d_step { !(sem & WRITER_IN) -> sem++ }
#else
    if
    :: d_step { !(sem & NO_READER) -> sem++ }
    :: else -> wait_in_queue()
    fi
#endif
}

inline unlock_read() {
    d_step { sem--; left = sem }
#if !defined(READER_LEAVES_SILENTLY) && !defined(NO_QUEUE)
    if
    :: left == WAITERS -> pass_on()
    :: else
    fi;
#endif
    left = 0
}

inline lock_write() {
#ifdef NO_QUEUE
    d_step { sem == 0 -> sem = WRITER_IN }
#else
    if
    :: d_step { sem == 0 -> sem = WRITER_IN }
    :: else -> wait_in_queue()
    fi
#endif
}

inline unlock_write() {
    d_step { left = sem; sem = sem & ~WRITER_IN }
#if !defined(WRITER_LEAVES_SILENTLY) && !defined(NO_QUEUE)
    if
    :: left & WAITERS -> pass_on()
    :: else
    fi;
#endif
    left = 0
}

inline downgrade() {
    d_step { left = sem; sem = sem - WRITER_IN + 1 }
#if !defined(WRITER_LEAVES_SILENTLY) && !defined(NO_QUEUE)
    if
    :: left & WAITERS -> pass_on()
    :: else
    fi;
#endif
    left = 0
}

/* --- rust/core/mm/mmap.rs: any change of the mappings --- */

proctype writer(byte me) {
    byte head, at, left;
    do
    :: writing = 1;
       lock_write();
       d_step { writing = 0; assert((sem & WRITER_IN) && !(sem & READERS)) }
       d_step { odd = 1; unchanged[0] = 0; forget_second() }
       odd = 0;
       if /* write_end comes first in both */
       :: unlock_write()
       :: downgrade(); unlock_read()
       fi
    :: break
    od
}

/* --- rust/core/cache/truncate.rs --- */

#if defined(TRUNCATIONS) || defined(TRUNCATE_FOREVER)
proctype truncater(byte me) {
    byte times;
    do
#ifdef TRUNCATE_FOREVER
    ::
#else
    :: times == TRUNCATIONS -> break
    :: times < TRUNCATIONS -> times++;
#endif
       ENTER(invalidate_lock);
       d_step { inside = 0; resized[0] = 1; resize_second() }
       if
       :: slot ->
          ENTER(page_lock);
          d_step { slot = 0; uptodate = 0; mine[0] = 0; lose_second() }
          LEAVE(page_lock)
       :: else
       fi;
       LEAVE(invalidate_lock);
       ENTER(invalidate_lock);
       d_step { inside = 1; resized[0] = 1; resize_second() }
       LEAVE(invalidate_lock)
    od
}
#endif

#ifdef IO
proctype io(byte me) {
    do
    :: submitted ->
       if
       :: uptodate = 1
       :: true /* the read failed: the page stays, not up to date */
       fi;
       atomic { submitted = 0; LEAVE(page_lock) }
    od
}
#endif

/* --- rust/core/cache/filemap.rs --- */

/* Ends with mine[me] and `have`, or with `beyond`. */
inline find_or_create() {
    do
    :: atomic { slot -> mine[me] = 1; have = 1; break }
    :: atomic { !slot -> skip };
       ENTER(invalidate_lock);
       if
       :: !inside -> beyond = 1
       :: else ->
          if
          :: d_step { !slot -> slot = 1; uptodate = 0; mine[me] = 1; have = 1 }
          :: else /* somebody else's is there: look again */
          fi
       fi;
       LEAVE(invalidate_lock);
       if
       :: have || beyond -> break
       :: else
       fi
    od
}

/* Readahead adds the page locked, and the I/O thread unlocks it. */
inline read_sync() {
#ifdef IO
    ENTER(invalidate_lock);
    if
    :: atomic { inside && !slot && empty(page_lock) ->
           slot = 1; uptodate = 0; page_lock!THE_IO; submitted = 1
       }
    :: else
    fi;
    LEAVE(invalidate_lock)
#else
    skip
#endif
}

/* Waits for what blocked a first pass. The mmap lock is not held. */
inline unblock() {
    if
    :: miss -> read_sync()
    :: else
    fi;
    find_or_create();
    if
    :: have ->
       ENTER(page_lock);
       if
       :: mine[me] && !uptodate -> uptodate = 1
       :: true /* the read failed, or there is none to do */
       fi;
       LEAVE(page_lock)
    :: else
    fi;
    d_step { have = 0; beyond = 0; miss = 0; mine[me] = 0 }
}

/* Ends with `end`. */
inline filemap_fault() {
    if
    :: !inside -> end = SIGBUS
    :: else ->
       if
       :: atomic { slot -> mine[me] = 1; have = 1 }
          if
          :: !tried -> end = BLOCKED  /* it has the readahead marker */
          :: true
          fi
       :: else ->
          if
          :: !tried -> d_step { end = BLOCKED; miss = 1 }
          :: tried -> read_sync()
          :: true /* no readahead */
          fi
       fi
    fi;
    do
    :: end != NONE -> break
    :: else ->
       if
       :: !have -> find_or_create()
       :: else
       fi;
       if
       :: beyond -> end = SIGBUS
       :: else ->
          if
          :: !tried && nempty(page_lock) -> end = BLOCKED
          :: atomic { !tried && empty(page_lock) -> page_lock!me }
          :: tried -> ENTER(page_lock)
          fi;
          if
          :: end != NONE
          :: else ->
             if
             :: !mine[me] -> have = 0; LEAVE(page_lock)
             :: mine[me] && !uptodate && !tried -> end = BLOCKED; LEAVE(page_lock)
             :: else ->
                if
                :: uptodate
                :: !uptodate ->
                   resized[me] = 0; /* the size that the read expects */
                   if
                   :: uptodate = 1
                   :: end = UNREADABLE
                   fi
                fi;
                if
                :: end == NONE -> end = (inside -> MAPPED : SIGBUS)
                :: else
                fi;
                LEAVE(page_lock)
             fi
          fi
       fi
    od;
    atomic { have = 0; beyond = 0; mine[me] = 0 }
}

/* --- rust/core/mm/fault.rs --- */

/* `end` is MAPPED, or NONE for an abort. */
inline attempt() {
    attempts++;
    if
    :: d_step { !odd -> unchanged[me] = 1 }
       if
       :: atomic { unchanged[me] && slot && empty(page_lock) -> page_lock!me; mine[me] = 1 }
          if
          :: uptodate && inside && unchanged[me] ->
             /* The leaf lock is between the last two looks. */
             if
             :: unchanged[me] -> end = MAPPED
             :: true
             fi
          :: true
          fi;
          LEAVE(page_lock)
       :: true
       fi
    :: odd
    fi;
    d_step { unchanged[me] = 0; mine[me] = 0 }
}

proctype faulter(byte me) {
    byte head, at, left, end, attempts, passes;
    bit tried, have, beyond, miss;
    do
    :: faulting[me] = 1;
#ifdef SPECULATE_FOREVER
       do
       :: attempt();
          attempts = 0;
          if
          :: end != NONE -> break
          :: else
          fi
       od;
#else
       attempt();
#ifdef ATTEMPT_TWICE
       if
       :: end == NONE -> attempt()
       :: else
       fi;
#endif
#endif
       do
       :: end == MAPPED || end == SIGBUS -> break
       :: else ->
          end = NONE;
          lock_read();
          assert(!(sem & WRITER_IN));
          passes++;
          filemap_fault();
          unlock_read();
          if
          :: end == UNREADABLE ->
             /* judge_read_error: revalidate, then whether the size is another than the read expected */
             ENTER(invalidate_lock);
             LEAVE(invalidate_lock);
             if
#ifdef AGAIN_AT_ANY_ERROR
             :: inside -> d_step { passes--; end = NONE }
#else
             :: inside && resized[me] -> d_step { passes--; end = NONE }
             :: inside && !resized[me] -> end = SIGBUS
#endif
             :: !inside -> end = SIGBUS
             fi;
             resized[me] = 0
          :: end == BLOCKED ->
             unblock();
#ifdef NEVER_TRIED
             passes = 0
#else
             tried = 1
#endif
          :: else
          fi
       od;
       atomic {
           assert(attempts <= 1 && passes <= 2);
           resized[me] = 0; end = 0; attempts = 0; passes = 0; tried = 0; miss = 0;
           faulting[me] = 0
       }
    od
}

init {
    atomic {
        run faulter(0);
#if FAULTS > 1
        run faulter(1);
#endif
#ifdef WRITER
        run writer(THE_WRITER);
#endif
#if defined(TRUNCATIONS) || defined(TRUNCATE_FOREVER)
        run truncater(THE_TRUNCATER);
#endif
#ifdef IO
        run io(THE_IO);
#endif
        skip
    }
}

ltl fault_ends { [] (faulting[0] -> <> !faulting[0]) }
ltl write_ends { [] (writing -> <> !writing) }
