//! Models of RCU itself: here sections and grace periods are explored, with full fences instead of membarrier.

use super::{
    ArcCell, ReadSection, barrier, call_rcu, elapsed, ended, read, snapshot, synchronize,
    synchronize_if_much, waiting,
};
use crate::loom_harness::{History, Model, Protected, reach, spawn};
use crate::sync::LifeCell;
use std::sync::Arc;

#[path = "rcu/cell.rs"]
mod cell_models;

struct Value(LifeCell);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.kill();
    }
}

type Slot = Arc<ArcCell<Value>>;

fn fresh() -> Arc<Value> {
    Arc::new(Value(LifeCell::new()))
}

/// Whether the cell holds something; if so it must be alive.
fn look_inside(cell: &ArcCell<Value>, section: &ReadSection) -> bool {
    let value = cell.load(section);
    reach(if value.is_some() { "alive" } else { "gone" });
    if let Some(value) = value {
        value.0.assert_alive();
    }
    value.is_some()
}

fn look(cell: &ArcCell<Value>, history: &History<bool>) {
    history.call("look", || look_inside(cell, &read()), |there, seen| there == seen);
}

/// One thread runs `reader`; the other takes the value out and waits for a grace period, which drops the value.
fn against_free(reader: fn(&ArcCell<Value>, &History<bool>)) {
    let cell: Slot = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    let freer = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            let free = || {
                cell.replace(None);
                synchronize();
            };
            history.call("free", free, |there, ()| std::mem::replace(there, false));
        })
    };
    reader(&cell, &history);
    freer.join().unwrap();
    history.check();
}

/// Claim: the value is alive wherever the reader looks at it, and its end is ordered after the section. Premise: membarrier is a
/// full fence on every running thread.
#[test]
fn big_a_section_against_a_grace_period() {
    Model {
        name: "RCU: a section against a grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: true,
        body: || against_free(look),
        reaches: &["alive", "gone"],
        needs: &[
            "rcu.light",
            "rcu.light:seqcst",
            "rcu.heavy",
            "rcu.heavy:seqcst",
            "rcu.scan.waits",
            "rcu.scan.acquire",
            "rcu.scan.again.acquire",
            "rcu.exit.release",
            "rcu.batch.elapsed",
            "rcu.seed.dropped_now",
            "rcu.enter.announced_first",
            "rcu.scan.fence_first",
        ],
    }
    .check();
}

/// Claim: a scan that saw the first section open and then the second is ordered after the first. Premise: a slot has one writer.
#[test]
fn two_sections_against_a_grace_period() {
    Model {
        name: "RCU: two sections against a grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || {
            against_free(|cell, history| {
                look(cell, history);
                drop(read());
            });
        },
        reaches: &["alive", "gone"],
        needs: &["rcu.enter.release"],
    }
    .check();
}

/// Claim: a section inside a section neither ends the outer one when it begins nor when it ends.
#[test]
fn nested_sections_against_a_grace_period() {
    Model {
        name: "RCU: a section inside a section",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || {
            against_free(|cell, history| {
                let nested = || {
                    let outer = read();
                    let there = look_inside(cell, &outer);
                    drop(read());
                    if let Some(value) = cell.load(&outer) {
                        value.0.assert_alive();
                    }
                    there
                };
                history.call("look", nested, |there, seen| there == seen);
            });
        },
        reaches: &["alive", "gone"],
        needs: &["rcu.enter.outermost", "rcu.exit.outermost"],
    }
    .check();
}

/// A grace period when no thread is inside: the ticket of before has elapsed after it.
pub(super) fn grace_period_at_rest<S: Clone + std::fmt::Debug + Send + 'static>(history: &History<S>) {
    history.settle();
    let wait = || {
        let ticket = snapshot();
        synchronize();
        elapsed(ticket)
    };
    history.call("a grace period at rest", wait, |_, &over| over);
}

