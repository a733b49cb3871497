//! Read-copy-update: readers that never wait, and a way to wait for all of them.
//!
//! Owns: read sections ([`read`]), deferred work ([`call_rcu`]), grace periods ([`synchronize`]). Guards tree nodes, VMAs,
//! page-table nodes, open files and the reuse of mapped frames. Does not own the pointers it protects: those are ordinary atomics
//! of their modules.
//!
//! Mirrors `include/linux/rcupdate.h`. It is small and ours because every check in it can be switched off by name. There is one
//! domain per process. A reader pays two stores to its own cache line and a compiler fence; the rest is paid by [`synchronize`],
//! which makes every running thread execute a full fence (`membarrier(2)`).
//!
//! There is no background thread: deferred work runs in the thread that completes a grace period. Whoever unmaps or
//! truncates needs one anyway.

mod arc_cell;
mod deferred;
mod domain;
mod grace;
mod membarrier;
#[cfg(specmm_loom)]
#[cfg_attr(not(test), allow(dead_code, reason = "the models set it"))]
pub mod model;
mod section;

pub use arc_cell::ArcCell;
pub use deferred::{Carried, Carries, Room};
pub use section::ReadSection;
#[cfg(any(specmm_loom, specmm_shuttle))]
pub use section::lapse;

#[cfg(all(test, specmm_loom))]
use domain::ended;
#[cfg(all(test, any(specmm_loom, specmm_shuttle)))]
use domain::{elapsed, snapshot};

/// Enters a read section: what is reachable now stays allocated until the section is dropped. Sections nest.
#[inline]
pub fn read() -> ReadSection {
    section::read()
}

/// Runs `work` after every section that is open now has ended. Never waits, so it may be called under any lock.
pub fn call_rcu(work: impl FnOnce() + Send + 'static) {
    domain::call_rcu(deferred::Work::new(work));
}

/// Ends `thing` after every section that is open now has ended (`kfree_rcu`). Allocates nothing and never waits.
///
/// # Safety
/// The caller owns the thing, as [`Carries::end`] wants it, and ends it in no other way.
pub unsafe fn end_later<T: Carries>(thing: *mut T) {
    // SAFETY: as the caller promises.
    domain::call_rcu(unsafe { deferred::Work::end_of(thing) });
}

/// Waits until every section that is open now has ended, and runs the work deferred before unless another thread does.
///
/// # Panics
/// When called inside a section (it would wait for itself).
pub fn synchronize() {
    domain::synchronize();
}

/// Waits until all work deferred before the call has run (`rcu_barrier`), in this thread or another.
///
/// # Panics
/// As [`synchronize`].
pub fn barrier() {
    domain::barrier();
}

/// Completes a grace period if much work has been deferred. Called by operations that wait anyway.
pub fn synchronize_if_much() {
    domain::synchronize_if_much();
}

/// Deferred work that nobody has taken yet.
#[cfg(all(test, any(specmm_loom, specmm_shuttle)))]
#[must_use]
pub fn waiting() -> u64 {
    domain::waiting()
}

#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/rcu.rs"]
pub(crate) mod models;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/rcu.rs"]
mod shuttle_tests;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/threads.rs"]
mod thread_models;
