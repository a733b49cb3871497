//! Who may call a cache: each call looks here first.
//!
//! A store's `read_at` runs while the pages being read are locked, so a call to the same cache from it could wait for itself
//! forever. And a forked child has the memory of its parent's cache but none of its threads: the number of the process that
//! created an object tells what belongs to the parent (`handle` has what follows from that).
//!
//! Finalizers may call at any moment of a thread's life, including its very end, so nothing here has a destructor that could have
//! run already.

use crate::errors::specmm_error;
use pyo3::prelude::*;
use specmm::internals::fork;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// How many calls of stores this thread is inside.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The caches those calls serve. It allocates nothing while empty.
    static SERVING: RefCell<ManuallyDrop<Vec<CacheId>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Which cache an object belongs to, and which process created it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheId {
    number: u64,
    process: u64,
}

impl CacheId {
    pub(crate) fn next() -> Self {
        // Relaxed: only uniqueness matters.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), process: fork::epoch() }
    }

    /// Whether this process created the cache.
    #[inline]
    pub(crate) fn is_ours(self) -> bool {
        self.process == fork::epoch()
    }

    /// Whether this thread may call the cache without a closer check. For a thread that serves no cache this costs two loads.
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

    /// Marks this thread as inside a store of this cache until the guard is dropped.
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
        DEPTH.set(DEPTH.get() - 1);
        SERVING.with_borrow_mut(|caches| {
            caches.pop();
            if caches.is_empty() {
                drop(std::mem::take(&mut **caches));
            }
        });
    }
}
