//! Words that steer a policy.
//!
//! Any value of them is right: a stale or lost one costs a page that is evicted too early or too late, a request that is larger
//! than it need be. So the model checker does not see them. A test in `tests/house` knows where they are and why any value is
//! right there.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bits; every access is relaxed.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Hint(AtomicU32);

impl Hint {
    /// A word.
    #[must_use]
    #[cfg(any(specmm_loom, specmm_shuttle))]
    pub const fn new(bits: u32) -> Self {
        Self(AtomicU32::new(bits))
    }
    /// The bits now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
    /// Replaces all bits.
    #[inline]
    pub fn put(&self, bits: u32) {
        self.0.store(bits, Ordering::Relaxed);
    }
    /// Sets bits; returns the bits before.
    #[inline]
    pub fn set(&self, bits: u32) -> u32 {
        self.0.fetch_or(bits, Ordering::Relaxed)
    }
    /// Clears bits; returns the bits before.
    #[inline]
    pub fn clear(&self, bits: u32) -> u32 {
        self.0.fetch_and(!bits, Ordering::Relaxed)
    }
}

/// A number; every access is relaxed.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Guess(AtomicU64);

impl Guess {
    /// Zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
    /// The number now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// Replaces it.
    #[inline]
    pub fn put(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    /// Adds `n`; returns the sum.
    #[inline]
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed) + n
    }
    /// Subtracts `n`.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
}
