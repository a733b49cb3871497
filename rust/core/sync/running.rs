//! Which operations run at the same time as which; compiled only under the model checkers.
//!
//! A function that is a public operation, or the part of one that models call, begins with
//! `operation!("truncate")`. From there to the function's end the operation is running. Two operations that are running in two
//! threads at one moment of one execution are a pair; the harnesses report all pairs of a model, so that docs/pairs.md says what
//! was run and not what somebody believes a model to run. A pair that nothing runs has its reason in
//! `tests/pairs/operations.toml`.
//!
//! A function that another operation calls is a part of that one: a fault that reads is a fault, a revalidation that takes pages
//! out is no truncation. What is as good as a thread of its own counts wherever it runs ([`ANYWHERE`]).

use super::imp::{ThreadId, this_thread};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Operations that count inside of others too: any call may come to them, or a worker does them.
const ANYWHERE: [&str; 4] = ["fault-around", "readahead", "reclaim", "wait for a frame"];

/// Two names of operations, in the order of the alphabet.
pub(crate) type Pair = (&'static str, &'static str);

struct Entry {
    thread: ThreadId,
    name: &'static str,
    counts: bool,
}

std::thread_local! {
    static RUNNING: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
    static PAIRS: RefCell<BTreeSet<Pair>> = const { RefCell::new(BTreeSet::new()) };
}

/// From its making to its drop, the calling thread of the model is in an operation.
pub(crate) struct Running {
    thread: ThreadId,
    name: &'static str,
}

impl Running {
    pub(crate) fn new(name: &'static str) -> Self {
        let thread = this_thread();
        RUNNING.with_borrow_mut(|running| {
            let is_inside = running.iter().any(|running| running.thread == thread);
            let counts = !is_inside || ANYWHERE.contains(&name);
            if counts {
                let others = running.iter().filter(|other| other.thread != thread && other.counts);
                let pairs = others.map(|other| (name.min(other.name), name.max(other.name)));
                PAIRS.with_borrow_mut(|found| found.extend(pairs));
            }
            running.push(Entry { thread, name, counts });
        });
        Self { thread, name }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(|running| {
            let mine = |entry: &Entry| entry.thread == self.thread && entry.name == self.name;
            if let Some(at) = running.iter().rposition(mine) {
                running.remove(at);
            }
        });
    }
}

/// Nothing runs: an execution that failed may have left operations behind.
pub(crate) fn begin_execution() {
    RUNNING.with_borrow_mut(Vec::clear);
}

/// Takes the pairs found since the last call.
pub(crate) fn take_pairs() -> BTreeSet<Pair> {
    PAIRS.take()
}
