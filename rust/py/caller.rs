//! Who may call a cache: each call looks here first.
//!
//! A store's `read_at` runs while the pages being read are locked, so calling the same cache from it could wait for
//! itself forever. And a forked child has the memory of its parent's cache but none of its threads: what belongs to the
//! parent is told by the number of forks between (`handle` has what follows from it).

use crate::errors::specmm_error;
use crate::{later, worker};
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

thread_local! {
    /// How many store calls this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The caches those calls serve.
    static SERVING: RefCell<Vec<CacheId>> = const { RefCell::new(Vec::new()) };
}

/// How many forks lie between this process and the one that loaded the module. Relaxed: only the one thread of a fresh
/// child writes it.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process that made the last change to `FORKS`, or loaded the module.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Notes the process that loads the module.
pub(crate) fn loaded() {
    PROCESS.store(std::process::id(), Ordering::Relaxed);
}

/// In the child of a fork: before anything else here. Anywhere else it does nothing.
#[allow(unsafe_code)]
pub(crate) fn forked() {
    let process = std::process::id();
    if PROCESS.swap(process, Ordering::Relaxed) != process {
        FORKS.fetch_add(1, Ordering::Relaxed);
        later::forked();
        worker::forked();
        // SAFETY: the process is a new one. Python calls this in the thread that forked, before it can start another. That
        // thread was attached when it forked, so it was in no section, and in no call of the core but for a store.
        unsafe { specmm::fork::child() };
    }
}

/// How many forks lie between this process and the one that loaded the module.
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
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

    /// Whether this thread may call the cache without a closer look. One that is serving no cache pays for two loads.
    #[inline]
    pub(crate) fn may_enter(self) -> bool {
        DEPTH.get() == 0 && self.is_ours()
    }

    /// Refuses a call from inside a store that is serving this cache.
    pub(crate) fn enter(self) -> PyResult<()> {
        if SERVING.with_borrow(|caches| caches.contains(&self)) {
            let refusal =
                "a store must not call the cache that it is being read for: the call could wait for itself";
            return Err(Python::attach(|py| specmm_error(py, refusal)));
        }
        Ok(())
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
