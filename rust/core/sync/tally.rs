//! A plain statistics counter.
//!
//! Statistics order nothing and guard nothing, so the model checker does not see them: under loom a tally is the standard atomic,
//! which costs no exploration.

use std::sync::atomic::{AtomicU64, Ordering};

/// A monotone counter; relaxed, because nothing depends on it while threads run.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Tally(AtomicU64);

impl Tally {
    /// A counter at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
    /// Adds `n` from any thread.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds one and returns the new value: a source of identities.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
    /// Subtracts `n`, for gauges.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
    /// Adds one where the caller is the only thread that ever writes this counter: no read-modify-write.
    #[inline]
    pub fn add_exclusive(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
    /// Sets it, for hints that may be lost.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
