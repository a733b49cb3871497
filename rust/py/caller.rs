//! Who may call a cache: each call looks here first.
//!
//! A store's `read_at` runs while the pages being read are locked, so calling the same cache from it could wait for
//! itself forever. And a forked child has the memory of its parent's cache but none of its threads.

use crate::errors::specmm_error;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// How many store calls this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The caches those calls serve.
    static SERVING: RefCell<Vec<CacheId>> = const { RefCell::new(Vec::new()) };
}

/// How many forks lie between this process and the one that loaded the module. Relaxed: only the one thread of a fresh
/// child writes it.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Says that this process is the child of a fork.
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Which cache an object belongs to, and which process made it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheId {
    number: u64,
    forks: u64,
}

impl CacheId {
    pub(crate) fn next() -> Self {
        // Relaxed: only uniqueness matters.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Whether this process made the cache.
    #[inline]
    pub(crate) fn is_ours(self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    /// Refuses a call from another process, or from inside a store that is serving this cache.
    #[inline]
    pub(crate) fn enter(self) -> PyResult<()> {
        // A thread that is serving no cache pays for two loads.
        if DEPTH.get() == 0 && self.is_ours() { Ok(()) } else { self.judge() }
    }

    #[cold]
    fn judge(self) -> PyResult<()> {
        let refusal = if !self.is_ours() {
            "a cache does not survive fork: make one in the child"
        } else if SERVING.with_borrow(|caches| caches.contains(&self)) {
            "a store must not call the cache that it is being read for: the call could wait for itself"
        } else {
            return Ok(());
        };
        Err(Python::attach(|py| specmm_error(py, refusal)))
    }

    /// Marks this thread as inside a store of this cache until the guard goes.
    pub(crate) fn serve(self) -> Serving {
        DEPTH.set(DEPTH.get() + 1);
        SERVING.with_borrow_mut(|caches| caches.push(self));
        Serving(())
    }
}

/// This thread is inside a call of a store.
#[must_use]
pub(crate) struct Serving(());

impl Drop for Serving {
    fn drop(&mut self) {
        SERVING.with_borrow_mut(Vec::pop);
        DEPTH.set(DEPTH.get() - 1);
    }
}
