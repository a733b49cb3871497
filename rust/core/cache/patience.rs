//! When a thread that waits gives up.
//!
//! Owns: how long waiters sleep before they look again, what ends every wait of the process, and what ends those through one
//! open file. Mirrors the killable waits of `mm/filemap.c`.

#[cfg(doc)]
use crate::error::Error;
use crate::sync::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a waiter sleeps before it asks whether the program wants it to give up.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a thread sleeps that waits for what nobody announces.
pub(super) const NAP: Duration = Duration::from_millis(1);

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
static SHOULD_GIVE_UP: crate::sync::OnceLock<fn() -> bool> = crate::sync::OnceLock::new();

/// From now on a thread that waits for a frame, or for a store that may stall ([`ReadBy::Workers`](crate::store::ReadBy::Workers)), asks `check` about twenty
/// times a second, holding no lock; true ends its wait, and its request fails: with
/// [`Error::OutOfFrames`] or [`Error::Interrupted`]. For programs whose
/// users may interrupt them. The first call counts, for the whole process.
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

/// Whether an open file was closed, for those who wait through it.
#[derive(Debug)]
pub(super) struct Closed(AtomicU32);

impl Closed {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    // Relaxed: a close beside a running call has no order with it.

    pub(super) fn close(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
