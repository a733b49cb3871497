/*
 * Grace periods: rust/core/rcu/grace.rs; deferred work: rust/core/rcu/domain.rs.
 *
 * Readers open and close sections for ever (`read`, `ReadSection::drop`). Updaters for ever defer a piece of work
 * (`call_rcu`) and call `synchronize` or `barrier`; both are followed step by step: `Domain::grace_period` with
 * its two takes, `snapshot`, `elapsed`, the mutexes `turn` and `runner`, `Domain::wait_for_readers`.
 *
 * Claims
 *   safe        a call of synchronize or barrier does not return, and deferred work does not run, while a section is
 *               open that was open when the call (the deferral) began; what a thread deferred before its barrier has
 *               run when the barrier returns; nobody hangs
 *   call_ends   every call of synchronize and of barrier returns, although readers keep coming
 *   work_runs   deferred work is run
 *
 * Premises
 *   weak fairness: a thread that can go on does. So every section ends;
 *   a mutex is handed out in the order of asking (the standard library's is not: BARGING shows what then is lost).
 *
 * Abstractions
 *   Sequential consistency: heavy and light barriers are no steps. tests/loom has the memory orders.
 *   A 64-bit count never comes round. So `count == seen` is "nothing was stored since `seen` was loaded", and that is
 *   what `watched` says; `completed >= ticket` is "a grace period begun after the snapshot is over", and that is
 *   `served`. Both are exact and bounded, which counters would not be.
 *   Polling is a guard: true once, true until the scan begins anew. Sections do not nest. Work does not defer work.
 *
 * -D switches plant bugs; tests/spin/run.py lists what each must be caught by. COUNT_AFTER_PUSH is how the code was: A
 * pushes and has not counted yet, B takes and runs that and takes it off the count, which is less than nothing now; B
 * pushes and counts, the count is zero, and B's barrier finds nothing to do and returns, while B's work is in the stack.
 */

#define READERS 2
#define UPDATERS 2

bit odd[READERS];       /* Slot::count & 1 */
byte watched[UPDATERS]; /* the reader whose count this scan waits for, plus 1; 0 once that count was stored to */

/* Grace: the grace period that is running began after the snapshot of updater u; one such is over. */
bit counts[UPDATERS];
bit served[UPDATERS];
bit running;

/* Each updater owns one piece of work. */
byte stack;             /* Domain::deferred, as a set */
#ifdef COUNT_AFTER_PUSH
short waiting;          /* Domain::waiting, on which barrier relied: counted after the push, taken off after the swap */
#endif
bit pending[UPDATERS];  /* deferred and not yet run */

/* What the claims are about: sections that were open at the beginning, and calls under way. */
byte call_owes[UPDATERS];
byte work_owes[UPDATERS];
bit calling[UPDATERS];

#ifdef BARGING
bit turn_held;
#define LOCK_TURN   atomic { !turn_held -> turn_held = 1 }
#define UNLOCK_TURN turn_held = 0
#else
chan turn = [UPDATERS] of { byte };
#define LOCK_TURN   turn!me; turn?[eval(me)]
#define UNLOCK_TURN turn?eval(me)
#endif

chan runner = [UPDATERS] of { byte };

#define OPEN_SECTIONS (odd[0] | (odd[1] << 1))

inline stored(u) {
    watched[u] = (watched[u] == r + 1 -> 0 : watched[u])
}

proctype reader(byte r) {
    do
    :: d_step { odd[r] = 1; stored(0); stored(1) }
       /* inside */
       d_step {
           odd[r] = 0; stored(0); stored(1);
           call_owes[0] = call_owes[0] & ~(1 << r); call_owes[1] = call_owes[1] & ~(1 << r);
           work_owes[0] = work_owes[0] & ~(1 << r); work_owes[1] = work_owes[1] & ~(1 << r)
       }
    od
}

