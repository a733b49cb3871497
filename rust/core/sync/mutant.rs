//! The one guard, step or ordering that is switched off in a sanitizer's run of the stress program; compiled only under `--cfg
//! specmm_mutants`.
//!
//! It is chosen once, before the threads start. As under the model checker, the condition or step of a name that is switched off
//! is left out, and its ordering becomes relaxed.

use super::{Ordering, fence as real_fence};
use std::sync::OnceLock;

static OFF: OnceLock<String> = OnceLock::new();

/// Switches `name` off for the rest of the process.
///
/// # Panics
/// If one is already switched off.
pub fn switch_off(name: &str) {
    OFF.set(name.to_owned()).expect("one name a process");
}

#[inline]
pub(crate) fn is_off(name: &'static str) -> bool {
    OFF.get().is_some_and(|off| off == name)
}

#[inline]
pub(crate) fn ordering(name: &'static str, order: Ordering) -> Ordering {
    if is_off(name) { Ordering::Relaxed } else { order }
}

#[inline]
pub(crate) fn fence(name: &'static str, order: Ordering) {
    if !is_off(name) {
        real_fence(order);
    }
}
