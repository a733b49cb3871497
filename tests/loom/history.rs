//! The executable specification inside every execution: what was done, in some order, must be what a sequential program
//! could have done.
//!
//! A model makes its operations through [`History::call`], each with the specification of that operation: given the state and the
//! result, is the result right, and what is the next state? At the end [`History::check`] tries all orders of at most six
//! operations. An order must keep the order of each thread, and everything before [`History::settle`] before everything after it.
//! In pass B, where every load is of the newest value, it must also keep real time: an operation that returned before another
//! began comes first (linearizability). In the other passes loads may be stale, and real-time order without synchronisation is
//! not required (sequential consistency).

use crate::sync::model::{Pass, pass, thread_index, trace};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// The most operations of one execution: 6! = 720 orders.
const OPERATIONS: usize = 6;

type Specification<S> = Box<dyn Fn(&mut S) -> bool + Send>;

struct Operation<S> {
    text: String,
    thread: usize,
    /// How many times the threads had come together before.
    epoch: u32,
    began: u32,
    ended: u32,
    specification: Specification<S>,
}

struct Record<S> {
    operations: Vec<Operation<S>>,
    epoch: u32,
    clock: u32,
}

/// What one execution did. Standard locks are inside: loom does not see them and switches threads elsewhere.
pub(crate) struct History<S> {
    record: Arc<Mutex<Record<S>>>,
    initial: S,
}

impl<S: Clone> Clone for History<S> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), initial: self.initial.clone() }
    }
}

std::thread_local! {
    static CHECKED: Cell<u64> = const { Cell::new(0) };
    static OUTCOMES: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
}

/// FNV-1a, which is the same in every version of Rust.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    bytes.into_iter().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where something is, as a result: only equality means anything, and the number differs from run to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(usize);

impl Address {
    pub(crate) fn of<T>(place: &T) -> Self {
        Self(std::ptr::from_ref(place).addr())
    }
}

impl Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("somewhere")
    }
}

/// What all histories of a pass came to.
pub(super) struct Outcomes {
    /// How many differ in what some operation returned.
    pub(super) count: usize,
    /// The same for the same outcomes.
    pub(super) hash: u64,
}

impl History<()> {
    /// Histories that were checked on this OS thread.
    pub(super) fn checked() -> u64 {
        CHECKED.with(Cell::get)
    }

    /// Takes the outcomes of the histories that were checked since the last call.
    pub(super) fn take_outcomes() -> Outcomes {
        let outcomes = OUTCOMES.with(RefCell::take);
        Outcomes {
            count: outcomes.len(),
            hash: hash(outcomes.iter().flat_map(|outcome| outcome.to_le_bytes())),
        }
    }
}

/// The results alone: neither the order of the operations nor which thread got which number.
fn outcome<S>(operations: &[Operation<S>]) -> u64 {
    let mut results: Vec<_> = operations.iter().map(|o| (o.epoch, o.text.as_str())).collect();
    results.sort_unstable();
    hash(results.into_iter().flat_map(|(epoch, text)| format!("{epoch}: {text}\n").into_bytes()))
}

impl<S: Clone + Debug + Send + 'static> History<S> {
    /// No operations yet, in the state `initial`.
    pub(crate) fn new(initial: S) -> Self {
        Self { record: Arc::new(Mutex::new(Record { operations: Vec::new(), epoch: 0, clock: 0 })), initial }
    }

    fn record<R>(&self, change: impl FnOnce(&mut Record<S>) -> R) -> R {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tick(&self) -> u32 {
        self.record(|record| {
            record.clock += 1;
            record.clock
        })
    }

    /// Does `operation` and records its result together with its specification: `right(state, answer)` changes the state as the
    /// operation does and returns whether the result was right in the state before.
    pub(crate) fn call<R: Clone + Debug + Send + 'static>(
        &self,
        name: &str,
        operation: impl FnOnce() -> R,
        right: impl Fn(&mut S, &R) -> bool + Send + 'static,
    ) {
        drop(self.ask(name, operation, right));
    }

    /// As [`History::call`], and returns the result.
    pub(crate) fn ask<R: Clone + Debug + Send + 'static>(
        &self,
        name: &str,
        operation: impl FnOnce() -> R,
        right: impl Fn(&mut S, &R) -> bool + Send + 'static,
    ) -> R {
        trace::note(|| format!("begins {name}"));
        let began = self.tick();
        let answer = operation();
        let ended = self.tick();
        trace::note(|| format!("ends {name}: {answer:?}"));
        let (text, recorded) = (format!("{name} -> {answer:?}"), answer.clone());
        let specification = Box::new(move |state: &mut S| right(state, &recorded));
        let thread = thread_index();
        self.record(|record| {
            let epoch = record.epoch;
            record.operations.push(Operation { text, thread, epoch, began, ended, specification });
        });
        answer
    }

    /// All threads have been joined: everything that follows comes after everything before.
    pub(crate) fn settle(&self) {
        self.record(|record| record.epoch += 1);
    }

    /// Asserts that some order of the operations explains every result.
    pub(crate) fn check(&self) {
        CHECKED.with(|checked| checked.set(checked.get() + 1));
        self.record(|record| {
            let operations = &record.operations;
            OUTCOMES.with(|outcomes| outcomes.borrow_mut().insert(outcome(operations)));
            assert!((2..=OPERATIONS).contains(&operations.len()), "{} operations", operations.len());
            let mut order = Vec::new();
            let explained = explain(operations, pass() == Pass::B, &mut order, &self.initial);
            let texts: Vec<_> =
                operations.iter().map(|o| format!("thread {}: {}", o.thread, o.text)).collect();
            assert!(explained, "no order explains {texts:?}");
        });
    }
}