/* Domain::take_deferred. */
inline take_deferred() {
    d_step { taken = stack; ready = ready | stack; stack = 0 }
#ifdef COUNT_AFTER_PUSH
    waiting = waiting - (taken & 1) - (taken >> 1);
#endif
    taken = 0
}

inline wait_for_readers() {
#ifdef NO_SCAN
    skip
#else
    at = 0;
    do
    :: at < READERS ->
        d_step { seen = odd[at]; watched[me] = (seen -> at + 1 : 0) }
        if
        :: !seen
#ifdef WAIT_FOR_EVEN
        :: seen -> !odd[at]
#else
        :: seen -> watched[me] == 0
#endif
        fi;
        d_step { seen = 0; watched[me] = 0; at++ }
    :: else -> break
    od;
    at = 0
#endif
}

/* Domain::grace_period. */
inline grace_period(take) {
    if
    :: take -> take_deferred()
    :: else
    fi;
    /* snapshot */
#ifdef OLD_TICKET
    d_step { counts[me] = running; served[me] = !running }
#else
    d_step { counts[me] = 0; served[me] = 0 }
#endif
    LOCK_TURN;
#ifdef TAKE_THEN_BATCH
    if
    :: take -> take_deferred()
    :: else
    fi;
#endif
    if
    :: served[me]
    :: else ->
#ifndef TAKE_THEN_BATCH
        if
        :: take -> take_deferred()
        :: else
        fi;
#endif
#ifdef NUMBER_LATE
        wait_for_readers();
        d_step { running = 1; counts[0] = 1; counts[1] = 1 }
#else
        d_step { running = 1; counts[0] = 1; counts[1] = 1 }
        wait_for_readers();
#endif
        d_step {
            running = 0; served[0] = served[0] | counts[0]; served[1] = served[1] | counts[1];
            counts[0] = 0; counts[1] = 0
        }
    fi;
    served[me] = 0;
    UNLOCK_TURN
}

inline run_ready() {
    do
    :: ready & 1 -> d_step { assert(work_owes[0] == 0); pending[0] = 0; ready = ready & ~1 }
    :: !(ready & 1) && (ready & 2) -> d_step { assert(work_owes[1] == 0); pending[1] = 0; ready = ready & ~2 }
    :: ready == 0 -> break
    od
}

inline defer() {
    d_step { pending[me] = 1; work_owes[me] = OPEN_SECTIONS }
    stack = stack | (1 << me);
#ifdef COUNT_AFTER_PUSH
    waiting++;
#endif
}

inline synchronize() {
    d_step { calling[me] = 1; call_owes[me] = OPEN_SECTIONS }
    if
    :: atomic { empty(runner) -> runner!me }
       grace_period(true);
#ifdef RUN_OUTSIDE
       runner?eval(me);
       run_ready()
#else
       run_ready();
       runner?eval(me)
#endif
    :: atomic { nempty(runner) -> skip }
       grace_period(false)
    fi;
    assert(call_owes[me] == 0);
    calling[me] = 0
}

inline barrier() {
    calling[me] = 1;
    runner!me; runner?[eval(me)];
    if
#ifdef COUNT_AFTER_PUSH
    :: waiting != 0 -> grace_period(true); run_ready()
#else
    :: stack != 0 -> grace_period(true); run_ready()
#endif
    :: else
    fi;
    runner?eval(me);
    assert(!pending[me]);
    calling[me] = 0
}

proctype updater(byte me) {
    byte ready, taken, at;
    bit seen;
    do
    :: if
       :: !pending[me] -> defer()
       :: true
       fi;
       if
       :: synchronize()
#ifdef BARRIER_IS_SYNCHRONIZE
       :: synchronize(); assert(!pending[me])
#else
       :: barrier()
#endif
       fi
    od
}

init {
    atomic { run reader(0); run reader(1); run updater(0); run updater(1) }
}

ltl call_ends { [] (calling[0] -> <> !calling[0]) }
ltl work_runs { [] (pending[0] -> <> !pending[0]) }
