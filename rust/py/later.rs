//! References to Python objects that the core holds, and may drop on any thread and under any lock.
//!
//! A thread that is not attached cannot drop a reference, and one that attached for it could run a user's finalizer under locks
//! of the core. So references wait here for the next call that is attached anyway. (`pyo3` has such a place too, behind a lock
//! that may be held during a fork, and which nobody would ever release in the child.)

use pyo3::prelude::*;
use specmm::internals::fork::PerProcess;
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A reference that may be dropped anywhere. Its place in the queue exists from the start: none has to be allocated when there
/// may be no memory for it.
pub(crate) struct Held(Option<Box<Place>>);

struct Place {
    object: Py<PyAny>,
    next: Option<Box<Place>>,
}

impl Held {
    pub(crate) fn new(object: Py<PyAny>) -> Self {
        Self(Some(Box::new(Place { object, next: None })))
    }

    pub(crate) fn get(&self) -> &Py<PyAny> {
        &self.0.as_ref().expect("emptied by drop only").object
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let waiting = WAITING.get();
        let Some(mut place) = self.0.take() else { return };
        {
            let mut newest = waiting.newest.lock().unwrap_or_else(PoisonError::into_inner);
            place.next = newest.take();
            *newest = Some(place);
        }
        // Relaxed: a caller that misses it leaves it to the next.
        waiting.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What waits. A forked child does not drop its parent's references.
static WAITING: PerProcess<Waiting> = PerProcess::new(Waiting::new);

struct Waiting {
    count: AtomicUsize,
    newest: Mutex<Option<Box<Place>>>,
}

impl Waiting {
    const fn new() -> Self {
        Self { count: AtomicUsize::new(0), newest: Mutex::new(None) }
    }
}

/// Drops what waits. That may run a user's finalizer: the caller holds no lock.
#[inline]
pub(crate) fn give_back(_py: Python<'_>) {
    let waiting = WAITING.get();
    if waiting.count.load(Ordering::Relaxed) > 0 {
        waiting.count.store(0, Ordering::Relaxed);
        let mut newest = take(&mut *waiting.newest.lock().unwrap_or_else(PoisonError::into_inner));
        // One by one: a long list would drop recursively.
        while let Some(place) = newest {
            newest = place.next;
            drop(place.object);
        }
    }
}
