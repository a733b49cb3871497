//! When a waiting thread gives up.
//!
//! Owns: how long waiters sleep before they check again, the callback that ends every wait of the process, and the flag that ends
//! the waits through one open file. Does not own the waits (`wait`, `io`, `vmscan`). Both are read without a lock. Mirrors the
//! killable waits of `mm/filemap.c`.

#[cfg(doc)]
use crate::error::Error;
use crate::sync::{AtomicU32, Ordering};
use std::time::Duration;

/// How often a waiter asks whether it should give up.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a thread sleeps that waits for an event without a wake-up.
pub(super) const NAP: Duration = Duration::from_millis(1);

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
static SHOULD_GIVE_UP: crate::sync::OnceLock<fn() -> bool> = crate::sync::OnceLock::new();

/// Sets a callback that can end waits, for programs that can be interrupted. A thread waiting for a frame, or for a store that
/// may stall ([`ReadBy::Workers`](crate::store::ReadBy::Workers)), calls `check` about twenty times a second, holding no lock; if
/// it returns true, the request fails with [`Error::OutOfFrames`] or [`Error::Interrupted`]. Applies to the whole process; calls
/// after the first have no effect.
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub fn give_up_waiting_when(check: fn() -> bool) {
    SHOULD_GIVE_UP.get_or_init(|| check);
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(super) fn should_give_up() -> bool {
    SHOULD_GIVE_UP.get().is_some_and(|check| check())
}

#[cfg(any(specmm_loom, specmm_shuttle))]
pub(super) fn should_give_up() -> bool {
    false
}

/// Whether an open file was closed, for threads that wait through it.
#[derive(Debug)]
pub(super) struct Closed(AtomicU32);

impl Closed {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    // Relaxed: a close is not ordered with a concurrent call.

    pub(super) fn close(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
pub(super) mod tests;
