//! The core's workers as threads of the interpreter.
//!
//! The interpreter registers a thread that Python did not start when it attaches, and removes it when it detaches. A worker would
//! be registered and removed for each read of a store. And a fork at the moment of registration may hang the child: Python 3.11
//! walks its list of threads there before it reinitialises the lock on it. So a worker stays registered until it ends, and a fork
//! waits for those that are just registering.
#![allow(unsafe_code)]

use crate::interrupt;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use specmm::internals::fork::PerProcess;
use std::cell::{Cell, OnceCell};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static DOOR: PerProcess<Door> = PerProcess::new(Door::new);

/// Workers that register and forks exclude each other. Nobody waits for the GIL while holding the mutex.
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

/// Before a fork. A thread that is registering may need the GIL for it.
pub(crate) fn before_fork(py: Python<'_>) {
    py.detach(|| DOOR.get().wait_while(|state| state.coming > 0, |state| state.forking += 1));
}

pub(crate) fn after_fork_in_parent() {
    DOOR.get().change(|state| state.forking = state.forking.saturating_sub(1));
}

thread_local! {
    /// Whether this thread is registered. It has no destructor: finalizers that run while a thread's thread-locals are destroyed
    /// may come here too.
    static IS_KNOWN: Cell<bool> = const { Cell::new(false) };
    /// Its destructor removes the thread from the interpreter.
    static KNOWN: OnceCell<Known> = const { OnceCell::new() };
}

/// Attaches for a call; a worker that does so for the first time stays registered until it ends.
///
/// # Errors
/// The interpreter is ending, or has no memory to register a thread.
pub(crate) fn attached<R>(call: impl FnOnce(Python<'_>) -> io::Result<R>) -> io::Result<R> {
    let ending = || Err(io::Error::other("the interpreter is shutting down"));
    if interrupt::is_called() || IS_KNOWN.get() {
        return Python::try_attach(call).unwrap_or_else(ending);
    }
    if !has_room() {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    DOOR.get().wait_while(|state| state.forking > 0, |state| state.coming += 1);
    let come = || DOOR.get().change(|state| state.coming -= 1);
    let answer = Python::try_attach(|py| {
        // A thread that is ending, and was already removed, is registered for this call only.
        let _ending = KNOWN.try_with(|known| {
            known.get_or_init(|| Known::new(py));
        });
        come();
        call(py)
    });
    answer.unwrap_or_else(|| {
        come();
        ending()
    })
}

/// Whether there is memory for the interpreter's record of a thread. Without it, the interpreter would abort the process.
fn has_room() -> bool {
    const ROOM: usize = 64 << 10;
    let mut trial: Vec<u8> = Vec::new();
    // An allocation that nobody sees would be optimised away.
    std::hint::black_box(&mut trial).try_reserve_exact(ROOM).is_ok()
}

/// This thread is registered.
struct Known(());

impl Known {
    fn new(_py: Python<'_>) -> Self {
        // SAFETY: the thread is attached. This counts one more use of its state, which `drop` gives back.
        unsafe { ffi::PyGILState_Ensure() };
        IS_KNOWN.set(true);
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
        // Detaching ran the finalizers of this thread's `threading.local` objects: for those it was still registered.
        IS_KNOWN.set(false);
    }
}

/// Calls a Python object. Before 3.14, a thread that returns to an interpreter that has ended, for example from `time.sleep` in a
/// store, is ended by `pthread_exit`, which unwinds its stack; and unwinding through Rust's frames aborts the process. So such a
/// thread stops here for good, and the process exits without it.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    type Call = unsafe extern "C-unwind" fn(
        *mut ffi::PyObject,
        *mut ffi::PyObject,
        *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }
    // pyo3 declares it as one that does not unwind, and the optimizer, seeing that, would leave `stop` out.
    let known = std::hint::black_box(ffi::PyObject_Call as *const ());
    // SAFETY: the function, by the same calling convention, but for what it may do beside returning.
    let py_object_call: Call = unsafe { std::mem::transmute(known) };
    let stop = Stop;
    // SAFETY: the thread is attached, and both objects live until the call returns. If it unwinds, `stop` ends that.
    let answer = unsafe { py_object_call(callable.as_ptr(), arguments.as_ptr(), std::ptr::null_mut()) };
    std::mem::forget(stop);
    // SAFETY: the answer of a call is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), answer) }
}
