/*
 * The queue of reads: a request is read, and the end of the queue comes although requests keep coming.
 *
 * Follows `IoQueue::{submit, close, stop}`, `Queue::work` and `Underway::drop` of rust/core/cache/io.rs, for a store that does not
 * stall.
 *
 * Threads: READERS threads submit one request after the other for ever, and wait for each; the worker takes them; with CLOSER one
 * thread closes the queue at some time, waits for everything that is queued or under way, and for the worker.
 *
 * Claims
 *   safe        a request is read once; nobody hangs: without an end of the queue the worker may sleep, and nobody else may
 *   read_ends   every request is read
 *   close_ends  once it began, the end of the queue comes to its end
 *
 * Premises: weak fairness; the queue's mutex is handed out in turn. (A step under it is one step here.)
 *
 * Abstractions: sequential consistency; one worker; a look at the condition and the sleep that follows are one step, because falling
 * asleep lets go of the mutex. The waits that also end by time do so only by being told: polling would hide that they are not.
 *
 * -D switches plant bugs; tests/spin/run.py lists what each must be caught by.
 */

#ifndef READERS
#define READERS 2
#endif

chan fifo = [READERS] of { byte }; /* whose requests are queued */
byte underway;          /* 1 while the worker reads */
bit wanted[READERS];    /* this reader's request is queued or under way */
bit stopping;
bit worker_told;        /* `work` was notified while the worker slept */
bit worker_sleeps;
bit worker_ended;
bit closer_told;
bit closer_sleeps;
bit closing;
bit closed;

inline tell_worker() {
    d_step {
        worker_told = (worker_sleeps -> 1 : worker_told)
    }
}

inline tell_closer() {
    d_step {
        closer_told = (closer_sleeps -> 1 : closer_told)
    }
}

proctype reader(byte me) {
    do
    :: true ->
       wanted[me] = 1;
       if
#ifdef QUEUE_WHEN_STOPPED
       :: d_step { !worker_ended -> fifo!me }
#else
       :: d_step { !stopping -> fifo!me }
#endif
#ifndef NO_NOTIFY
          tell_worker();
#endif
          !wanted[me]
#ifdef QUEUE_WHEN_STOPPED
       :: d_step { worker_ended -> wanted[me] = 0 }
#else
       /* its thread reads it */
       :: d_step { stopping -> wanted[me] = 0 }
#endif
       fi
    od
}

proctype worker() {
    byte taken;
    do
    :: atomic {
           if
#ifdef STOP_FIRST
           :: stopping -> break
           :: !stopping && len(fifo) > 0 ->
#else
           :: len(fifo) > 0 ->
#endif
#ifdef OTHERS_FIRST
              if
              :: fifo??[1] -> fifo??1; taken = 1
              :: else -> fifo?taken
              fi;
#else
              fifo?taken;
#endif
              assert(wanted[taken] && underway == 0);
              underway = 1
#ifndef STOP_FIRST
           :: len(fifo) == 0 && stopping -> break
#endif
           :: len(fifo) == 0 && !stopping -> worker_sleeps = 1
           fi
       }
       if
       :: worker_sleeps ->
end_idle: atomic { worker_told -> worker_told = 0; worker_sleeps = 0 }
       :: else ->
          wanted[taken] = 0;
#ifdef TELL_FIRST
          tell_closer();
          underway = 0
#else
          underway = 0;
          tell_closer()
#endif
       fi
    od;
    worker_ended = 1
}

#ifdef CLOSER
proctype closer() {
    closing = 1;
#ifdef NOT_TOLD
    stopping = 1;
#else
    stopping = 1;
    tell_worker();
#endif
    do
    :: atomic {
           if
           :: len(fifo) == 0 && underway == 0 -> break
           :: else -> closer_sleeps = 1
           fi
       }
       atomic { closer_told -> closer_told = 0; closer_sleeps = 0 }
    od;
    worker_ended;
    closed = 1
}
#endif

init {
    atomic {
        run worker();
        run reader(0);
#if READERS > 1
        run reader(1);
#endif
#ifdef CLOSER
        run closer()
#endif
    }
}

ltl read_ends { [] (wanted[0] -> <> !wanted[0]) }
ltl close_ends { [] (closing -> <> closed) }
