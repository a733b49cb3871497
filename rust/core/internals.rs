//! What this repository itself needs from the inside: benchmarks, instruction counts, the stress program, planted bugs and
//! the Python binding.
//!
//! Not part of the public API: it exists only with the feature `internals` and is exempt from semantic versioning. A program
//! that needs something from here has found a gap in the public API; please report it.
//!
//! Owns nothing and synchronises nothing: it re-exports what the rooms have. Mirrors no file of Linux.

/// Telling parent from child after a fork, and values that each process has once; see [`crate::fork`].
pub mod fork {
    pub use crate::sync::PerProcess;

    /// The number of this process among its ancestors and itself: what was made under a smaller one belongs to an ancestor.
    #[inline]
    #[must_use]
    pub fn epoch() -> u64 {
        crate::sync::process_epoch()
    }
}

/// Page frames.
pub mod page {
    pub use crate::page::{Frames, Use};
}

/// Read sections and grace periods.
pub mod rcu {
    pub use crate::rcu::{ArcCell, barrier, call_rcu, read, synchronize};
}

/// Opening regular files, and nothing else.
pub mod store {
    pub use crate::store::regular::open_regular;
}

/// The atomics, locks and counters that the core uses.
pub mod sync {
    #[cfg(specmm_mutants)]
    pub use crate::sync::mutant::switch_off;
    pub use crate::sync::rwsem::RwSem;
    pub use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, Tally, fence};
}

/// The map from page index to page.
pub mod xarray {
    pub use crate::xarray::{Entry, XArray};
}
