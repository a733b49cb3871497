//! Ctrl-C in a store that is written in Python.
//!
//! `KeyboardInterrupt` is raised wherever the main thread runs Python, which may be in a store that the core is reading.
//! For the core that is a failed read, and it tries again. But the exception is meant for the caller: it is kept aside
//! and raised as what it is when the call returns, whatever came of the read.

use pyo3::prelude::*;
use std::cell::{Cell, RefCell};

thread_local! {
    /// How many calls of the core this thread is inside of; none on the core's own workers.
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// What interrupted the innermost of them.
    static INTERRUPT: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Makes a call of the core, and gives what interrupted it with its answer.
pub(crate) fn watch<R>(call: impl FnOnce() -> R) -> (R, Option<PyErr>) {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            CALLS.set(CALLS.get() - 1);
        }
    }
    CALLS.set(CALLS.get() + 1);
    let inside = Inside;
    let answer = call();
    drop(inside);
    (answer, INTERRUPT.take())
}

/// Whether this thread is inside a call of the core. The core's own workers never are.
pub(crate) fn is_called() -> bool {
    CALLS.get() > 0
}

/// Keeps an exception that is no failure of the store. On a worker there is no caller to raise it in.
pub(crate) fn keep(interrupt: PyErr) {
    if is_called() {
        INTERRUPT.set(Some(interrupt));
    }
}

/// Looks for Ctrl-C during a wait of the core. It never comes to a worker.
pub(crate) fn has_come() -> bool {
    is_called() && Python::try_attach(|py| py.check_signals().map_err(keep).is_err()).unwrap_or(true)
}

/// Whether this thread's call was interrupted: it should end, and not read on.
pub(crate) fn is_pending() -> bool {
    INTERRUPT.with_borrow(Option::is_some)
}
