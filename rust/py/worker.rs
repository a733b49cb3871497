//! The core's workers, as the interpreter knows them.
//!
//! A thread that Python did not start is made known to the interpreter when it attaches, and forgotten when it detaches. A
//! worker would come and go with each read of a store. And a fork at the very moment at which it comes may hang the child:
//! Python 3.11 walks its list of threads there before it renews the lock on it. So a worker stays known until it ends, and
//! a fork waits for those that are just coming.
#![allow(unsafe_code)]

use crate::interrupt;
use pyo3::ffi;
use pyo3::prelude::*;
use specmm::fork::PerProcess;
use std::cell::OnceCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static DOOR: PerProcess<Door> = PerProcess::new(Door::new);

/// Workers come one way, forks go the other, and never both at a time. Nobody waits for the interpreter with the mutex held.
struct Door {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    coming: u32,
    forking: u32,
}

impl Door {
    const fn new() -> Self {
        Self { state: Mutex::new(State { coming: 0, forking: 0 }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool, change: impl FnOnce(&mut State)) {
        let state = self.changed.wait_while(self.lock(), |state| condition(state));
        change(&mut state.unwrap_or_else(PoisonError::into_inner));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Before a fork. Whoever is coming may need the interpreter for it.
pub(crate) fn before_fork(py: Python<'_>) {
    py.detach(|| DOOR.get().wait_while(|state| state.coming > 0, |state| state.forking += 1));
}

pub(crate) fn after_fork_in_parent() {
    DOOR.get().change(|state| state.forking = state.forking.saturating_sub(1));
}

thread_local! {
    static KNOWN: OnceCell<Known> = const { OnceCell::new() };
}

/// Attaches for a call; a worker that does so for the first time stays known until it ends. None: the interpreter ends.
pub(crate) fn attached<R>(call: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    if interrupt::is_called() || KNOWN.with(|known| known.get().is_some()) {
        return Python::try_attach(call);
    }
    DOOR.get().wait_while(|state| state.forking > 0, |state| state.coming += 1);
    let come = || DOOR.get().change(|state| state.coming -= 1);
    let answer = Python::try_attach(|py| {
        KNOWN.with(|known| {
            known.get_or_init(|| Known::new(py));
        });
        come();
        call(py)
    });
    if answer.is_none() {
        come();
    }
    answer
}

/// The interpreter knows this thread.
struct Known(());

impl Known {
    fn new(_py: Python<'_>) -> Self {
        // SAFETY: the thread is attached. This counts one more use of its state, which `drop` gives back.
        unsafe { ffi::PyGILState_Ensure() };
        Self(())
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        Python::try_attach(|_| {
            // SAFETY: the thread is attached, and stays so: LOCKED takes back the count and no more. Detaching then takes
            // the last one.
            unsafe { ffi::PyGILState_Release(ffi::PyGILState_STATE::PyGILState_LOCKED) };
        });
    }
}