/// Extends `order` to a whole one that is allowed and right.
fn explain<S: Clone>(
    operations: &[Operation<S>],
    real_time: bool,
    order: &mut Vec<usize>,
    state: &S,
) -> bool {
    if order.len() == operations.len() {
        return true;
    }
    for (at, next) in operations.iter().enumerate() {
        let waits_for = |other: &Operation<S>| {
            let earlier = other.ended < next.began;
            other.epoch < next.epoch || (earlier && (real_time || other.thread == next.thread))
        };
        let blocked = operations
            .iter()
            .enumerate()
            .any(|(other, operation)| other != at && !order.contains(&other) && waits_for(operation));
        if blocked || order.contains(&at) {
            continue;
        }
        let mut after = state.clone();
        if (next.specification)(&mut after) {
            order.push(at);
            if explain(operations, real_time, order, &after) {
                return true;
            }
            order.pop();
        }
    }
    false
}

/// The checker itself: histories made by hand, right and wrong.
mod tests {
    use super::*;
    use crate::sync::model::{begin_execution, set_pass};

    type Step = (usize, u32, u32, fn(&mut u32) -> bool);

    fn is_explained(pass: Pass, steps: &[Step]) -> bool {
        let operations: Vec<_> = steps
            .iter()
            .map(|&(thread, began, ended, right)| Operation {
                text: String::new(),
                thread,
                epoch: 0,
                began,
                ended,
                specification: Box::new(right) as Specification<u32>,
            })
            .collect();
        explain(&operations, pass == Pass::B, &mut Vec::new(), &0)
    }

    fn write(state: &mut u32) -> bool {
        *state = 1;
        true
    }
    fn read_0(state: &mut u32) -> bool {
        *state == 0
    }
    fn read_1(state: &mut u32) -> bool {
        *state == 1
    }

    #[test]
    fn stale_reads_are_told_from_wrong_ones() {
        // A read that began after the write had returned and missed it: wrong in real time only.
        let stale: [Step; 2] = [(0, 1, 2, write), (1, 3, 4, read_0)];
        assert!(is_explained(Pass::A, &stale));
        assert!(!is_explained(Pass::B, &stale));
        // Concurrent with the write: either value is right.
        for read in [read_0, read_1] {
            assert!(is_explained(Pass::B, &[(0, 1, 4, write), (1, 2, 3, read)]));
        }
        // New, then old, by one thread: wrong in every pass.
        let backwards: [Step; 3] = [(0, 1, 6, write), (1, 2, 3, read_1), (1, 4, 5, read_0)];
        assert!(!is_explained(Pass::A, &backwards));
        // Own writes are not missed.
        assert!(!is_explained(Pass::A, &[(0, 1, 2, write), (0, 3, 4, read_0)]));
        // A value that was never written.
        assert!(!is_explained(Pass::A, &[(0, 1, 2, read_1)]));
    }

    #[test]
    fn outcomes_are_results_and_not_orders() {
        let operation = |thread, text: &str, epoch| Operation {
            text: text.to_owned(),
            thread,
            epoch,
            began: 0,
            ended: 1,
            specification: Box::new(write) as Specification<u32>,
        };
        let made = outcome(&[operation(0, "read -> 0", 0), operation(1, "write -> ()", 0)]);
        assert_eq!(made, outcome(&[operation(1, "write -> ()", 0), operation(2, "read -> 0", 0)]));
        assert_ne!(made, outcome(&[operation(0, "read -> 1", 0), operation(1, "write -> ()", 0)]));
        assert_ne!(made, outcome(&[operation(0, "read -> 0", 1), operation(1, "write -> ()", 0)]));
        assert_ne!(made, outcome(&[operation(0, "read -> 0", 0)]));
        assert_eq!(hash(*b"foobar"), 0x8594_4171_f739_67e8, "as published");
    }

    #[test]
    #[should_panic(expected = "no order explains")]
    fn a_wrong_answer_fails_the_model() {
        loom::model(|| {
            set_pass(Pass::B);
            begin_execution();
            let history = History::new(0);
            history.call("write", || (), |state, ()| write(state));
            history.call("read", || 0, |state, &answer| *state == answer);
            history.check();
        });
    }
}
