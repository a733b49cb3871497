//! Models of slots, of threads without one, and of threads that end.

use super::models::grace_period_at_rest;
use super::{ArcCell, read, synchronize};
use crate::loom_harness::{Address, History, Model, reach, spawn};
use crate::sync::context::{self, Context};
use crate::sync::model::{set_claims_meet, set_ends_are_told, set_first_chunk};
use crate::sync::{LifeCell, PerProcess, slots};
use std::cell::Cell;
use std::sync::Arc;

struct Value(LifeCell);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.kill();
    }
}

fn fresh() -> Arc<Value> {
    Arc::new(Value(LifeCell::new()))
}

/// Looks in a section whether the cell holds something; if so it must be alive.
fn look(cell: &ArcCell<Value>, history: &History<bool>) {
    let look = || {
        let section = read();
        let value = cell.load(&section);
        reach(if value.is_some() { "alive" } else { "gone" });
        value.inspect(|value| value.0.assert_alive()).is_some()
    };
    history.call("look", look, |there, seen| there == seen);
}

/// Takes the value out and waits for a grace period, which drops it.
fn free(cell: &ArcCell<Value>, history: &History<bool>) {
    let free = || {
        cell.replace(None);
        synchronize();
    };
    history.call("free", free, |there, ()| std::mem::replace(there, false));
}

fn end_of_thread() {
    context::with(Context::end);
}

fn has_slot() -> bool {
    context::with(|thread| thread.slot().is_some())
}

/// A thread has a section, ends and has another one, late, or it is late from the first because it cannot be told of its end;
/// meanwhile a second thread has its first section and searches for a slot. Claim: no slot belongs to two threads, and each is left
/// with no thread inside, which the grace period at the end shows.
fn claim_against_late_section(told: bool) {
    set_claims_meet(true);
    set_ends_are_told(told);
    let history = History::new(0_u32);
    let pass = |history: &History<u32>| history.call("pass", || drop(read()), |_, ()| true);
    let late = {
        let history = history.clone();
        spawn(move || {
            if told {
                pass(&history);
                assert!(has_slot(), "a thread keeps its slot from section to section");
                end_of_thread();
                assert!(!has_slot(), "a thread that ends gives its slot back");
            }
            pass(&history);
            assert!(!has_slot(), "a late section gives its slot back");
        })
    };
    pass(&history);
    late.join().unwrap();
    grace_period_at_rest(&history);
    history.check();
}

#[test]
fn big_a_claim_against_a_late_section() {
    Model {
        name: "threads: a claim against a late section",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || claim_against_late_section(true),
        reaches: &[],
        needs: &[
            "slots.claim.free",
            "slots.claim.acquire",
            "slots.give_back.release",
            "rcu.seed.given_back_inside",
        ],
    }
    .check();
}

#[test]
fn a_claim_against_a_thread_that_cannot_be_told() {
    Model {
        name: "threads: a claim against a thread that cannot be told of its end",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || claim_against_late_section(false),
        reaches: &[],
        needs: &["rcu.seed.given_back_inside"],
    }
    .check();
}

/// The thread of a forked child, which had a slot in its parent, has a section, and before that it may end; another thread, which
/// began in the child, has a section too. Claim: a slot of the parent belongs to no thread, and nobody waits for a section that
/// was open there. Premise: the kernel wipes slots in the child.
fn sections_of_a_child(ends: bool) {
    set_claims_meet(true);
    let history = History::new(0_u32);
    let pass = |history: &History<u32>| history.call("pass", || drop(read()), |_, ()| true);
    drop(read());
    spawn(|| std::mem::forget(read())).join().unwrap();
    slots().wipe();
    let other = {
        let history = history.clone();
        spawn(move || pass(&history))
    };
    if ends {
        end_of_thread();
    }
    pass(&history);
    other.join().unwrap();
    grace_period_at_rest(&history);
    history.check();
}

#[test]
fn the_sections_of_a_child() {
    Model {
        name: "threads: sections in the child of a fork",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || sections_of_a_child(false),
        reaches: &[],
        needs: &["context.owned", "slots.wipe.count"],
    }
    .check();
}

#[test]
fn the_end_in_a_child() {
    Model {
        name: "threads: an end in the child of a fork",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || sections_of_a_child(true),
        reaches: &[],
        needs: &["context.give_back.owned"],
    }
    .check();
}

/// A thread ends inside a section, in which it looks, and looks again, late; another frees. Claim: a grace period waits for the
/// section that was open at the end, and for a late one, as for any other.
fn late_section_against_grace_period() {
    let cell = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    let late = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            let open = read();
            end_of_thread();
            look(&cell, &history);
            drop(open);
            assert!(!has_slot(), "a section that was open at the end gives its slot back");
            look(&cell, &history);
        })
    };
    free(&cell, &history);
    late.join().unwrap();
    history.check();
}

#[test]
fn a_late_section_against_a_grace_period() {
    Model {
        name: "threads: a late section against a grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: late_section_against_grace_period,
        reaches: &["alive", "gone"],
        needs: &["context.end.outside"],
    }
    .check();
}

/// A thread looks and ends; a second one looks, in the slot that the first gave back or in another; a third frees. Claim: the
/// scan waits for the thread inside, whichever thread had the slot before.
fn scan_against_reuse() {
    set_claims_meet(true);
    let cell = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    let ending = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            look(&cell, &history);
            end_of_thread();
        })
    };
    let beginning = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || look(&cell, &history))
    };
    free(&cell, &history);
    ending.join().unwrap();
    beginning.join().unwrap();
    history.check();
}

