/*
 * The page lock: `WaitTable::{try_lock, lock, sleep, leave, unlock, wake, wait_unlocked}` of rust/core/sync/wait.rs.
 *
 * LOCKERS threads lock and unlock for ever (or TIMES times), LOOKERS threads wait to see the bit clear, LEAVERS threads are
 * lockers that may stop waiting at any moment; PAGES words share one queue. Each access to a word is one step, as are the token of a parked thread (`Parker`), and what is done to the
 * queue under its mutex.
 *
 * Claims
 *   safe        the lock excludes; with TIMES everybody comes to the end: no wake-up is lost, with a leaver neither
 *   served      whoever asks for the lock gets it, and does not leave
 *   look_ends   whoever looks sees it clear, or hears that it was
 *
 * Premises
 *   weak fairness: a thread that can go on does. So owners unlock, and who was told wakes up;
 *   the queue's mutex is handed out in the order of asking. Nothing else is asked: newcomers may come at any moment and
 *   take a bit that is clear.
 *
 * Abstractions
 *   Sequential consistency; tests/loom has the memory orders. No spurious wake-ups (they only repeat a look).
 *   UNFAIR_ROUNDS is 1 (5 in what ships); NO_HAND_OFF stands for infinity.
 *
 * -D switches plant bugs; tests/spin/run.py lists what each must be caught by.
 *
 * A flaw that is known. `unlock` clears the bit before it takes the queue's mutex, as Linux does. With two others that lock
 * for ever, a waiter can be kept out for ever: A unlocks (the bit is clear, the waiter is in the queue), B takes the bit, A
 * finds it taken and leaves the waiter asleep, A asks again, B unlocks, A takes the bit, B finds it taken, and so on. The
 * hand-off is no remedy: the waker competes for the bit as everybody does, and a sleeper that is not woken does not count
 * a round, so it does not come to be owed the lock. With one other `served` holds: it cannot both unlock and pass by.
 * CLEAR_IN_QUEUE is a remedy, for which `served` holds with two others as well: where WAITERS is set, the bit is cleared
 * under the mutex, the first waiter is woken whoever has the bit by then, and for one who is owed it the bit stays set.
 */

#ifndef LOCKERS
#define LOCKERS 3
#endif
#ifndef PAGES
#define PAGES 1
#endif
#ifndef LOOKERS
#define LOOKERS 0
#endif
#ifndef UNFAIR_ROUNDS
#define UNFAIR_ROUNDS 1
#endif
#ifndef LEAVERS
#define LEAVERS 0
#endif
#define THREADS (LOCKERS + LOOKERS + LEAVERS)

#define NOBODY THREADS

#define LOCKED 1
#define WAITERS 2

#define SLEEPING 0
#define WOKEN 1
#define HANDED_OVER 2

#define LOOK 0
#define LOCK 1
#define HAND_OFF 2

#define page (me % PAGES)

byte word[PAGES];

chan mutex = [THREADS] of { byte };
byte queue[THREADS];
byte queued;

byte wants[THREADS];
byte state[THREADS];
bit token[THREADS];

byte owners[PAGES];
bit asking[LOCKERS];
#if LOOKERS
bit looking;
#endif

#if LEAVERS
#define GONE left
#else
#define GONE false
#endif

#define LOCK_QUEUE   mutex!me; mutex?[eval(me)]
#define UNLOCK_QUEUE mutex?eval(me)

inline try_lock() {
    d_step { before = word[page]; word[page] = before | LOCKED }
}

inline push() {
    d_step { state[me] = SLEEPING; queue[queued] = me; queued++ }
}

inline remove() {
    d_step {
        who = queue[at];
        i = at;
        do
        :: i + 1 < queued -> queue[i] = queue[i + 1]; i++
        :: else -> break
        od;
        queued--;
        queue[queued] = 0;
        i = 0
    }
}

