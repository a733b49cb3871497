//! Ctrl-C during a call of the core.
//!
//! `KeyboardInterrupt` is raised wherever the main thread runs Python: in a store that the core calls in the caller's thread, or
//! where a wait of the core checks for it. To the core it is a failed read or the end of a wait. But the exception is meant for
//! the caller: it is set aside and raised unchanged when the call returns, whatever the result.
//!
//! A thread's record of its calls has no destructor, so it is valid at any moment of the thread's life: finalizers that run while
//! its thread-locals are destroyed may call the core too.
#![allow(unsafe_code)]

use crate::imported::{Imported, name};
use pyo3::prelude::*;
use specmm::internals::fork;
use std::cell::Cell;
use std::ptr::NonNull;

/// Where a call of the core keeps what interrupted it.
type Slot = Cell<Option<PyErr>>;

thread_local! {
    /// The slot of the innermost call of the core that this thread is inside of; None on the core's own workers.
    static INNERMOST: Cell<Option<NonNull<Slot>>> = const { Cell::new(None) };
    /// Whether this is Python's main thread, and in which process that was found out.
    static IS_MAIN: Cell<(u64, bool)> = const { Cell::new((0, false)) };
}

/// Calls the core, and returns what interrupted the call together with its result.
pub(crate) fn watch<R>(call: impl FnOnce() -> R) -> (R, Option<PyErr>) {
    struct Inside(Option<NonNull<Slot>>);
    impl Drop for Inside {
        fn drop(&mut self) {
            INNERMOST.set(self.0);
        }
    }
    let slot = Slot::new(None);
    let inside = Inside(INNERMOST.replace(Some(NonNull::from(&slot))));
    let answer = call();
    drop(inside);
    (answer, slot.into_inner())
}

/// The slot of the innermost call, for as long as `use_it` runs.
fn with_slot<R>(use_it: impl FnOnce(&Slot) -> R) -> Option<R> {
    // SAFETY: the slot lies in the frame of a `watch` of this thread, which takes the pointer back before it ends, also when it
    // unwinds. Only shared references to it are made while it is there.
    INNERMOST.get().map(|slot| use_it(unsafe { slot.as_ref() }))
}

/// Whether this thread is inside a call of the core. The core's own workers never are.
pub(crate) fn is_called() -> bool {
    INNERMOST.get().is_some()
}

/// Keeps an exception that is no failure of the store. On a worker there is no caller to raise it in.
pub(crate) fn keep(interrupt: PyErr) {
    with_slot(|slot| slot.set(Some(interrupt)));
}

/// Checks for Ctrl-C during a wait of the core. Only Python's main thread receives it: other threads ask the interpreter at most
/// once.
pub(crate) fn has_come() -> bool {
    let here = fork::epoch();
    let is_known = |(process, is_main): (u64, bool)| (process == here).then_some(is_main);
    if !is_called() || is_known(IS_MAIN.get()) == Some(false) {
        return false;
    }
    // Asking which thread is the main one runs Python, where Ctrl-C may arrive as well.
    let look = |py: Python<'_>| py.check_signals().and_then(|()| is_main(py));
    Python::try_attach(|py| match look(py) {
        Ok(is_main) => {
            // In a forked child, the thread that forked is the main one.
            IS_MAIN.set((here, is_main));
            false
        }
        Err(interrupt) => {
            keep(interrupt);
            true
        }
    })
    .unwrap_or(true)
}

fn is_main(py: Python<'_>) -> PyResult<bool> {
    static MAIN_THREAD: Imported = Imported::new("threading", "main_thread");
    static GET_IDENT: Imported = Imported::new("threading", "get_ident");
    MAIN_THREAD.call(py, ())?.getattr(name!(py, "ident"))?.eq(GET_IDENT.call(py, ())?)
}

/// Whether this thread's call was interrupted: it should return instead of reading on.
pub(crate) fn is_pending() -> bool {
    with_slot(|slot| {
        let interrupt = slot.take();
        let is_pending = interrupt.is_some();
        slot.set(interrupt);
        is_pending
    })
    .unwrap_or(false)
}
