/*
 * A lookup without locks ends once writers stop (row 46 of docs/invariants.md).
 *
 * Follows `XArray::find` (rust/core/xarray/walk.rs), `AddressSpace::{find_get_page, find_get_page_once}`
 * (rust/core/cache/address_space.rs), `PageRef::try_get` (rust/core/page/refcount.rs) against `remove_mapping`
 * (rust/core/cache/vmscan.rs: freeze, empty the slot, unfreeze), `insert`, and the shrinking and growing of the tree
 * (rust/core/xarray/write.rs: `shrink` leaves RETRY in the node it takes away, and the head is another node by then).
 *
 * One thread looks a page up again and again inside a section; one writer does STEPS changes and stops. Two nodes take
 * turns at being the head's child; a node that left the tree is not used again while the section lasts (rcu.pml is about
 * that), so the writer waits for the end of the section before it reuses one.
 *
 * Claims
 *   safe         once the writer has stopped, a lookup starts over once at most, for what it had read before
 *                (with COUNT_ROUNDS); nobody hangs
 *   lookup_ends  every lookup ends
 *
 * Premise: weak fairness, so the writer does not stop for ever between freezing a count and changing the slot.
 *
 * Abstractions: sequential consistency; one index, one level below the head; one frame, reused at once.
 *
 * -D switches plant bugs; tests/spin/run.py lists what each must be caught by.
 */

#ifndef STEPS
#define STEPS 5
#endif

/* Entries of a slot. */
#define EMPTY 0
#define PAGE 1
#define RETRY 2

byte head;            /* which node hangs there: 0 or 1; 2: the entry hangs in the head itself */
byte slots[2];        /* slot 0 of each node */
byte in_head;         /* the entry, while head is 2 */
byte count = 1;       /* references of the frame: the cache's */
bit section;          /* the reader is inside */
bit waited[2];        /* a node left the tree and the section that could see it has ended */
bit looking;
bit at_rest;           /* the writer has stopped */
byte after;           /* rounds that failed after the writer stopped */

/* The slot where the entry is now. */
inline set_entry(entry) {
    d_step {
        if
        :: head == 2 -> in_head = entry
        :: else -> slots[head] = entry
        fi
    }
}

#define ENTRY (head == 2 -> in_head : slots[head])

proctype writer() {
    byte steps, old;
    do
    :: steps == STEPS -> break
    :: steps < STEPS ->
       steps++;
       if
       /* remove_mapping: the count first */
       :: ENTRY == PAGE ->
          if
          :: d_step { count == 1 -> count = 0 }
             set_entry(EMPTY);
             count = 1
          :: count != 1
          fi
       /* insert */
       :: ENTRY == EMPTY -> set_entry(PAGE)
       /* shrink: the entry moves up, the node's readers are told */
       :: head != 2 ->
          old = head;
          d_step { in_head = slots[old]; head = 2 }
          slots[old] = RETRY;
          waited[old] = 0
       /* grow: a node that nobody can hold any more */
       :: head == 2 && waited[0] -> slots[0] = in_head; head = 0
       :: head == 2 && waited[1] -> slots[1] = in_head; head = 1
       fi
    od;
    at_rest = 1
}

inline failed_round() {
#ifdef COUNT_ROUNDS
    after = (at_rest -> after + 1 : after);
    assert(after <= 1)
#else
    skip
#endif
}

/* XArray::find ends with `at` (the node, or 2) and `seen`. */
inline find() {
    do
    :: d_step { at = head; seen = in_head } /* one word: a node, or the entry itself */
       if
       :: at != 2 -> seen = slots[at]
       :: else
       fi;
#ifdef SPIN_IN_PLACE
       do
       :: seen == RETRY -> seen = slots[at]; failed_round()
       :: else -> break
       od;
#endif
       if
       :: seen == RETRY -> failed_round()
       :: else -> break
       fi
    od
}

proctype reader() {
    byte at, seen;
    do
    :: looking = 1;
       section = 1;
       after = 0;
       do
       :: find();
again:    skip;
          if
          :: seen == EMPTY -> break
          :: else ->
             if
             :: d_step { count != 0 -> count++ }
                if
                :: (at == 2 -> head == 2 && in_head == seen : slots[at] == seen) -> count--; break
                :: else -> count--; failed_round()
                fi
             :: else ->
                failed_round();
#ifdef SAME_SLOT_AGAIN
                goto again
#endif
             fi
          fi
       od;
       after = 0;
       looking = 0;
       d_step { section = 0; waited[0] = 1; waited[1] = 1 }
    od
}

init {
    atomic {
        slots[0] = PAGE;
        slots[1] = RETRY;
        waited[1] = 1;
        run reader();
        run writer()
    }
}

ltl lookup_ends { [] (looking -> <> !looking) }