/// Two threads open the domain's first sections. Claim: both use the same slots, and find them initialised.
fn first_sections() {
    let history = History::new(0_u32);
    let pass = |history: &History<u32>| history.call("pass", || drop(read()), |_, ()| true);
    let other = {
        let history = history.clone();
        spawn(move || pass(&history))
    };
    pass(&history);
    other.join().unwrap();
    grace_period_at_rest(&history);
    history.check();
}

#[test]
fn the_first_two_sections() {
    Model {
        name: "RCU: the first two sections",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: true,
        body: first_sections,
        reaches: &[],
        needs: &["slots.chunk.acquire", "slots.chunk.publish.release", "slots.chunk.lost"],
    }
    .check();
}

/// A grace period scans while another thread opens the domain's first section. Claim: the slots that the scan finds are
/// initialised.
fn scan_against_first_section() {
    let history = History::new(0_u32);
    let other = {
        let history = history.clone();
        spawn(move || history.call("wait", synchronize, |_, ()| true))
    };
    history.call("pass", || drop(read()), |_, ()| true);
    other.join().unwrap();
    grace_period_at_rest(&history);
    history.check();
}

#[test]
fn a_scan_against_the_first_section() {
    Model {
        name: "RCU: a scan against the first section",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: true,
        body: scan_against_first_section,
        reaches: &[],
        needs: &["slots.scan.chunk.acquire"],
    }
    .check();
}

/// One thread uses an object and defers its end; one runs deferred work. Claim: the end comes after the use, once.
fn deferral() {
    let history = History::new(0_u32);
    let ended = Arc::new(Protected::new());
    let other = {
        let (history, ended) = (history.clone(), Arc::clone(&ended));
        spawn(move || {
            let life = LifeCell::new();
            life.assert_alive();
            let defer = || {
                call_rcu(move || {
                    life.kill();
                    ended.increment();
                });
            };
            history.call("defer", defer, |_, ()| true);
        })
    };
    history.call("wait", synchronize, |_, ()| true);
    other.join().unwrap();
    history.settle();
    barrier();
    history.call("look", || ended.get(), |_, &times| times == 1);
    history.check();
}

#[test]
fn deferred_work_comes_after_what_was_done_before() {
    Model {
        name: "RCU: deferred work",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: true,
        body: deferral,
        reaches: &[],
        needs: &["rcu.defer.release", "rcu.take.acquire"],
    }
    .check();
}

/// A thread unlinks a value inside its own section and goes on using it; one waits for grace periods. Claim: work deferred after
/// a scan began is not run at that scan's end.
fn unlinked_during_a_scan() {
    let cell: Slot = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    let runner = {
        let history = history.clone();
        spawn(move || history.call("wait", synchronize, |_, ()| true))
    };
    let unlink = || {
        let section = read();
        let value = cell.load(&section);
        cell.replace(None);
        value.is_some_and(|value| {
            value.0.assert_alive();
            true
        })
    };
    history.call("unlink", unlink, |there, was| std::mem::replace(there, false) == *was);
    runner.join().unwrap();
    history.check();
    barrier();
}

#[test]
fn work_is_taken_before_the_scan() {
    Model {
        name: "RCU: unlinking during a scan",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: unlinked_during_a_scan,
        reaches: &[],
        needs: &["rcu.seed.taken_late", "rcu.take.before_ticket"],
    }
    .check();
}

/// One thread unlinks a value, takes a ticket and ends the value if the ticket has elapsed by another thread's grace period. The
/// other looks, waits for a grace period, and looks again. Claim: once the ticket has elapsed, no thread looks at the value any
/// more. Premise: the ticket was taken after the unlinking.
fn batched() {
    let value = fresh();
    let cell: Slot = Arc::new(ArcCell::new(Arc::clone(&value)));
    let history = History::new(true);
    let other = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            look(&cell, &history);
            synchronize();
            look(&cell, &history);
        })
    };
    let unlink = || {
        cell.replace(None);
        let over = elapsed(snapshot());
        if over {
            reach("elapsed");
            value.0.kill();
        }
        over
    };
    history.call("unlink", unlink, |there, _| std::mem::replace(there, false));
    other.join().unwrap();
    history.check();
    // Forgotten: its end has been declared, or the deferred one will come.
    std::mem::forget(value);
}

