//! A core object owned by Python. Two rules live here: whatever may wait runs without the GIL, dropping included; and a forked
//! child uses nothing of its parent's, but creates it again.
//!
//! An object belongs to the process that created it. In a child, the first use creates another one in its place, see [`Origin`],
//! and so on for children of children: a chain whose last link is in use. The parent's object is never called or dropped there,
//! because its threads may have stopped with any lock held.

use crate::caller::CacheId;
use crate::errors::{closed_error, raise_naming};
use crate::interrupt;
use crate::later;
use pyo3::prelude::*;
use specmm::internals::fork;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a forked child creates its own.
pub(crate) trait Origin: Send + Sync {
    type Core: Send + Sync;

    /// A new object for this process, and the cache that it belongs to. It may call only what never waits of `parents`.
    fn inherit(&self, py: Python<'_>, parents: &Self::Core) -> PyResult<(Self::Core, CacheId)>;

    /// The file's name as it was given, if it is a file.
    fn given(&self) -> Option<&Py<PyAny>> {
        None
    }

    /// Called before a call that may wait: an error means that this caller must not wait.
    fn before_waiting(&self, _py: Python<'_>) -> PyResult<()> {
        Ok(())
    }

    /// What the object is called, for messages.
    fn name(&self, core: &Self::Core) -> String;
}

pub(crate) struct Handle<O: Origin> {
    first: Link<O::Core>,
    pub(crate) origin: O,
}

/// The object of one process.
struct Link<T: Send + Sync> {
    /// None only while it is being dropped.
    inner: Option<T>,
    cache: CacheId,
    /// Set with the GIL, so that no fork can come between.
    next: OnceLock<Box<Link<T>>>,
    /// The number of the child that closed it unused. Relaxed: a close beside a running call has no order with it.
    closed_at: AtomicU64,
}

impl<O: Origin> Handle<O> {
    pub(crate) fn new(inner: O::Core, cache: CacheId, origin: O) -> Self {
        Self { first: Link::new(inner, cache), origin }
    }

    /// The core object, for calls that never wait.
    #[inline]
    pub(crate) fn get(&self) -> PyResult<&O::Core> {
        if self.first.cache.may_enter() { Ok(self.first.inner()) } else { self.get_slowly() }
    }

    #[cold]
    fn get_slowly(&self) -> PyResult<&O::Core> {
        let mut link = self.last();
        if !link.cache.is_ours() {
            link = Python::attach(|py| self.inherit(py, link))?;
        }
        link.cache.enter()?;
        Ok(link.inner())
    }

    fn inherit<'a>(&'a self, py: Python<'_>, parents: &'a Link<O::Core>) -> PyResult<&'a Link<O::Core>> {
        if parents.is_closed_unused() {
            return Err(closed_error(py, &self.origin.name(parents.inner())));
        }
        let (inner, cache) = self.origin.inherit(py, parents.inner())?;
        // Another thread may have been faster; then this one's is dropped.
        let _lost = parents.next.set(Box::new(Link::new(inner, cache)));
        Ok(parents.next.get().expect("set above"))
    }

    /// The link of this process, or the last that an ancestor created.
    #[inline]
    fn last(&self) -> &Link<O::Core> {
        let mut link = &self.first;
        while let Some(next) = link.next.get() {
            link = next;
        }
        link
    }

    /// Which cache the object belongs to in this process.
    pub(crate) fn cache(&self) -> PyResult<CacheId> {
        self.get()?;
        Ok(self.last().cache)
    }

    /// The core object for any caller, for what a `repr` may show at any time.
    #[inline]
    pub(crate) fn inner(&self) -> &O::Core {
        self.last().inner()
    }

    /// Makes a call that may wait, without the GIL.
    pub(crate) fn detached<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&O::Core) -> specmm::Result<R> + Send,
    ) -> PyResult<R> {
        self.origin.before_waiting(py)?;
        self.detached_naming(py, self.origin.given(), call)
    }

    /// The same for any caller; `name` is that of the file in errors.
    pub(crate) fn detached_naming<R: Send>(
        &self,
        py: Python<'_>,
        name: Option<&Py<PyAny>>,
        call: impl FnOnce(&O::Core) -> specmm::Result<R> + Send,
    ) -> PyResult<R> {
        let inner = self.get()?;
        let (answer, interrupt) = py.detach(|| interrupt::watch(|| call(inner)));
        later::give_back(py);
        match interrupt {
            Some(interrupt) => Err(interrupt),
            None => answer.map_err(|error| raise_naming(py, &error, name)),
        }
    }

    /// Whether this process created it, and not an ancestor.
    pub(crate) fn is_made_here(&self) -> bool {
        self.first.cache.is_ours()
    }

    /// Whether this process has used or created it.
    pub(crate) fn is_ours(&self) -> bool {
        self.last().cache.is_ours()
    }

    /// Closes what this process has only inherited, for which nothing has to be created. False: there is something to close.
    pub(crate) fn close_unused(&self) -> bool {
        let link = self.last();
        if !link.cache.is_ours() {
            link.closed_at.fetch_min(fork::epoch(), Ordering::Relaxed);
        }
        !link.cache.is_ours()
    }

    /// Whether it was closed, by this process or before it was inherited.
    pub(crate) fn is_closed(&self, closed: impl FnOnce(&O::Core) -> bool) -> bool {
        let link = self.last();
        closed(link.inner()) || link.is_closed_unused()
    }
}

impl<T: Send + Sync> Link<T> {
    fn new(inner: T, cache: CacheId) -> Self {
        Self { inner: Some(inner), cache, next: OnceLock::new(), closed_at: AtomicU64::new(u64::MAX) }
    }

    #[inline]
    fn inner(&self) -> &T {
        self.inner.as_ref().expect("emptied by drop only")
    }

    fn is_closed_unused(&self) -> bool {
        self.closed_at.load(Ordering::Relaxed) <= fork::epoch()
    }
}

impl<T: Send + Sync> Drop for Link<T> {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if self.cache.is_ours() {
            // The last handle of a cache joins its workers, and a worker may be waiting to attach. Without an interpreter to
            // attach to, the closure is dropped together with what it holds.
            Python::try_attach(move |py| {
                py.detach(move || drop(inner));
                later::give_back(py);
            });
        } else {
            // Those workers are the parent's.
            std::mem::forget(inner);
        }
    }
}
