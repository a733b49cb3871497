//! The primitives that the model checker explores: loom's, behind the facade's names, in passes.
//!
//! Stock loom never lets a store move before *another* thread's load of a word that the storing thread has loaded itself
//! (tokio-rs/loom 166, 392), and `try_get` and the try-locks have exactly that shape. So every model runs in several passes.
//!
//! | pass | a load is | explores |
//! |---|---|---|
//! | A | loom's | stale reads, not every interleaving |
//! | B | a compare-and-exchange that cannot succeed | every interleaving, newest values |
//! | C | B's for words this thread writes later ([`AtomicU64::load_then_write`]), A's otherwise | stale reads and these interleavings |
//! | twin | loom's, after a read-modify-write on a word that stands beside the one accessed | every interleaving *and* stale reads, dearly: for small models |
//! | stale CAS | C's, and a compare-and-exchange may fail by a stale read, twice an execution | what C11 allows a failing exchange |
//!
//! Owns: the passes, and beneath them the faces of the primitives (`atomic`, `blocking`, `threads`, `life`), what is switched off
//! (`mutant`), what an execution did (`trace`) and where it came (`coverage`). Does not own what a model asserts: `tests/loom`.
//!
//! Not explored: load buffering, more than the last seven stores of a word, more than five threads.

mod atomic;
mod blocking;
pub mod coverage;
mod life;
pub mod mutant;
mod threads;
pub mod trace;

#[cfg(test)]
pub use atomic::full_fence;
pub use atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};
pub use blocking::{Condvar, Mutex, MutexGuard, Parker, pause, spin_hint, yield_now};
pub use life::LifeCell;
pub use loom::lazy_static;
pub use std::sync::OnceLock;
pub use std::sync::atomic::Ordering;
pub(crate) use threads::{
    ThreadId, announces_end, chunk_of_slots, drop_chunk_of_slots, epoch, first_chunk, first_look,
    is_this_thread, nobodys_slot, slots, this_thread, thread_number, with_context,
};
#[cfg(test)]
pub(crate) use threads::{become_a_child, set_claims_meet, set_ends_are_told, set_first_chunk, thread_index};
#[cfg(test)]
pub use threads::{begin_pass, counted, most_alive};

/// The threads of the core.
pub mod thread {
    pub use super::threads::Builder;
    pub use loom::thread::JoinHandle;
}

use std::cell::Cell;

/// How loads behave in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Loom as it is.
    A,
    /// Newest values, every interleaving.
    B,
    /// Newest values where the thread writes the word later.
    C,
    /// As C, and exchanges may fail by a stale read.
    StaleCas,
    /// Loom as it is, but every access first touches a companion word, which makes it a point of interference.
    Twin,
}

impl Pass {
    /// The passes of every model.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::StaleCas];
}

/// Stale failures of exchanges allowed in one execution: a retry loop must end.
const STALE_FAILURES: u32 = 2;

std::thread_local! {
    static PASS: Cell<Pass> = const { Cell::new(Pass::A) };
    static STALE_LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Sets the pass for models on this OS thread.
pub fn set_pass(pass: Pass) {
    PASS.with(|cell| cell.set(pass));
}

/// Called first in every execution.
pub fn begin_execution() {
    STALE_LEFT.with(|cell| cell.set(STALE_FAILURES));
    super::clock::begin_execution();
    threads::begin_execution();
    super::running::begin_execution();
    coverage::begin_execution();
}

/// The pass under way.
#[must_use]
pub fn pass() -> Pass {
    PASS.with(Cell::get)
}