#[test]
fn big_a_ticket_that_elapsed() {
    Model {
        name: "RCU: a ticket against another's grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: batched,
        reaches: &["elapsed", "alive", "gone"],
        needs: &["rcu.seed.ticket", "rcu.snapshot.release", "rcu.elapsed.acquire"],
    }
    .check();
}

/// Two threads wait for a grace period. Claim: there is at least one and at most two, and one may serve both: tickets are drawn
/// before the turn is waited for.
fn two_wait() {
    let history = History::new(0_u64);
    let wait = |history: &History<u64>| history.call("wait", synchronize, |_, ()| true);
    let other = {
        let history = history.clone();
        spawn(move || wait(&history))
    };
    wait(&history);
    other.join().unwrap();
    history.settle();
    let ended = history.ask("count", ended, |_, ended| (1..=2).contains(ended));
    reach(if ended == 1 { "one for both" } else { "one for each" });
    history.check();
}

#[test]
fn a_grace_period_may_serve_two() {
    Model {
        name: "RCU: two who wait for a grace period",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: two_wait,
        reaches: &["one for both", "one for each"],
        needs: &[],
    }
    .check();
}

/// As [`batched`], but a third thread looks. Claim: the ticket covers its section too.
fn batched_for_a_third() {
    let value = fresh();
    let cell: Slot = Arc::new(ArcCell::new(Arc::clone(&value)));
    let history = History::new(true);
    let reader = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || look(&cell, &history))
    };
    let waiter = spawn(synchronize);
    let unlink = || {
        cell.replace(None);
        let over = elapsed(snapshot());
        if over {
            reach("elapsed");
            value.0.kill();
        }
    };
    history.call("unlink", unlink, |there, ()| std::mem::replace(there, false));
    reader.join().unwrap();
    waiter.join().unwrap();
    history.check();
    std::mem::forget(value);
}

#[test]
fn big_a_ticket_that_elapsed_for_a_third() {
    Model {
        name: "RCU: a ticket, another's grace period, and a third's section",
        rows: &[10],
        preemption_bound: Some(3),
        grace_periods: true,
        twin: false,
        body: batched_for_a_third,
        reaches: &["elapsed", "alive", "gone"],
        needs: &["rcu.completed.release", "rcu.pass.numbered_first", "rcu.pass.completed_last"],
    }
    .check();
}

/// A thread defers work, waits for a grace period or not, and then for the work; another waits for grace periods too and may be
/// the one that runs it. Claim: after the barrier the work has been done.
fn barrier_against_runner(first: fn()) {
    let done = Arc::new(Protected::new());
    let history = History::new(0_u32);
    let runner = {
        let history = history.clone();
        spawn(move || history.call("wait", synchronize, |_, ()| true))
    };
    let defer_and_wait = || {
        let counter = Arc::clone(&done);
        call_rcu(move || counter.increment());
        first();
        barrier();
        done.get()
    };
    history.call("defer and wait", defer_and_wait, |_, &times| times == 1);
    runner.join().unwrap();
    history.check();
}

#[test]
fn a_barrier_against_another_runner() {
    Model {
        name: "RCU: a barrier against another runner",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || barrier_against_runner(|| ()),
        reaches: &[],
        needs: &["rcu.seed.barrier_runs_ahead", "rcu.synchronize.runs_first"],
    }
    .check();
}

#[test]
fn only_the_runner_takes_work() {
    Model {
        name: "RCU: two who wait, and a barrier",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || barrier_against_runner(synchronize),
        reaches: &[],
        needs: &["rcu.take.runner"],
    }
    .check();
}

