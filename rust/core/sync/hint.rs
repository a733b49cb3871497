//! Bits that steer a policy.
//!
//! As with a [`super::Tally`], correctness does not depend on them: a stale or lost bit costs at most a page that is evicted too
//! early or too late. So the model checker does not see them.

use std::sync::atomic::{AtomicU32, Ordering};

/// A word of hints; every access is relaxed.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Hint(AtomicU32);

impl Hint {
    /// A word.
    #[must_use]
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
