//! A value that a process has once, and a forked child has anew.
//!
//! A child of fork has the memory of its parent and one of its threads. A lock that another thread held at that moment is
//! held for ever, and what it guards may be half changed. So the child takes a fresh value, and leaves the old one as it is.

use super::{AtomicPtr, Ordering};

/// The first value, or in a child the one it was given by [`PerProcess::renew`].
#[derive(Debug)]
pub struct PerProcess<T> {
    first: T,
    /// Relaxed everywhere: it is written while the process has one thread, and threads that start later see it.
    of_child: AtomicPtr<T>,
}

impl<T> PerProcess<T> {
    /// The value of the process that loads the library.
    pub const fn new(first: T) -> Self {
        Self { first, of_child: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The value of this process.
    #[inline]
    pub fn get(&'static self) -> &'static T {
        // SAFETY: null, or leaked by `renew`.
        unsafe { self.of_child.load(Ordering::Relaxed).as_ref() }.unwrap_or(&self.first)
    }

    /// In a child: from now on this one. The former value is leaked, as borrows of it may live on.
    pub fn renew(&'static self, value: T) {
        self.of_child.store(Box::into_raw(Box::new(value)), Ordering::Relaxed);
    }
}
