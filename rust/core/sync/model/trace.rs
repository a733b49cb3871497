//! What each thread did in the execution under way, for counterexamples.

use std::cell::RefCell;
use std::fmt::Debug;
use std::panic::Location;

std::thread_local! {
    static STEPS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Starts an empty record; without this call nothing is recorded.
pub fn restart() {
    STEPS.with(|steps| *steps.borrow_mut() = Some(Vec::new()));
}

/// The steps recorded since then, oldest first.
pub fn take() -> Vec<String> {
    STEPS.with(|steps| steps.borrow_mut().take()).unwrap_or_default()
}

/// Adds a remark to the record.
pub fn note(what: impl FnOnce() -> String) {
    STEPS.with(|steps| {
        if let Some(steps) = steps.borrow_mut().as_mut() {
            steps.push(format!("thread {} | {}", current_thread(), what()));
        }
    });
}

#[track_caller]
pub(super) fn access(operation: &str, value: impl Debug) {
    let at = Location::caller();
    note(|| format!("{}:{} {operation} {value:?}", at.file(), at.line()));
}

/// Only for the record: threads are named in the order of their first recorded steps.
fn current_thread() -> String {
    format!("{:?}", loom::thread::current().id()).chars().filter(char::is_ascii_digit).collect()
}