#if LEAVERS
/* Ends with `left` if nobody had told the thread to try, or handed it the lock. */
inline leave() {
    LOCK_QUEUE;
    d_step {
        at = 0;
        do
        :: at < queued && queue[at] != me -> at++
        :: else -> break
        od
    }
    if
    :: at < queued ->
#ifndef LEAVE_QUEUED
       remove();
#endif
       left = 1
    :: else ->
#ifdef LEAVE_TOLD
       left = 1
#endif
    fi;
    UNLOCK_QUEUE;
    d_step { at = 0; who = 0 }
}
#endif

/* wants[me] is set. Ends with `done`, or with `left`. */
inline sleep() {
#ifdef NO_QUEUE_LOCK
    word[page] = word[page] | WAITERS;
    try_lock();
    LOCK_QUEUE;
#else
    LOCK_QUEUE;
    word[page] = word[page] | WAITERS;
#ifndef NO_RECHECK
    if
    :: wants[me] == LOOK -> before = word[page]
    :: else -> try_lock()
    fi;
#endif
#endif
    if
    :: !(before & LOCKED) -> done = 1; UNLOCK_QUEUE
    :: else ->
       push();
       UNLOCK_QUEUE;
       do
       :: state[me] == SLEEPING -> atomic { token[me] -> token[me] = 0 }
#if LEAVERS
       :: state[me] == SLEEPING && may_leave -> leave();
          if
          :: left -> break
          :: else
          fi
#endif
       :: state[me] == WOKEN -> done = (wants[me] == LOOK); break
       :: state[me] == HANDED_OVER -> done = 1; break
       od
    fi
}

#ifdef IGNORE_PAGE
#define MINE(at) true
#else
#define MINE(at) (queue[at] % PAGES == page)
#endif

/* The first place from `at` on that is not another page's: a waiter for this page, or the end. */
inline skip_others() {
    do
    :: at < queued && !MINE(at) -> at++
    :: else -> break
    od
}

inline wake(to) {
#ifdef WAKE_THEN_TELL
    token[who] = 1;
    state[who] = to
#else
    state[who] = to;
    token[who] = 1
#endif
}

#ifndef CLEAR_IN_QUEUE
/* WaitTable::wake. The bit is clear already, and whoever took it meanwhile keeps it. */
inline pass_on() {
    LOCK_QUEUE;
    at = 0;
    do
    :: skip_others();
       if
       :: at == queued -> break
       :: at < queued && wants[queue[at]] == LOCK && word[page] & LOCKED -> break
       :: at < queued && wants[queue[at]] == LOCK && !(word[page] & LOCKED) -> remove(); wake(WOKEN); break
       :: at < queued && wants[queue[at]] == HAND_OFF ->
#ifdef HAND_OVER_UNTAKEN
          before = 0;
#else
          try_lock();
#endif
          if
          :: before & LOCKED
          :: else -> remove(); wake(HANDED_OVER)
          fi;
          break
       :: at < queued && wants[queue[at]] == LOOK -> remove(); wake(WOKEN)
       fi
    od;
    atomic { at = 0; skip_others() }
#ifdef CLEAR_OUTSIDE
    if
    :: at == queued -> UNLOCK_QUEUE; word[page] = word[page] & ~WAITERS
    :: else -> UNLOCK_QUEUE
    fi
#else
    if
#ifdef FORGET_WAITERS
    :: true -> word[page] = word[page] & ~WAITERS
#else
    :: at == queued -> word[page] = word[page] & ~WAITERS
    :: else
#endif
    fi;
    UNLOCK_QUEUE
#endif
}
#else
inline pass_on() {
    LOCK_QUEUE;
    d_step { at = 0; clear = LOCKED; heir = NOBODY }
    do
    :: d_step { heir == NOBODY -> skip_others() }
       if
       :: at == queued -> break
       :: else ->
          remove();
          if
          :: wants[who] == LOOK -> wake(WOKEN)
          :: else -> heir = who
          fi
       fi
    :: heir != NOBODY -> break
    od;
    atomic {
        at = 0;
        skip_others();
        if
        :: at == queued -> clear = clear | WAITERS
        :: else
        fi;
        if
        :: heir != NOBODY && wants[heir] == HAND_OFF -> clear = clear & ~LOCKED
        :: else
        fi
    }
    word[page] = word[page] & ~clear;
    if
    :: heir != NOBODY ->
       who = heir;
       wake((wants[who] == HAND_OFF -> HANDED_OVER : WOKEN))
    :: else
    fi;
    UNLOCK_QUEUE;
    d_step { heir = 0; clear = 0 }
}
#endif

