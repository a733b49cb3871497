//! Words that decide nothing: statistics, and numbers that are drawn.
//!
//! The model checker does not see them: under loom they are the standard library's atomics, which cost no exploration. So nothing
//! may depend on their values. A value is read out by a method that only reports and audits may call, which a test in
//! `tests/house` checks. What decides is an atomic of the facade, or a [`super::Guess`] if any value is right.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter or gauge for reports.
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
    /// Subtracts `n`, for gauges.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
    /// Adds `n` where the caller is the only thread that ever writes this counter: no read-modify-write.
    #[inline]
    pub fn add_exclusive(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
    /// The value now, for a report.
    #[must_use]
    pub fn tallied(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A source of numbers, from 1 on, each drawn once: one word's read-modify-writes need no model.
#[derive(Debug, Default)]
pub struct Numbers(AtomicU64);

impl Numbers {
    /// None is drawn yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
    /// A number that no other call returns.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
    /// How many were drawn, for a report.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_drawn_in_turn() {
        let numbers = Numbers::new();
        assert_eq!([1, 2, 3].map(|_| numbers.next()), [1, 2, 3]);
        assert_eq!(numbers.drawn(), 3);
    }
}
