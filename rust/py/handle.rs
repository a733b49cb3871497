//! A core object in Python's hands. The rule of the house is here: what may wait runs detached, dropping included.

use crate::caller::CacheId;
use crate::errors::raise;
use crate::interrupt;
use pyo3::prelude::*;

pub(crate) struct Handle<T: Send + Sync> {
    /// None only while it is being dropped.
    inner: Option<T>,
    cache: CacheId,
}

impl<T: Send + Sync> Handle<T> {
    pub(crate) fn new(inner: T, cache: CacheId) -> Self {
        Self { inner: Some(inner), cache }
    }

    pub(crate) fn cache(&self) -> CacheId {
        self.cache
    }

    /// The core object, for calls that never wait.
    #[inline]
    pub(crate) fn get(&self) -> PyResult<&T> {
        self.cache.enter()?;
        Ok(self.inner())
    }

    /// The core object whoever calls, for what a `repr` may show at any time.
    #[inline]
    pub(crate) fn inner(&self) -> &T {
        self.inner.as_ref().expect("emptied by drop only")
    }

    /// Makes a call that may wait, detached from the interpreter.
    pub(crate) fn detached<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&T) -> specmm::Result<R> + Send,
    ) -> PyResult<R> {
        let inner = self.get()?;
        let (answer, interrupt) = py.detach(|| interrupt::watch(|| call(inner)));
        match interrupt {
            Some(interrupt) => Err(interrupt),
            None => answer.map_err(|error| raise(py, &error)),
        }
    }
}

impl<T: Send + Sync> Drop for Handle<T> {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if self.cache.is_ours() {
            // The last handle of a cache joins its workers, and a worker may be waiting to attach. Without an
            // interpreter to attach to, the closure is dropped, and what it holds with it.
            Python::try_attach(move |py| py.detach(move || drop(inner)));
        } else {
            // Those workers are the parent's.
            std::mem::forget(inner);
        }
    }
}
