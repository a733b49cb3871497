//! RCU under shuttle: many sections against several threads that free.

use super::{ArcCell, barrier, call_rcu, elapsed, read, snapshot, synchronize, synchronize_if_much};
use crate::shuttle_harness::{Search, Test, reach, together};
use crate::sync::context::{self, Context};
use crate::sync::{LifeCell, Tally};
use std::sync::Arc;

/// Three threads read a value in sections, nested ones too; two replace it, one waiting for a grace period, one leaving the end
/// of the old value to deferred work; one waits for everything that was deferred. Claims: a value is alive wherever a section
/// finds it; after a barrier all work deferred before it has run; a ticket has elapsed after a grace period.
fn sections_against_grace_periods() {
    // Never freed, only declared dead: a late reader sees that instead of what the allocator put in its place.
    let values: Vec<_> = (0..5).map(|_| Arc::new(LifeCell::new())).collect();
    let cell = Arc::new(ArcCell::new(Arc::clone(&values[0])));
    let mut threads: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for _ in 0..3 {
        let cell = Arc::clone(&cell);
        threads.push(Box::new(move || {
            for _ in 0..2 {
                let outer = read();
                let value = cell.load(&outer);
                drop(read());
                if let Some(value) = value {
                    value.assert_alive();
                    reach("alive");
                }
            }
        }));
    }
    {
        let (cell, values) = (Arc::clone(&cell), values.clone());
        threads.push(Box::new(move || {
            let ticket = snapshot();
            // The second thread replaces what the first one put there: each kills only a value that cannot be found any more.
            cell.replace(Some(Arc::clone(&values[1])));
            synchronize();
            assert!(elapsed(ticket));
            values[0].kill();
        }));
    }
    {
        let done = Arc::new(Tally::new());
        threads.push(Box::new(move || {
            let (other, section) = (ArcCell::new(Arc::clone(&values[2])), read());
            drop(section);
            other.replace(None);
            let (victim, counter) = (Arc::clone(&values[2]), Arc::clone(&done));
            call_rcu(move || {
                victim.kill();
                counter.add(1);
            });
            barrier();
            assert_eq!(done.tallied(), 1, "a barrier returned before deferred work had run");
        }));
    }
    threads.push(Box::new(barrier));
    together(threads);
}

#[test]
fn many_sections_against_grace_periods() {
    Test {
        name: "RCU: many sections against grace periods",
        search: Search::Pct(1_000),
        body: sections_against_grace_periods,
        reaches: &["alive"],
        needs: &["rcu.scan.waits"],
    }
    .check();
}

/// Six threads look in a section, end and look again, late; two replace what they look at, each waiting for a grace period. Slots
/// change owners. Claim: a value is alive wherever a section finds it.
fn threads_that_end() {
    let values: Vec<_> = (0..3).map(|_| Arc::new(LifeCell::new())).collect();
    let cell = Arc::new(ArcCell::new(Arc::clone(&values[0])));
    let mut threads: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for _ in 0..6 {
        let cell = Arc::clone(&cell);
        threads.push(Box::new(move || {
            for late in [false, true, true] {
                let section = read();
                if let Some(value) = cell.load(&section) {
                    value.assert_alive();
                    reach(if late { "late" } else { "in time" });
                }
                drop(section);
                if !late {
                    context::with(Context::end);
                }
            }
        }));
    }
    for round in 0..2 {
        let (cell, values) = (Arc::clone(&cell), values.clone());
        threads.push(Box::new(move || {
            // The second thread replaces what the first one put there: the first value cannot be found any more.
            cell.replace(Some(Arc::clone(&values[1 + round])));
            synchronize();
            values[0].kill();
        }));
    }
    together(threads);
}

#[test]
fn threads_end_and_slots_go_on() {
    Test {
        name: "RCU: threads that end, and late sections",
        search: Search::Pct(1_000),
        body: threads_that_end,
        reaches: &["in time", "late"],
        needs: &["slots.claim.free", "rcu.scan.waits"],
    }
    .check();
}

/// Three threads defer two pieces of work each, ask whether there is much, and wait for their own with a barrier; two wait for grace
/// periods and may run it. Claims: after a barrier the thread's own work has run, once; nothing is left at the end.
fn many_defer() {
    let mut threads: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for _ in 0..3 {
        threads.push(Box::new(|| {
            let done = Arc::new(Tally::new());
            for _ in 0..2 {
                let (counter, life) = (Arc::clone(&done), LifeCell::new());
                call_rcu(move || {
                    life.assert_alive();
                    life.kill();
                    counter.add(1);
                });
                synchronize_if_much();
            }
            reach(if done.tallied() == 2 { "run before" } else { "not run before" });
            barrier();
            assert_eq!(done.tallied(), 2, "a barrier returned before deferred work had run");
        }));
    }
    for _ in 0..2 {
        threads.push(Box::new(synchronize));
    }
    together(threads);
}

#[test]
fn many_defer_and_wait() {
    Test {
        name: "RCU: many who defer work, and barriers",
        search: Search::Pct(500),
        body: many_defer,
        reaches: &["run before", "not run before"],
        needs: &[
            "rcu.barrier.runs_first",
            "rcu.synchronize.runs_first",
            "rcu.defer.linked_first",
            "rcu.defer.counted_first",
        ],
    }
    .check();
}