/// Two threads defer work and wait for it. Claim: each finds its own done, whoever has run it.
fn barrier_against_barrier() {
    let history = History::new(0_u32);
    let defer_and_wait = |history: &History<u32>| {
        let done = Arc::new(Protected::new());
        let defer_and_wait = || {
            let counter = Arc::clone(&done);
            call_rcu(move || counter.increment());
            barrier();
            done.get()
        };
        history.call("defer and wait", defer_and_wait, |_, &times| times == 1);
    };
    let other = {
        let history = history.clone();
        spawn(move || defer_and_wait(&history))
    };
    defer_and_wait(&history);
    other.join().unwrap();
    history.check();
}

#[test]
fn big_a_barrier_against_a_barrier() {
    Model {
        name: "RCU: two barriers",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: barrier_against_barrier,
        reaches: &[],
        needs: &["rcu.barrier.runs_first", "rcu.defer.linked_first", "rcu.defer.counted_first"],
    }
    .check();
}

/// Little work waits, much does not: with two pieces, which are much here, deferred by two threads, each of which asks whether
/// there is much. Claim: the first piece, alone, is not waited for; when both threads have asked, at most one is left.
fn much_by_two() {
    let history = History::new(0_u32);
    let done = Arc::new(Protected::new());
    let defer = |done: &Arc<Protected>| {
        let counter = Arc::clone(done);
        call_rcu(move || counter.increment());
        synchronize_if_much();
    };
    defer(&done);
    history.call("look", || done.get(), |_, &done| done == 0);
    let other = {
        let (history, done) = (history.clone(), Arc::clone(&done));
        spawn(move || history.call("defer and ask", || defer(&done), |_, ()| true))
    };
    history.call("ask", synchronize_if_much, |_, ()| true);
    other.join().unwrap();
    history.settle();
    history.call("count", waiting, |_, &left| left < 2);
    barrier();
    history.call("count at rest", || (waiting(), done.get()), |_, &found| found == (0, 2));
    history.check();
}

#[test]
fn big_much_work_is_waited_for() {
    Model {
        name: "RCU: much deferred work",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: much_by_two,
        reaches: &[],
        needs: &["rcu.much.enough", "rcu.much.waits"],
    }
    .check();
}

/// Work that defers more work, as the end of a file does. Claim: a barrier runs what was deferred before it; the next one runs
/// what that deferred, whoever ran it.
fn work_that_defers() {
    let history = History::new(0_u32);
    let (first, second) = (Arc::new(Protected::new()), Arc::new(Protected::new()));
    let other = {
        let history = history.clone();
        spawn(move || history.call("wait", synchronize, |_, ()| true))
    };
    let defer = || {
        let (first, second) = (Arc::clone(&first), Arc::clone(&second));
        call_rcu(move || {
            first.increment();
            call_rcu(move || second.increment());
        });
    };
    history.call("defer", defer, |_, ()| true);
    history.call("wait for the first", || (barrier(), first.get()).1, |_, &times| times == 1);
    history.call("wait for the second", || (barrier(), second.get()).1, |_, &times| times == 1);
    other.join().unwrap();
    history.check();
}

#[test]
fn work_may_defer_work() {
    Model {
        name: "RCU: work that defers work",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: work_that_defers,
        reaches: &[],
        needs: &["rcu.seed.barrier_runs_ahead"],
    }
    .check();
}

/// Deferred work itself waits for deferred work, as the end of a file does. Claims: it does not wait for itself; whoever waits for the
/// work waits for its end.
fn barrier_inside_work() {
    let done = Arc::new(Protected::new());
    let history = History::new(0_u32);
    let other = {
        let history = history.clone();
        spawn(move || history.call("wait", synchronize, |_, ()| true))
    };
    let wait_inside = || {
        let counter = Arc::clone(&done);
        call_rcu(move || {
            barrier();
            counter.increment();
        });
        barrier();
        done.get()
    };
    history.call("wait inside work", wait_inside, |_, &times| times == 1);
    other.join().unwrap();
    history.check();
}

#[test]
fn a_barrier_inside_deferred_work() {
    Model {
        name: "RCU: a barrier inside deferred work",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: barrier_inside_work,
        reaches: &[],
        needs: &["rcu.barrier.outside"],
    }
    .check();
}