inline unlock() {
    assert(word[page] & LOCKED);
#if defined(UNLOCK_BLIND)
    word[page] = word[page] & ~LOCKED;
#elif defined(READ_THEN_CLEAR)
    before = word[page];
    word[page] = word[page] & ~LOCKED;
    if
    :: before & WAITERS -> pass_on()
    :: else
    fi;
#elif defined(CLEAR_IN_QUEUE)
    if
    :: d_step { !(word[page] & WAITERS) -> word[page] = word[page] & ~LOCKED }
    :: else -> pass_on()
    fi;
#else
    d_step { before = word[page]; word[page] = before & ~LOCKED }
    if
    :: before & WAITERS -> pass_on()
    :: else
    fi;
#endif
    atomic { before = 0; at = 0; who = 0 }
}

inline lock() {
    d_step { rounds = 0; done = 0 }
    do
    :: try_lock();
       if
       :: !(before & LOCKED) -> break
       :: else
       fi;
#ifdef NO_HAND_OFF
       wants[me] = LOCK;
#else
       wants[me] = (rounds >= UNFAIR_ROUNDS -> HAND_OFF : LOCK);
#endif
       sleep();
       if
       :: done -> break
       :: GONE -> break
       :: !done && !GONE -> rounds = (rounds < UNFAIR_ROUNDS -> rounds + 1 : rounds)
       fi
    od;
    atomic { rounds = 0; done = 0; before = 0; wants[me] = 0; state[me] = 0 }
}

proctype locker(byte me) {
    byte before, rounds, at, who, heir, clear, i;
    bit done;
#if LEAVERS
    bit left, may_leave;
#endif
#ifdef TIMES
    byte times;
#endif
    do
#ifdef TIMES
    :: times == TIMES -> break
    :: times < TIMES -> times++;
#else
    ::
#endif
       asking[me] = 1;
       lock();
       d_step { asking[me] = 0; owners[page]++; assert(owners[page] == 1) }
       owners[page]--;
       unlock()
    od
}

#if LEAVERS
proctype leaver(byte me) {
    byte before, rounds, at, who, heir, clear, i;
    bit done, left, may_leave;
#ifdef TIMES
    byte times;
#endif
    may_leave = 1;
    do
#ifdef TIMES
    :: times == TIMES -> break
    :: times < TIMES -> times++;
#else
    ::
#endif
       lock();
       if
       :: left -> left = 0
       :: else ->
          d_step { owners[page]++; assert(owners[page] == 1) }
          owners[page]--;
          unlock()
       fi
    od
}
#endif

#if LOOKERS
proctype looker(byte me) {
    byte before, at, i;
    bit done;
#if LEAVERS
    byte who;
    bit left, may_leave;
#endif
#ifdef TIMES
    byte times;
#endif
    do
#ifdef TIMES
    :: times == TIMES -> break
    :: times < TIMES -> times++;
#else
    ::
#endif
       looking = 1;
       if
       :: word[page] & LOCKED -> wants[me] = LOOK; sleep(); assert(done)
       :: else
       fi;
       atomic { looking = 0; done = 0; before = 0; state[me] = 0 }
    od
}
#endif

init {
    atomic {
        byte n;
        do
        :: n < LOCKERS -> run locker(n); n++
        :: else -> break
        od;
        n = 0;
#if LOOKERS
        run looker(LOCKERS);
#endif
#if LEAVERS
        run leaver(LOCKERS + LOOKERS);
#endif
        skip
    }
}

ltl served { [] (asking[0] -> <> !asking[0]) }
#if LOOKERS
ltl look_ends { [] (looking -> <> !looking) }
#endif