#[test]
fn big_a_scan_against_the_next_owner_of_a_slot() {
    Model {
        name: "threads: a scan against the next owner of a slot",
        rows: &[10],
        preemption_bound: Some(3),
        grace_periods: true,
        twin: false,
        body: scan_against_reuse,
        reaches: &["alive", "gone"],
        needs: &["slots.claim.free"],
    }
    .check();
}

/// The first chunk has one slot, which this thread has. Others look, in slots of further chunks, and this thread frees. Claim: a
/// scan comes to every chunk in which a thread may be that it must wait for. Premise: chunks are made in order.
fn scan_against_later_chunks(looking: usize) {
    set_first_chunk(1);
    set_claims_meet(true);
    let cell = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    drop(read());
    let looking = (0..looking).map(|_| {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || look(&cell, &history))
    });
    let looking: Vec<_> = looking.collect();
    free(&cell, &history);
    for thread in looking {
        thread.join().unwrap();
    }
    history.check();
}

#[test]
fn a_scan_against_a_section_of_the_second_chunk() {
    Model {
        name: "threads: a scan against a section in the second chunk",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || scan_against_later_chunks(1),
        reaches: &["alive", "gone"],
        needs: &["slots.scan.every_chunk"],
    }
    .check();
}

#[test]
fn big_a_scan_against_two_sections_of_the_second_chunk() {
    Model {
        name: "threads: a scan against two who make the second chunk",
        rows: &[10],
        preemption_bound: Some(3),
        grace_periods: true,
        twin: false,
        body: || scan_against_later_chunks(2),
        reaches: &["alive", "gone"],
        needs: &["slots.scan.every_chunk", "slots.claim.free"],
    }
    .check();
}

fn take_all_slots() {
    let mut ticket = 1_000_000;
    while slots().claim(ticket, 0).is_some() {
        ticket += 1;
    }
}

/// In the child of a fork no slot is left for the thread that had one in its parent. It looks, and another thread frees. Claim: it
/// leaves the crowd, which it joined, and not its old slot, which has another owner.
fn crowd_in_a_child() {
    set_first_chunk(1);
    set_claims_meet(true);
    let cell = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    drop(read());
    slots().wipe();
    take_all_slots();
    let freer = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || free(&cell, &history))
    };
    look(&cell, &history);
    freer.join().unwrap();
    history.check();
}

#[test]
fn the_crowd_in_a_child() {
    Model {
        name: "threads: one without a slot in the child of a fork",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: crowd_in_a_child,
        reaches: &["alive", "gone"],
        needs: &["context.claim.forgets"],
    }
    .check();
}

/// No slot is left. Some threads look, and one frees. Claim: the grace period waits for the crowd.
fn crowd_against_grace_period(looking: usize) {
    set_first_chunk(1);
    take_all_slots();
    let cell = Arc::new(ArcCell::new(fresh()));
    let history = History::new(true);
    let looking = (0..looking).map(|_| {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || look(&cell, &history))
    });
    let looking: Vec<_> = looking.collect();
    free(&cell, &history);
    for thread in looking {
        thread.join().unwrap();
    }
    history.check();
}

#[test]
fn the_crowd_against_a_grace_period() {
    Model {
        name: "threads: one without a slot against a grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || crowd_against_grace_period(1),
        reaches: &["alive", "gone"],
        needs: &["rcu.crowd.waits", "rcu.crowd.exit.release", "rcu.crowd.scan.acquire"],
    }
    .check();
}

#[test]
fn big_two_of_the_crowd_against_a_grace_period() {
    Model {
        name: "threads: two without a slot against a grace period",
        rows: &[10],
        preemption_bound: Some(3),
        grace_periods: true,
        twin: false,
        body: || crowd_against_grace_period(2),
        reaches: &["alive", "gone"],
        needs: &["rcu.crowd.counted"],
    }
    .check();
}

std::thread_local! {
    /// All threads of a model are coroutines of one thread.
    static VALUES: Cell<u64> = const { Cell::new(0) };
}

/// What a process has one of; counts how many there are.
struct Counted(LifeCell);

impl Counted {
    fn new() -> Self {
        VALUES.set(VALUES.get() + 1);
        Self(LifeCell::new())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        VALUES.set(VALUES.get() - 1);
    }
}

/// Two threads get the value of their process, which has not been made yet. Claim: one value is kept, and both see it whole; the
/// other is dropped.
fn two_make_a_value() {
    VALUES.set(0);
    let value: &'static PerProcess<Counted> = Box::leak(Box::new(PerProcess::new(Counted::new)));
    let history = History::new(None);
    let get = |history: &History<Option<Address>>| {
        let get = || {
            let value = value.get();
            value.0.assert_alive();
            Address::of(value)
        };
        history.call("get", get, |value, seen| *value.get_or_insert(*seen) == *seen);
    };
    let other = {
        let history = history.clone();
        spawn(move || get(&history))
    };
    get(&history);
    other.join().unwrap();
    history.check();
    assert_eq!(VALUES.get(), 1);
}

#[test]
fn two_make_a_value_of_their_process() {
    Model {
        name: "threads: a value of the process made by two",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: two_make_a_value,
        reaches: &[],
        needs: &["per_process.acquire", "per_process.release", "per_process.lost"],
    }
    .check();
}
